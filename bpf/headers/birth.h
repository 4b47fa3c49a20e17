/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the two files about births share: who belongs to one, and how it is told.
 *
 * A birth is followed by process. The daemons that make containers and the runtimes are
 * known by the name that they execute under (seeds); all that they fork belongs to
 * them, whatever it executes. Everything is keyed by thread group, which every kernel has:
 * task storage came to tracing programs with 5.11. */
#pragma once

#include "task.h"

#define COMM 16

enum role { NOBODY, DAEMON, RUNTIME };

/* A process, from its fork or execve to the next execve or its end: an image. */
struct process {
	u64 image;
	u64 born;  /* CLOCK_MONOTONIC when the entrypoint was executed, in what became it */
	u32 root;  /* thread group of the first of its lineage */
	u32 home;  /* mount namespace of the runtime: an entrypoint's is another */
	u32 epoch; /* entrypoints reached by its children; what it does later is counted apart */
	u16 role;
	u16 level; /* of the runtime's PID namespace */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, struct process);
} processes SEC(".maps");

/* How many of the processes have a thread group of this remainder. Nearly all tasks of a
 * machine belong to no birth, and this says so for less than a look into the hash costs. */
#define MARKS 16384

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MARKS);
	__type(key, u32);
	__type(value, u32);
} marks SEC(".maps");

#define RING (1 << 22) /* bytes */

/* Events go by ring in the order they happen. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING);
} births SEC(".maps");

/* What could not be told, by reason. Go: birthLosses */
enum loss { RING_FULL, PROCESSES_FULL, COUNTS_FULL, UNREADABLE, LOSSES };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, u32);
	__type(value, u64);
} losses SEC(".maps");

static __always_inline void lose(u32 reason)
{
	u64 *n = bpf_map_lookup_elem(&losses, &reason);

	if (n)
		add(n, 1);
}

/* Go: BirthKind */
enum kind { FORK = 1, EXEC, EXIT, CALL, NETLINK, MKDIR, ATTACH, RETURNED };

struct head {
	u64 at; /* CLOCK_MONOTONIC, ns */
	u64 image;
	u32 tgid;
	u32 tid;
	u32 kind;
	u32 root;
};

/* Room for an event of a type; none where the ring is full, which is counted. */
#define RESERVE(type) ({ \
	type *room = bpf_ringbuf_reserve(&births, sizeof(type), 0); \
	if (!room) \
		lose(RING_FULL); \
	room; \
})

enum { AVAILABLE = 0, NO_WAKEUP = 1, FORCE_WAKEUP = 2 }; /* BPF_RB_… */

/* An event upon which the reader may have to act: it is woken. Left to itself the kernel
 * wakes only a reader that has read all before, which is not so behind LATER. */
#define NOW(e) bpf_ringbuf_submit(e, FORCE_WAKEUP)

/* One that can wait for the reader's next round: there are hundreds to a birth, and a
 * wake-up costs the birth more than the rest of the program. */
#define LATER(e) bpf_ringbuf_submit(e, bpf_ringbuf_query(&births, AVAILABLE) > RING / 4 ? FORCE_WAKEUP : NO_WAKEUP)

static __always_inline void mark(u32 tgid, s32 n)
{
	u32 remainder = tgid % MARKS, *marked = bpf_map_lookup_elem(&marks, &remainder);

	if (marked)
		add(marked, (u32)n);
}

/* Whether a thread group may be of those that are followed; nearly all are not. */
static __always_inline bool marked(u32 tgid)
{
	u32 remainder = tgid % MARKS, *n = bpf_map_lookup_elem(&marks, &remainder);

	return n && *(volatile u32 *)n;
}

static __always_inline void leave_out(u32 tgid)
{
	if (!bpf_map_delete_elem(&processes, &tgid))
		mark(tgid, -1);
}

static __always_inline void fill(struct head *head, u32 kind, struct process *p, u64 id)
{
	head->at = bpf_ktime_get_ns();
	head->kind = kind;
	head->tgid = id >> 32;
	head->tid = id;
	head->image = p ? p->image : 0;
	head->root = p ? p->root : 0;
}

static __always_inline u32 pid_level(struct task_struct *task)
{
	struct pid *pid = 0;
	u32 level = 0;

	core_read(&pid, &task->thread_pid);
	if (pid)
		core_read(&level, &pid->level);
	return level;
}

char _license[] SEC("license") = "Dual BSD/GPL";
