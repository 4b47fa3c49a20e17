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
#include "headers/group.h"

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
	struct period ring[PERIODS];
};

const struct demand no_demand = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
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

static __always_inline void charge(struct task_group *tg, u64 now, u64 runtime)
{
	struct cfs_bandwidth *cfs_b = &tg->cfs_bandwidth;
	u64 length = cfs_b->period, start, before;
	struct period *period, *last;
	struct demand *demand;

	if (!length)
		return;
	demand = entry(&demands, group_id(tg), &no_demand);
	if (!demand)
		return;

	/* The timer expires at period boundaries, past or to come: its phase is theirs. */
	start = now - (now - (u64)cfs_b->period_timer.node.expires % length) % length;
	before = now - start < runtime ? runtime - (now - start) : 0;
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
		if (now - start > length / 16 && period->nr_periods == (u32)cfs_b->nr_periods) {
			add(&demand->used, runtime);
			return;
		}
	}
	/* The timer closes a period shortly after its end, and then unthrottles one CPU
	 * after the other: what that adds is still the last period's. It may come late:
	 * then nr_periods tells. */
	settle(period, cfs_b);
	add(&demand->used, runtime);
}

SEC("tp_btf/sched_stat_runtime")
int sched_stat_runtime(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct task_group *tg = task->sched_task_group;
	u64 runtime = ctx[1], now = 0;

	/* A limit binds all below it: a pod's its containers. Reading the clock is most of
	 * what an event costs where nothing is limited, so it waits for one that is. */
	for (int depth = 0; depth < MAX_DEPTH && tg; depth++) {
		if (tg->cfs_bandwidth.quota != UNLIMITED) {
			if (!now)
				now = bpf_ktime_get_ns();
			charge(tg, now, runtime);
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
