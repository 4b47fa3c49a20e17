//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* How long each throttling of a cgroup's run queue lasted, exactly.
 *
 * Why unthrottle_cfs_rq: the kernel itself adds rq->clock - cfs_rq->throttled_clock
 * to cpu.stat there. The start is read on entry (the function zeroes it from 6.6
 * on), the end on exit (the function updates the clock). Any other clock is off by
 * up to 3 %. */
#include "headers/group.h"
#include "headers/histogram.h"

struct durations {
	u64 buckets[BUCKETS];
	u64 sum;
};

const struct durations no_durations = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct durations);
} throttles SEC(".maps");

/* From entry to exit: the caller holds the run queue's lock with interrupts off, so
 * one slot for each CPU is enough. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} started SEC(".maps");

/* A whole int on old kernels, one bit on newer ones. */
static __always_inline bool is_throttled(struct cfs_rq *cfs_rq)
{
	const void *at = (const void *)cfs_rq + __builtin_preserve_field_info(cfs_rq->throttled, 0);
	u64 raw = 0;

	bpf_probe_read_kernel(&raw, __builtin_preserve_field_info(cfs_rq->throttled, 1), at);
	raw <<= __builtin_preserve_field_info(cfs_rq->throttled, 4);
	return raw >> __builtin_preserve_field_info(cfs_rq->throttled, 5);
}

SEC("fentry/unthrottle_cfs_rq")
int unthrottle_enter(u64 *ctx)
{
	struct cfs_rq *cfs_rq = (void *)ctx[0];
	u32 zero = 0;
	u64 *start = bpf_map_lookup_elem(&started, &zero);

	if (start) /* 0: throttled with nothing queued, which the kernel does not count */
		*start = is_throttled(cfs_rq) ? cfs_rq->throttled_clock : 0;
	return 0;
}

SEC("fexit/unthrottle_cfs_rq")
int unthrottle_exit(u64 *ctx)
{
	struct cfs_rq *cfs_rq = (void *)ctx[0];
	struct durations *d;
	u32 zero = 0;
	u64 *start = bpf_map_lookup_elem(&started, &zero);
	u64 now, id, ns;

	/* From 6.18 on it may return early and leave the queue throttled. */
	if (!start || !*start || is_throttled(cfs_rq))
		return 0;
	now = cfs_rq->rq->clock;
	if (now < *start)
		return 0;
	ns = now - *start;
	id = group_id(cfs_rq->tg);
	if (id <= ROOT)
		return 0;
	d = entry(&throttles, id, &no_durations);
	if (!d)
		return 0;
	add(&d->buckets[bucket_of(ns)], 1);
	add(&d->sum, ns);
	return 0;
}
