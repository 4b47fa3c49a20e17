//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Which processes bring a container to life, from the daemon or runtime that begins it to
 * the execve of its entrypoint.
 *
 * Why these hooks: they are tracepoints of things that are rare on any machine (fork,
 * execve, exit, a new cgroup, a move into one), so that they can stay attached, and every
 * kernel has them. What is frequent is in birth_calls.bpf.c.
 *
 * The entrypoint is the execve in a mount namespace other than the runtime's, by a process
 * that is in a PID namespace deeper than its parent's (or where there is none of its own,
 * the first such execve). That tells it from the hooks that a runtime runs inside of the
 * container, whose parent is in there, too. runc executes itself again in the runtime's
 * namespace; crun does not, and goes to the entrypoint at once. */
#include "headers/birth.h"

#define ARGUMENTS 1024
#define ENVIRONMENT 1024
#define VARIABLE 256  /* bytes of one variable that are kept */
#define VARIABLES 96  /* that are looked at */
#define PATH 256
#define CNI 0x5f494e43u /* "CNI_" as a number */

/* Names that a process executes under, to enum role: filled by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, char[COMM]);
	__type(value, u32);
} seeds SEC(".maps");

enum { SEED = 1, ENTRYPOINT = 2 };

struct fork {
	struct head head; /* of the parent */
	u64 child_image;
	u32 child;
	u32 role; /* of the parent */
};

struct exec {
	struct head head; /* the new image */
	u64 previous;
	u32 flags;
	u32 role;
	u32 parent;      /* of an entrypoint, and how far its epoch and the root's came */
	u32 parent_epoch;
	u32 root_epoch;
	u32 arguments;   /* bytes */
	u32 environment; /* bytes: variables that begin with CNI_, each with its NUL */
	u32 unused;
	char comm[COMM];
	char file[PATH];
	char argv[ARGUMENTS];
	/* The last variable is read past the end and wiped, unless it is one of CNI's. */
	char env[ENVIRONMENT + VARIABLE];
};

struct exit {
	struct head head;
	u32 code; /* as wait tells it: status << 8 | signal */
	u32 unused;
};

struct group {
	struct head head; /* of who does it */
	u32 task; /* thread group that moves */
	s32 hierarchy;
	char path[PATH];
};

/* Keep the types in the object, for the Go side. */
const struct head *unused_head __attribute__((unused));
const struct fork *unused_fork __attribute__((unused));
const struct exec *unused_exec __attribute__((unused));
const struct exit *unused_exit __attribute__((unused));
const struct group *unused_group __attribute__((unused));

static const char zeros[VARIABLE] = {};

/* The thread group and when it came to be: no two have both. */
static __always_inline u64 image_of(u32 tgid)
{
	return (u64)tgid << 40 | (bpf_ktime_get_ns() & ((1ULL << 40) - 1));
}

static __always_inline bool keep(u32 tgid, struct process *p)
{
	if (!bpf_map_update_elem(&processes, &tgid, p, BPF_NOEXIST)) {
		mark(tgid, 1);
		return 1;
	}
	if (!bpf_map_update_elem(&processes, &tgid, p, BPF_EXIST))
		return 1;
	lose(PROCESSES_FULL);
	return 0;
}

/* The current process as a daemon, when it bears a daemon's name and was there before.
 * Where it is seen first decides nothing: what it does for a pod begins with a cgroup or a
 * fork. (An iterator over tasks would show those of our own PID namespace alone.) */
static __always_inline struct process *running_daemon(u64 id)
{
	struct task_struct *task = (void *)bpf_get_current_task(), *leader = 0;
	struct process p = {.role = DAEMON};
	u32 tgid = id >> 32, *role;
	char comm[COMM] = {};
	struct exec *e;

	core_read(&leader, &task->group_leader);
	bpf_probe_read_kernel_str(comm, COMM, __builtin_preserve_access_index(&leader->comm));
	role = bpf_map_lookup_elem(&seeds, comm);
	if (!role || *role != DAEMON)
		return 0;
	p.image = image_of(tgid);
	p.root = tgid;
	if (!keep(tgid, &p))
		return 0;
	e = RESERVE(struct exec);
	if (e) {
		fill(&e->head, EXEC, &p, id);
		e->previous = 0;
		e->flags = SEED;
		e->role = DAEMON;
		e->arguments = 0;
		e->environment = 0;
		__builtin_memcpy(e->comm, comm, COMM);
		__builtin_memcpy(e->file, comm, COMM);
		LATER(e);
	}
	return bpf_map_lookup_elem(&processes, &tgid);
}

