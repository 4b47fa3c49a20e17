//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* System calls per cgroup and name.
 *
 * Why sys_enter: one hook for all of them, on every architecture, before the call
 * can block or kill the caller. A program per call would cost a tracepoint each.
 *
 * Why also a kprobe: from about 7.0 on programs here may be preempted, and as
 * long as one is, the kernel skips the program for every other thread of that CPU:
 * half the calls of busy threads go missing. A kprobe's program runs with preemption
 * off. It sits on the function that calls the tracepoint, which is called only for
 * threads that the tracepoint is on for: a program that does nothing keeps it on. */
#include "headers/index.h"
#include "headers/syscall.h"

#define SLOTS 64
#define NUMBERS 512

/* System call number to slot, filled before the load by the names asked for and
 * the numbers of this architecture. Read-only data: no second map look-up. */
const volatile u8 slot_of[NUMBERS] = {};
const volatile u32 other = 0;

struct counts {
	u64 n[SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct counts);
} syscalls SEC(".maps");

static __always_inline int count(u64 number)
{
	typeof(COMPAT(((struct task_struct *)0)->thread_info)) compat = 0;
	struct counts *counts;
	u32 slot = other, index;

	if (core_enum_exists(bpf_func_id, BPF_FUNC_get_current_task_btf)) {
		struct task_struct *task = bpf_get_current_task_btf();
		struct task_group *tg = task->sched_task_group;

		index = INDEX(tg->css.serial_nr, group_id(tg));
		compat = COMPAT(task->thread_info);
	} else { /* 5.10: the same by copying */
		struct task_struct *task = (void *)bpf_get_current_task();
		struct task_group *tg = 0;
		u64 nr = 0;

		core_read(&tg, &task->sched_task_group);
		core_read(&nr, &tg->css.serial_nr);
		index = INDEX(nr, task_group_id(task));
		core_read(&compat, &COMPAT(task->thread_info));
	}
	counts = bpf_map_lookup_elem(&syscalls, &index);
	if (!counts) /* the root's, or there are too many cgroups */
		return 0;
	if (number < NUMBERS && !(compat & IS_COMPAT))
		slot = slot_of[number];
	if (slot < SLOTS) /* of this CPU, and nothing that counts comes in between */
		counts->n[slot]++;
	return 0;
}

SEC("tp_btf/sys_enter")
int sys_enter(u64 *ctx)
{
	return count(ctx[1]);
}

/* The same for a kernel that refuses tracing programs. */
SEC("raw_tp/sys_enter")
int sys_enter_raw(u64 *ctx)
{
	return count(ctx[1]);
}

/* The same for a kernel that preempts tracing programs. The function's first argument
 * is what the thread entered with; some kernels pass the number as well, some do not. */
SEC("kprobe/trace_syscall_enter")
int sys_enter_kprobe(u64 *ctx)
{
	struct pt_regs *entered = (void *)ctx[FIRST_ARGUMENT];
	typeof(NUMBER(entered)) number = -1;

	core_read(&number, &NUMBER(entered));
	return count(number);
}

/* Keeps the tracepoint on for the kprobe; and the yardstick of the benchmarks: what
 * the hook itself costs. */
SEC("tp_btf/sys_enter")
int sys_enter_empty(u64 *ctx)
{
	return 0;
}
