/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What all maps are keyed by, and how an entry comes into being. */
#pragma once

#include "kernel.h"

/* The root group is the machine, not a container: nothing is kept for it. It has
 * inode 1 in every hierarchy. An autogroup has no cgroup and counts as root too. */
#define ROOT 1

/* The scheduler's own pointer to the task's cpu cgroup: right on cgroup v1 and v2,
 * and on v2 also where the cpu controller ends at an ancestor. */
static __always_inline u64 group_id(struct task_group *tg)
{
	struct cgroup *cgroup = tg->css.cgroup;

	return cgroup ? cgroup->kn->id : ROOT;
}

/* The same by copying, for a task that is not current or where the kernel gives no
 * typed pointer to it. */
static __always_inline u64 task_group_id(struct task_struct *task)
{
	struct task_group *tg = 0;
	struct cgroup *cgroup = 0;
	struct kernfs_node *kn = 0;
	u64 id = ROOT;

	core_read(&tg, &task->sched_task_group);
	core_read(&cgroup, &tg->css.cgroup);
	if (!cgroup)
		return ROOT;
	core_read(&kn, &cgroup->kn);
	core_read(&id, &kn->id);
	return id;
}

/* Updates that found the map full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

static __always_inline void count_lost(void)
{
	u32 zero = 0;
	u64 *n = bpf_map_lookup_elem(&lost, &zero);

	if (n)
		add(n, 1);
}

/* An entry is made by the first event, so that nothing that happens before user
 * space hears of a cgroup is missed; user space deletes it. Not LRU: that evicts
 * early, and in batches. */
static __always_inline void *entry(void *map, u64 id, const void *zero)
{
	void *value = bpf_map_lookup_elem(map, &id);

	if (value)
		return value;
	bpf_map_update_elem(map, &id, zero, BPF_NOEXIST);
	value = bpf_map_lookup_elem(map, &id);
	if (!value)
		count_lost();
	return value;
}

char _license[] SEC("license") = "Dual BSD/GPL";
