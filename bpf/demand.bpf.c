//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* For each CFS bandwidth period of a limited cgroup: what it used, was denied, and
 * whether it was throttled.
 *
 * Why sched_stat_runtime: the scheduler fires it with exactly the time it charges
 * to the cgroup, from contexts where the bandwidth fields can be read without a
 * hook in them, so it needs no fentry. Intervals between switches are no substitute:
 * under a hypervisor they are up to 41 % too long.
 *
 * Events arrive on all CPUs at once and tracing programs may take no lock, so no
 * sum is ever reset. Used time only grows, and each period notes what the totals
 * were as it began: two CPUs that begin a period together write the same. User
 * space takes the differences. */
#include "headers/index.h"

#define PERIODS 64
#define UNLIMITED (~0ULL) /* RUNTIME_INF */
#define MAX_DEPTH 8

struct period {
	u64 start; /* CLOCK_MONOTONIC, ns; the period timer's own phase */
	u64 used;  /* totals as it began */
	u64 throttled_time;
	u32 nr_periods;
	u32 nr_throttled;
	u64 quota;
	u64 length;
};

struct demand {
	u64 used;
	/* Where the open period stands, by the run queue's clock: when its counters are
	 * settled, how long it goes on from there, and nr_periods meanwhile. */
	u64 settled;
	u64 rest;
	u32 nr_periods;
	struct period ring[PERIODS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct demand);
} demands SEC(".maps");

static __always_inline void settle(struct period *period, struct cfs_bandwidth *cfs_b)
{
	period->throttled_time = cfs_b->throttled_time;
	period->nr_throttled = cfs_b->nr_throttled;
	period->nr_periods = cfs_b->nr_periods;
}

static __always_inline void begin(struct period *period, u64 start, u64 used, struct cfs_bandwidth *cfs_b)
{
	period->used = used;
	period->quota = cfs_b->quota;
	period->length = cfs_b->period;
	settle(period, cfs_b);
	period->start = start;
}

/* What an event does that may not just add its time: finds its period, begins it,
 * takes the counters. Reads the clock and divides, which most need not. */
static __noinline int advance(struct demand *demand, struct cfs_bandwidth *cfs_b, u64 clock, u64 runtime)
{
	u64 length = cfs_b->period, now, start, since, before;
	struct period *period, *last;

	if (!demand || !length)
		return 0;
	/* The timer expires at period boundaries, past or to come: its phase is theirs. */
	now = bpf_ktime_get_ns();
	start = now - (now - (u64)cfs_b->period_timer.node.expires % length) % length;
	since = now - start;
	before = since < runtime ? runtime - since : 0;
	period = &demand->ring[(start / length) % PERIODS];
	last = &demand->ring[(start / length - 1) % PERIODS];

	/* Began to run late in the last period, which so has had no event of its own. */
	if (before && last->start != start - length)
		begin(last, start - length, demand->used, cfs_b);
	if (period->start != start) {
		begin(period, start, demand->used + before, cfs_b);
	} else {
		if (before) /* ran until after the boundary: the earlier part is the last period's */
			add(&period->used, before);
		/* The timer closes a period shortly after its end, and then unthrottles one CPU
		 * after the other: what that adds is still the last period's. It may come late:
		 * then nr_periods tells. */
		if (since <= length / 16 || period->nr_periods != (u32)cfs_b->nr_periods)
			settle(period, cfs_b);
	}
	demand->settled = clock - since + length / 16;
	demand->rest = length - length / 16;
	demand->nr_periods = period->nr_periods;
	return 0;
}

static __always_inline void charge(struct task_group *tg, u64 clock, u64 runtime)
{
	struct cfs_bandwidth *cfs_b = &tg->cfs_bandwidth;
	struct demand *demand;
	u64 since;
	u32 index;

	index = INDEX(tg->css.serial_nr, group_id(tg));
	demand = bpf_map_lookup_elem(&demands, &index);
	if (!demand)
		return;
	/* Two CPUs' clocks may differ, and theirs from the timer's: by less than shows within a
	 * period, and nr_periods tells of the next one. */
	since = clock - demand->settled;
	if (since >= demand->rest || since < runtime || demand->nr_periods != (u32)cfs_b->nr_periods)
		advance(demand, cfs_b, clock, runtime);
	add(&demand->used, runtime);
}

SEC("tp_btf/sched_stat_runtime")
int sched_stat_runtime(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct task_group *tg = task->sched_task_group;
	u64 runtime = ctx[1], clock = 0;

	/* A limit binds all below it: a pod's its containers. */
	for (int depth = 0; depth < MAX_DEPTH && tg; depth++) {
		if (tg->cfs_bandwidth.quota != UNLIMITED) {
			if (!clock) /* as the scheduler has just read it to charge this time */
				clock = task->se.cfs_rq->rq->clock;
			charge(tg, clock, runtime);
		}
		tg = tg->parent;
	}
	return 0;
}

/* What the hook itself costs. */
SEC("tp_btf/sched_stat_runtime")
int sched_stat_runtime_empty(u64 *ctx)
{
	return 0;
}