SEC("raw_tp/sched_process_fork")
int process_fork(u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];
	u64 id = bpf_get_current_pid_tgid(); /* also where the new one's parent is to be another */
	u32 tgid = id >> 32, new = 0;
	struct process *parent = bpf_map_lookup_elem(&processes, &tgid);
	struct process p = {};
	struct fork *e;

	core_read(&new, &child->tgid);
	if (!parent)
		parent = running_daemon(id);
	if (!parent || parent->born || new == tgid) { /* a thread */
		if (new != tgid)
			leave_out(new); /* of a process whose end was missed */
		return 0;
	}
	p.image = image_of(new);
	p.role = RUNTIME;
	if (parent->role == DAEMON) { /* a lineage begins */
		struct task_struct *daemon = (void *)bpf_get_current_task();

		p.root = new;
		p.home = mount_namespace(daemon);
		p.level = pid_level(daemon);
	} else {
		p.root = parent->root;
		p.home = parent->home;
		p.level = parent->level;
	}
	if (!keep(new, &p))
		return 0;
	e = RESERVE(struct fork);
	if (!e)
		return 0;
	fill(&e->head, FORK, parent, id);
	e->child_image = p.image;
	e->child = new;
	e->role = parent->role;
	LATER(e);
	return 0;
}

/* Copies what begins with CNI_, and nothing else: an environment holds secrets. Each
 * variable is read to where the next one of CNI's would be; only one of CNI's moves that
 * place on. Without a branch in it the verifier of 5.10 goes through this loop once. */
static __always_inline u32 cni_environment(struct exec *e, struct mm_struct *mm)
{
	unsigned long at = 0, end = 0;
	u32 length = 0;

	core_read(&at, &mm->env_start);
	core_read(&end, &mm->env_end);
	for (u32 i = 0; i < VARIABLES; i++) {
		char *place = e->env + (length & (ENVIRONMENT - 1));
		u64 differs;
		long n;

		if (at >= end)
			break;
		n = bpf_probe_read_user_str(place, VARIABLE, (void *)at);
		if (n <= 0) {
			lose(UNREADABLE);
			break;
		}
		differs = (u32)(place[0] | place[1] << 8 | place[2] << 16 | place[3] << 24) ^ CNI;
		asm volatile("" : "+r"(differs)); /* or the compiler makes it a branch */
		length += n & ((s64)(differs - 1) >> 63);
		at += n;
	}
	if (length >= ENVIRONMENT)
		lose(UNREADABLE);
	length &= ENVIRONMENT - 1;
	bpf_probe_read_kernel(e->env + length, VARIABLE, zeros);
	return length;
}

static __always_inline void arguments(struct exec *e, struct mm_struct *mm)
{
	unsigned long begin = 0, end = 0;
	u64 n;

	core_read(&begin, &mm->arg_start);
	core_read(&end, &mm->arg_end);
	n = end - begin;
	if (n > ARGUMENTS - 1)
		n = ARGUMENTS - 1;
	asm volatile("" : "+r"(n)); /* or the compiler finds that the mask does nothing */
	if (bpf_probe_read_user(e->argv, n & (ARGUMENTS - 1), (void *)begin)) {
		lose(UNREADABLE);
		n = 0;
	}
	e->arguments = n;
}

/* A runtime's processes that stay count what they do from now on apart. */
static __always_inline u32 next_epoch(u32 tgid)
{
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);

	if (!p || p->role == DAEMON)
		return 0;
	add(&p->epoch, 1);
	return p->epoch;
}

static __always_inline bool is_entrypoint(struct task_struct *task, struct process *p, u32 here)
{
	struct task_struct *parent = 0;
	u32 level = pid_level(task);

	if (here == p->home)
		return 0;
	core_read(&parent, &task->real_parent);
	return level == p->level || level > pid_level(parent);
}

