//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Whom the OOM killer chose, how large it was, under which limit, and who asked for
 * the page that was not there. Counts are those of memory.events; this is what that
 * file does not tell, and what outlives the cgroup it is in.
 *
 * Why oom_kill_process: its argument names the victim and the cgroup that ran out. A
 * kernel that refuses fentry has the tracepoint mark_victim, which names the victim
 * alone (and before about 6.9 no more than its pid, which is not enough). */
#include "headers/group.h"

#define COMM 16
#define ANCESTORS 8

enum { SCOPE_UNKNOWN, SCOPE_CGROUP, SCOPE_NODE };

struct kills {
	u64 count;
	/* The last one: */
	u64 at; /* CLOCK_MONOTONIC, ns */
	u64 rss_pages;
	u64 limit_pages; /* 0: none, or not told */
	u32 victim;
	u32 trigger;
	u32 scope;
	u32 unused;
	char victim_comm[COMM];
	char trigger_comm[COMM];
};

const struct kills no_kills = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct kills);
} ooms SEC(".maps");

/* The index is a constant: CO-RE looks up the size of an element with it. From 6.2 on
 * these are per-CPU counters. */
#define PAGES(mm, i) ({ \
	struct mm_struct___old *old = (void *)(mm); \
	s64 n = 0; \
	if (core_field_exists(old->rss_stat.count)) \
		core_read(&n, &old->rss_stat.count[i]); \
	else \
		core_read(&n, &(mm)->rss_stat[i].count); \
	n > 0 ? (u64)n : 0; \
})

/* File, anonymous and shared pages without the CPUs' remainders, as the kernel's own
 * log line has them. */
static __always_inline u64 rss(struct task_struct *task)
{
	struct mm_struct *mm = 0;

	core_read(&mm, &task->mm);
	return mm ? PAGES(mm, 0) + PAGES(mm, 1) + PAGES(mm, 3) : 0;
}

static __always_inline u64 limit_of(struct mem_cgroup *memcg)
{
	unsigned long max = 0;

	core_read(&max, &memcg->memory.max);
	return max >= 1ULL << 50 ? 0 : max; /* PAGE_COUNTER_MAX */
}

/* The smallest limit that binds the task's memory cgroup. */
static __always_inline u64 smallest_limit(struct task_struct *task)
{
	struct cgroup_subsys_state *css = 0;
	struct css_set *set = 0;
	u64 smallest = 0;
	u32 memory = core_enum_value(cgroup_subsys_id, memory_cgrp_id);

	core_read(&set, &task->cgroups);
	bpf_probe_read_kernel(&css, sizeof(css), (void *)set + core_field_offset(set->subsys) + memory * sizeof(css));
	for (u32 i = 0; i < ANCESTORS && css; i++) {
		u64 limit = limit_of((struct mem_cgroup *)((void *)css - core_field_offset(((struct mem_cgroup *)0)->css)));

		if (limit && (!smallest || limit < smallest))
			smallest = limit;
		core_read(&css, &css->parent);
	}
	return smallest;
}

static __always_inline int count(struct task_struct *victim, u32 scope, u64 limit)
{
	struct kills *k;
	u64 id = task_group_id(victim);

	if (id <= ROOT)
		return 0;
	k = entry(&ooms, id, &no_kills);
	if (!k)
		return 0;
	/* Under oom_lock: there is one at a time. */
	k->at = bpf_ktime_get_ns();
	k->rss_pages = rss(victim);
	k->limit_pages = limit;
	core_read(&k->victim, &victim->pid);
	core_read(&k->victim_comm, &victim->comm);
	k->trigger = bpf_get_current_pid_tgid();
	bpf_get_current_comm(k->trigger_comm, sizeof(k->trigger_comm));
	k->scope = scope;
	add(&k->count, 1);
	return 0;
}

SEC("fentry/oom_kill_process")
int kill_process(u64 *ctx)
{
	struct oom_control *oc = (void *)ctx[0];
	struct task_struct *victim = 0;
	struct mem_cgroup *memcg = 0;

	core_read(&victim, &oc->chosen);
	core_read(&memcg, &oc->memcg);
	if (memcg)
		return count(victim, SCOPE_CGROUP, limit_of(memcg));
	return count(victim, SCOPE_NODE, smallest_limit(victim));
}

SEC("tp_btf/mark_victim")
int mark_victim(u64 *ctx)
{
	struct task_struct *victim = (void *)ctx[0];

	return count(victim, SCOPE_UNKNOWN, smallest_limit(victim));
}

SEC("raw_tp/mark_victim")
int mark_victim_raw(u64 *ctx)
{
	struct task_struct *victim = (void *)ctx[0];

	return count(victim, SCOPE_UNKNOWN, smallest_limit(victim));
}
