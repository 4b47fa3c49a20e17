//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* How long threads were held up reclaiming memory before they got theirs.
 *
 * Why these tracepoints: vmscan's own begin and end surround exactly the part of an
 * allocation that reclaims (mm/vmscan.c): direct_reclaim where the node is short of
 * pages, memcg_reclaim where a cgroup is at its limit. kswapd has neither.
 *
 * A stall is counted for the cgroup of the thread that waits, which is not always the
 * one that is short: a child's charge also reclaims for its parent's limit. Their
 * arguments are not read: they differ between kernels, and the thread is current. */
#include "headers/group.h"
#include "headers/histogram.h"

enum { DIRECT, MEMCG, KINDS };

struct stalls {
	u64 buckets[KINDS][BUCKETS];
	u64 sum[KINDS];
};

const struct stalls no_stalls = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct stalls);
} reclaims SEC(".maps");

/* When a thread began. One reclaim never begins within another (PF_MEMALLOC), and
 * each that begins ends, also of a thread that is being killed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, u64);
} reclaiming SEC(".maps");

static __always_inline int begin(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns();

	if (bpf_map_update_elem(&reclaiming, &tid, &now, 0))
		count_lost();
	return 0;
}

static __always_inline int end(u32 kind)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 *start = bpf_map_lookup_elem(&reclaiming, &tid);
	struct stalls *stalls;
	u64 ns, id;

	if (!start)
		return 0; /* it began before the probe */
	ns = bpf_ktime_get_ns() - *start;
	bpf_map_delete_elem(&reclaiming, &tid);
	id = task_group_id((void *)bpf_get_current_task());
	if (id <= ROOT)
		return 0;
	stalls = entry(&reclaims, id, &no_stalls);
	if (!stalls)
		return 0;
	add(&stalls->buckets[kind][bucket_of(ns)], 1);
	add(&stalls->sum[kind], ns);
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int direct_begin(u64 *ctx)
{
	return begin();
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int direct_end(u64 *ctx)
{
	return end(DIRECT);
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_begin")
int memcg_begin(u64 *ctx)
{
	return begin();
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int memcg_end(u64 *ctx)
{
	return end(MEMCG);
}

/* The same for a kernel that refuses tracing programs. */
SEC("raw_tp/mm_vmscan_direct_reclaim_begin")
int direct_begin_raw(u64 *ctx)
{
	return begin();
}

SEC("raw_tp/mm_vmscan_direct_reclaim_end")
int direct_end_raw(u64 *ctx)
{
	return end(DIRECT);
}

SEC("raw_tp/mm_vmscan_memcg_reclaim_begin")
int memcg_begin_raw(u64 *ctx)
{
	return begin();
}

SEC("raw_tp/mm_vmscan_memcg_reclaim_end")
int memcg_end_raw(u64 *ctx)
{
	return end(MEMCG);
}