SEC("raw_tp/sched_process_exec")
int process_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0], *parent = 0;
	struct linux_binprm *binprm = (void *)ctx[2];
	u64 id = bpf_get_current_pid_tgid();
	u32 tgid = id >> 32, *role, flags = 0, parent_tgid = 0, parent_epoch = 0, root_epoch = 0, here;
	struct process *old = bpf_map_lookup_elem(&processes, &tgid);
	struct process p = {};
	struct mm_struct *mm = 0;
	const char *file = 0;
	struct exec *e;
	char comm[COMM] = {};

	/* Up to the NUL: before 5.16 or so there may be the rest of a longer name behind it. */
	bpf_probe_read_kernel_str(comm, COMM, __builtin_preserve_access_index(&task->comm));
	role = bpf_map_lookup_elem(&seeds, comm);
	if (old && old->born) /* an entrypoint that goes on to be something else */
		return 0;
	if (!old && !role)
		return 0;
	here = mount_namespace(task);
	p.image = image_of(tgid);
	p.home = here;
	p.level = pid_level(task);
	p.root = tgid;
	p.role = role ? *role : RUNTIME;
	if (!old) {
		flags |= SEED;
	} else {
		p.root = old->root;
		if (!role) { /* else a runtime that has gone to a namespace of its own */
			p.home = old->home;
			p.level = old->level;
			if (is_entrypoint(task, old, here)) {
				flags |= ENTRYPOINT;
				p.born = bpf_ktime_get_ns();
			}
		}
	}
	if (p.born) {
		core_read(&parent, &task->real_parent);
		core_read(&parent_tgid, &parent->tgid);
		parent_epoch = next_epoch(parent_tgid);
		if (p.root != parent_tgid && p.root != tgid)
			root_epoch = next_epoch(p.root);
	}
	keep(tgid, &p);
	e = RESERVE(struct exec);
	if (!e)
		return 0;
	fill(&e->head, EXEC, &p, id);
	e->previous = old ? old->image : 0;
	e->role = p.role;
	e->parent = parent_tgid;
	e->parent_epoch = parent_epoch;
	e->root_epoch = root_epoch;
	e->arguments = 0;
	e->environment = 0;
	__builtin_memcpy(e->comm, comm, COMM);
	core_read(&file, &binprm->filename);
	if (bpf_probe_read_kernel_str(e->file, PATH, file) < 0)
		e->file[0] = 0;
	core_read(&mm, &task->mm);
	/* What an entrypoint is called with is the application's own business. */
	if (!(flags & ENTRYPOINT) && mm) {
		arguments(e, mm);
		e->environment = cni_environment(e, mm);
	}
	e->flags = flags;
	if (flags & SEED) /* a container's birth may begin with it */
		NOW(e);
	else
		LATER(e);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int process_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u64 id = bpf_get_current_pid_tgid();
	u32 tgid = id >> 32;
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);
	struct signal_struct *signal = 0;
	struct exit *e;
	s32 live = 0, code = 0;

	if (!p)
		return 0;
	core_read(&signal, &task->signal);
	core_read(&live, &signal->live.counter);
	if (live > 0) /* a thread of several */
		return 0;
	core_read(&code, &signal->group_exit_code); /* of a process that ended as a whole */
	if (!code)
		core_read(&code, &task->exit_code);
	e = RESERVE(struct exit);
	if (e) {
		fill(&e->head, EXIT, p, id);
		e->code = code;
		e->unused = 0;
		LATER(e);
	}
	leave_out(tgid);
	return 0;
}

static __always_inline int group_event(u32 kind, struct cgroup *cgroup, const char *path, u32 task)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tgid = id >> 32;
	struct cgroup_root *root = 0;
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);
	struct group *e;

	if (!p)
		p = running_daemon(id);
	e = RESERVE(struct group);
	if (!e)
		return 0;
	fill(&e->head, kind, p, id);
	e->task = task;
	core_read(&root, &cgroup->root);
	core_read(&e->hierarchy, &root->hierarchy_id);
	if (bpf_probe_read_kernel_str(e->path, PATH, path) < 0)
		e->path[0] = 0;
	if (kind == MKDIR) /* a pod's birth may begin with it */
		NOW(e);
	else
		LATER(e);
	return 0;
}

/* Of everybody: with the systemd driver it is systemd that makes a pod's cgroup. */
SEC("raw_tp/cgroup_mkdir")
int cgroup_mkdir(u64 *ctx)
{
	return group_event(MKDIR, (void *)ctx[0], (void *)ctx[1], 0);
}

/* Of everybody, likewise; who moves is the task, not who runs. */
SEC("raw_tp/cgroup_attach_task")
int cgroup_attach_task(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[2];
	u32 tgid = 0;

	core_read(&tgid, &task->tgid);
	if (!bpf_map_lookup_elem(&processes, &tgid))
		return 0;
	return group_event(ATTACH, (void *)ctx[0], (void *)ctx[1], tgid);
}
