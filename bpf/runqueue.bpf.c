//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Time that threads were runnable and not running, and how much of it throttling
 * explains.
 *
 * Why sched_switch: at this point the next thread's sched_info is not yet updated,
 * so run_delay plus (rq->clock - last_queued) is what /proc/PID/schedstat will show
 * a moment later. The growth since its last arrival is the wait, parts spent on
 * other CPUs before a migration included; no clock of ours, and sums agree with the
 * kernel's to the nanosecond.
 *
 * Throttling: each cfs_rq keeps a clock of the time it was throttled, by itself or
 * by an ancestor. Its growth during the wait is the throttled part. Exact from 6.6
 * on, for waits that stay on one CPU. Uncertain: before 6.6 that clock leaves out
 * time stolen by interrupts and the hypervisor, and from 6.0 to 6.5 it also runs
 * with the CPU's speed; after a migration only the throttling on the CPU where the
 * wait began is counted, until now and not until the migration. From 6.18 on a
 * throttled thread runs on until it returns to user space: that time is no wait. */
#include "headers/index.h"
#include "headers/histogram.h"

struct waits {
	u64 buckets[BUCKETS];
	u64 sum;
	u64 throttled;
	u64 negative; /* dropped: the clock was behind */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct waits);
} waits SEC(".maps");

struct thread {
	u64 run_delay; /* at its last arrival */
	u64 throttled; /* the throttled clock as its wait began, if armed */
	u32 cpu;       /* whose clock that is */
	u8 seen;
	u8 armed;
};

/* Gone with the thread; the choice where the kernel has it for tracing (5.13). */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, s32);
	__type(value, struct thread);
} threads SEC(".maps");

/* Otherwise by thread ID, deleted when the thread is freed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, s32);
	__type(value, struct thread);
} threads_by_pid SEC(".maps");

static __always_inline struct thread *thread_of(struct task_struct *task, bool storage)
{
	struct thread none = {}, *thread;
	s32 pid;

	if (storage)
		return bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	pid = task->pid;
	thread = bpf_map_lookup_elem(&threads_by_pid, &pid);
	if (thread)
		return thread;
	bpf_map_update_elem(&threads_by_pid, &pid, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&threads_by_pid, &pid);
}

/* Nanoseconds for which a cfs_rq has been throttled so far. 0 for almost every one:
 * then the rest of the work is not done. */
static __always_inline u64 throttled_clock(struct cfs_rq *cfs_rq)
{
	struct cfs_rq___pelt *pelt = (void *)cfs_rq;
	struct cfs_rq___task *old = (void *)cfs_rq;
	u64 total = 0, since = 0, now = 0;

	if (core_field_exists(cfs_rq->throttled_clock_self_time)) {
		total = cfs_rq->throttled_clock_self_time;
		since = cfs_rq->throttled_clock_self;
		if (since)
			now = cfs_rq->rq->clock;
	} else if (core_field_exists(pelt->throttled_clock_pelt_time)) {
		total = pelt->throttled_clock_pelt_time;
		since = cfs_rq->throttle_count ? pelt->throttled_clock_pelt : 0;
		if (since)
			now = cfs_rq->rq->clock_pelt;
	} else if (core_field_exists(old->throttled_clock_task_time)) {
		total = old->throttled_clock_task_time;
		since = cfs_rq->throttle_count ? old->throttled_clock_task : 0;
		if (since)
			now = cfs_rq->rq->clock_task;
	}
	if (since && now > since)
		total += now - since;
	return total;
}

static __always_inline void wait_begins(struct task_struct *task, bool storage)
{
	struct cfs_rq *cfs_rq = task->se.cfs_rq;
	u64 clock = throttled_clock(cfs_rq);
	struct thread *thread;

	if (!clock)
		return;
	thread = thread_of(task, storage);
	if (!thread)
		return;
	thread->throttled = clock;
	thread->cpu = cfs_rq->rq->cpu;
	thread->armed = 1;
}

