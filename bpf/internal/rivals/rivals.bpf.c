//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The usual ways to count and to time the same, written anew from how others
 * describe theirs, so that benchmarks can put them side by side on one kernel. Not
 * shipped: only tests load this object. Each leaves out everything but the counting
 * itself, which favours it.
 *
 * usual     a per-CPU hash keyed by cgroup and number, by bpf_get_current_cgroup_id
 * bpftrace  tracepoint:raw_syscalls:sys_enter { @[cgroup, args.id] = count(); }:
 *           a perf tracepoint and a per-CPU hash, added to in place
 * bcc       syscount: a perf tracepoint and one hash for all CPUs, added to atomically
 * runqlat   bcc's: when a thread was queued in a hash by thread ID, and a histogram
 *           in a hash by cgroup and bucket */
#include "../../headers/group.h"
#include "../../headers/histogram.h"

enum { BPF_ANY = 0 };

static u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;

struct key {
	u64 cgroup;
	u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct key);
	__type(value, u64);
} per_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct key);
	__type(value, u64);
} shared SEC(".maps");

static __always_inline int count(u64 number)
{
	struct key key = {.cgroup = bpf_get_current_cgroup_id(), .number = number};
	u64 *n = bpf_map_lookup_elem(&per_cpu, &key), one = 1;

	if (n)
		*n += 1;
	else
		bpf_map_update_elem(&per_cpu, &key, &one, BPF_ANY);
	return 0;
}

SEC("tp_btf/sys_enter")
int usual(u64 *ctx)
{
	return count(ctx[1]);
}

/* What a perf tracepoint hands over: 8 bytes of its own, then the number. */
SEC("tracepoint/raw_syscalls/sys_enter")
int bpftrace(u64 *ctx)
{
	return count(ctx[1]);
}

SEC("tracepoint/raw_syscalls/sys_enter")
int bcc(u64 *ctx)
{
	struct key key = {.cgroup = bpf_get_current_cgroup_id(), .number = ctx[1]};
	u64 *n = bpf_map_lookup_elem(&shared, &key), zero = 0;

	if (!n) {
		bpf_map_update_elem(&shared, &key, &zero, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&shared, &key);
		if (!n)
			return 0;
	}
	__sync_fetch_and_add(n, 1);
	return 0;
}

/* The floor of a perf tracepoint. */
SEC("tracepoint/raw_syscalls/sys_enter")
int tracepoint_empty(u64 *ctx)
{
	return 0;
}

/* The floor of the scheduler's hooks. */
SEC("tp_btf/sched_switch")
int empty_switch(u64 *ctx)
{
	return 0;
}

SEC("tp_btf/sched_wakeup")
int empty_wakeup(u64 *ctx)
{
	return 0;
}

SEC("tp_btf/sched_stat_runtime")
int empty_runtime(u64 *ctx)
{
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, u32);
	__type(value, u64);
} queued SEC(".maps");

static __always_inline int enqueued(u32 pid)
{
	u64 now = bpf_ktime_get_ns();

	if (pid)
		bpf_map_update_elem(&queued, &pid, &now, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int runqlat_wakeup(u64 *ctx)
{
	return enqueued(((struct task_struct *)ctx[0])->pid);
}

SEC("tp_btf/sched_wakeup_new")
int runqlat_wakeup_new(u64 *ctx)
{
	return enqueued(((struct task_struct *)ctx[0])->pid);
}

SEC("tp_btf/sched_switch")
int runqlat_switch(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct task_struct___old *old = (void *)prev;
	u32 pid = next->pid;
	u64 state, *since, *n, zero = 0;
	struct key key = {};

	if (core_field_exists(prev->__state))
		state = prev->__state;
	else
		state = old->state;
	if (!state)
		enqueued(prev->pid);
	since = bpf_map_lookup_elem(&queued, &pid);
	if (!since)
		return 0;
	key.cgroup = group_id(next->sched_task_group); /* current is the thread that leaves */
	key.number = bucket_of(bpf_ktime_get_ns() - *since);
	bpf_map_delete_elem(&queued, &pid);
	n = bpf_map_lookup_elem(&shared, &key);
	if (!n) {
		bpf_map_update_elem(&shared, &key, &zero, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&shared, &key);
		if (!n)
			return 0;
	}
	__sync_fetch_and_add(n, 1);
	return 0;
}