static __always_inline u64 throttled_part(struct task_struct *task, struct thread *thread, u64 wait, u64 here)
{
	struct cfs_rq *cfs_rq = task->se.cfs_rq;
	struct cfs_rq **queues, *began = 0;
	u64 then = thread->throttled, total = 0, part;

	if (!thread->armed) /* nothing was throttled as it began, here or elsewhere */
		part = wait == here ? throttled_clock(cfs_rq) : 0;
	else if (thread->cpu == (u32)cfs_rq->rq->cpu)
		part = throttled_clock(cfs_rq) - then;
	else {
		struct cfs_rq___pelt *pelt;
		struct cfs_rq___task *old;

		/* Not migrated while throttled, so the finished part is all of it. */
		queues = task->sched_task_group->cfs_rq;
		bpf_probe_read_kernel(&began, sizeof(began), queues + thread->cpu);
		pelt = (void *)began;
		old = (void *)began;
		if (core_field_exists(began->throttled_clock_self_time))
			core_read(&total, &began->throttled_clock_self_time);
		else if (core_field_exists(pelt->throttled_clock_pelt_time))
			core_read(&total, &pelt->throttled_clock_pelt_time);
		else if (core_field_exists(old->throttled_clock_task_time))
			core_read(&total, &old->throttled_clock_task_time);
		part = total > then ? total - then : 0;
	}
	return part < wait ? part : wait;
}

static __always_inline int arrives(struct task_struct *task, bool storage)
{
	u64 total, wait, queued, now, here = 0;
	struct task_group *tg;
	struct thread *thread;
	struct waits *w;
	bool first;
	u32 index;

	if (!task->pid) /* idle */
		return 0;
	tg = task->sched_task_group;
	index = INDEX(tg->css.serial_nr, group_id(tg));
	w = bpf_map_lookup_elem(&waits, &index);
	if (!w) /* the root's, or there are too many cgroups */
		return 0;
	thread = thread_of(task, storage);
	if (!thread) {
		count_lost();
		return 0;
	}
	queued = task->sched_info.last_queued;
	now = task->se.cfs_rq->rq->clock;
	if (queued > now) {
		w->negative++;
		return 0;
	}
	if (queued)
		here = now - queued;
	total = task->sched_info.run_delay + here;
	wait = total - thread->run_delay;
	thread->run_delay = total;
	first = !thread->seen;
	thread->seen = 1;
	/* Older than we are: what it waited before is not ours to tell. */
	if (first && task->sched_info.pcount)
		goto out;
	if (!queued && !wait) /* never left the CPU's queue: no wait */
		goto out;
	w->buckets[bucket_of(wait)]++;
	w->sum += wait;
	w->throttled += throttled_part(task, thread, wait, here);
out:
	thread->armed = 0;
	return 0;
}

static __always_inline int switched(struct task_struct *prev, struct task_struct *next, bool storage)
{
	struct task_struct___old *old = (void *)prev;
	u64 state;

	if (core_field_exists(prev->__state))
		state = prev->__state;
	else
		state = old->state;
	if (!state && prev->pid) /* preempted or throttled: it waits from now on */
		wait_begins(prev, storage);
	return arrives(next, storage);
}

SEC("tp_btf/sched_switch")
int sched_switch(u64 *ctx)
{
	return switched((void *)ctx[1], (void *)ctx[2], 1);
}

/* Why also the wake-ups: a thread may wake into a cgroup that is throttled. */
SEC("tp_btf/sched_wakeup")
int sched_wakeup(u64 *ctx)
{
	wait_begins((void *)ctx[0], 1);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int sched_wakeup_new(u64 *ctx)
{
	wait_begins((void *)ctx[0], 1);
	return 0;
}

SEC("tp_btf/sched_switch")
int sched_switch_by_pid(u64 *ctx)
{
	return switched((void *)ctx[1], (void *)ctx[2], 0);
}

SEC("tp_btf/sched_wakeup")
int sched_wakeup_by_pid(u64 *ctx)
{
	wait_begins((void *)ctx[0], 0);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int sched_wakeup_new_by_pid(u64 *ctx)
{
	wait_begins((void *)ctx[0], 0);
	return 0;
}

/* Not sched_process_exit: a dying thread is switched a few times more. */
SEC("tp_btf/sched_process_free")
int sched_process_free_by_pid(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	s32 pid = task->pid;

	bpf_map_delete_elem(&threads_by_pid, &pid);
	return 0;
}

/* The yardstick of the benchmarks: what the hook itself costs. */
SEC("tp_btf/sched_switch")
int sched_switch_empty(u64 *ctx)
{
	return 0;
}
