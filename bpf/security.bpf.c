//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What a container does after its birth that few should.
 *
 * Whose doing it is: the runtime works inside the container's cgroup, too: runc's child
 * is put there from outside, joins and makes namespaces, mounts, and becomes the
 * entrypoint by execve; kubectl exec is the same once more. So a process that somebody
 * outside put into a cgroup, or that was born into another than its parent's
 * (CLONE_INTO_CGROUP), is the runtime's, and so are its children, until it executes a
 * file in another mount namespace than that of who put it there. Until then nothing is
 * counted. Not until any execve: runc executes itself first, outside the container.
 *
 * Who is in a mount namespace that a container began in is not outside: else one could
 * leave this account by moving itself to a cgroup below its own. Namespaces of
 * containers that are older than the probe are not known. A service of the host, which
 * stays in the host's mount namespace, is not told of.
 *
 * Why sys_enter: what is refused is worth knowing as well, and no narrower hook sees it
 * on every kernel: tracepoints of single system calls need tracefs and leave out 32-bit
 * callers, and the functions behind have other names on each architecture and are out
 * of reach without fentry. One look into a table ends it for all other calls. Why also
 * a kprobe: see syscalls.bpf.c.
 *
 * Why the other tracepoints: what clone made, what execve gave and where a process came
 * from is true there whatever the memory of the caller holds.
 *
 * Uncertain: arguments in memory are read before the kernel reads them, and not at all
 * while their page is not there; a file is known by the name that it is opened by. */
#include "headers/group.h"
#include "headers/syscall.h"
#include "headers/task.h"

/* Go: SecurityEvent */
enum {
	SETNS, UNSHARE, CLONE, MOUNT, PTRACE, MODULE_LOAD, BPF, EXEC_OUTSIDE_IMAGE, PRIVILEGE_GAIN,
	RELEASE_AGENT, CORE_PATTERN, EVENTS,
};

/* Go: watchedCalls. What a system call is looked at for. */
enum {
	NOTHING, ON_SETNS, ON_UNSHARE, ON_MOUNT, ON_FSMOUNT, ON_OPEN_TREE, ON_PTRACE, ON_INIT_MODULE,
	ON_FINIT_MODULE, ON_BPF, ON_EXECVE, ON_OPEN, ON_OPENAT, ON_OPENAT2, ON_CREAT, ON_SETUID, ON_SETRESUID,
};

#define NUMBERS 1024
#define X32 0x40000000 /* of x86-64 with short pointers */

/* In the low byte what to look at a system call for, in the high one the same by the
 * numbers of 32-bit callers. */
const volatile u16 watched[NUMBERS] = {};

#define CLONE_THREAD 0x00010000
#define NAMESPACES 0x7e020080 /* CLONE_NEW… */
#define OPEN_TREE_CLONE 1
#define O_ACCMODE 3
#define CAP_SETUID 7
#define NSFS_MAGIC 0x6e736673
#define OVERLAYFS_MAGIC 0x794c7630

struct counts {
	u64 n[EVENTS];
	u64 on_overlay; /* executions of which it is known whether the image has the file */
};

const struct counts no_counts = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct counts);
} securities SEC(".maps");

#define COMM 16
#define ANCESTORS 5
#define NAME 32
#define NAMES 6
#define TEXT 128

/* The last event of a kind in a cgroup. */
struct evidence {
	u64 at;     /* CLOCK_MONOTONIC, ns */
	u64 flags;  /* namespaces, capabilities, mount flags */
	u32 pid;    /* of the host's */
	u32 uid;
	u32 number; /* a request, a command, the target's pid as the caller sees it */
	u32 unused;
	char comm[COMM];
	char ancestors[ANCESTORS][COMM]; /* parent first */
	char binary[NAMES][NAME];        /* the executable's path from its end, below its mount */
	char text[TEXT];
	char from[NAME];
};

/* By cgroup and event: (id << 4) | event. An inode number of kernfs leaves room. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct evidence);
} evidences SEC(".maps");

union name {
	char text[16];
	u64 words[2];
};

const union name release_agent = {"release_agent"};
const union name core_pattern = {"core_pattern"};

struct scratch {
	struct evidence evidence;
	char path[4096];
	union name tail;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* A process of the runtime's, by tgid. */
struct runtime {
	u64 start; /* tells it from a later one of that number */
	u32 mnt;   /* the mount namespace of who put it there */
	u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct runtime);
} runtimes SEC(".maps");

/* Mount namespaces that a container began in. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u32);
} homes SEC(".maps");

/* Who a thread was as it entered execve, by its number. */
struct who {
	u64 caps;
	u64 user_ns;
	u32 uid;
	u32 euid;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, struct who);
} execs SEC(".maps");

static __always_inline u64 start_of(struct task_struct *task)
{
	struct task_struct *leader = 0;
	u64 start = 0;

	core_read(&leader, &task->group_leader);
	core_read(&start, &leader->start_time);
	return start;
}

static __always_inline u64 tgid_of(struct task_struct *task)
{
	u32 tgid = 0;

	core_read(&tgid, &task->tgid);
	return tgid;
}

static __always_inline struct runtime *runtime_of(struct task_struct *task)
{
	u64 tgid = tgid_of(task);
	struct runtime *r = bpf_map_lookup_elem(&runtimes, &tgid);

	return r && r->start == start_of(task) ? r : 0;
}

static __always_inline void mark(struct task_struct *task, u32 mnt)
{
	struct runtime r = {.start = start_of(task), .mnt = mnt};
	u64 tgid = tgid_of(task);

	if (bpf_map_update_elem(&runtimes, &tgid, &r, 0))
		count_lost();
}

/* Somebody put a process into a cgroup. */
static __always_inline void put(struct task_struct *task)
{
	struct task_struct *mover = (void *)bpf_get_current_task();
	struct runtime *r = runtime_of(mover);
	u32 mnt = mount_namespace(mover);

	if (r)
		mark(task, r->mnt);
	else if (!bpf_map_lookup_elem(&homes, &mnt))
		mark(task, mnt);
}

static __always_inline void who_is(struct task_struct *task, struct who *w)
{
	struct cred *cred = 0;

	core_read(&cred, &task->cred);
	core_read(&w->caps, &cred->cap_permitted);
	core_read(&w->user_ns, &cred->user_ns);
	core_read(&w->uid, &cred->uid.val);
	core_read(&w->euid, &cred->euid.val);
}

static __always_inline struct scratch *scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

static __always_inline void name_binary(struct evidence *e, struct task_struct *task)
{
	struct mm_struct *mm = 0;
	struct file *file = 0;
	struct dentry *dentry = 0, *parent;
	const unsigned char *name;

	core_read(&mm, &task->mm);
	core_read(&file, &mm->exe_file);
	core_read(&dentry, &file->f_path.dentry);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < NAMES; i++) {
		e->binary[i][0] = 0;
		if (!dentry)
			continue;
		name = 0;
		parent = 0;
		core_read(&name, &dentry->d_name.name);
		core_read(&parent, &dentry->d_parent);
		bpf_probe_read_kernel_str(e->binary[i], NAME, name);
		dentry = parent == dentry ? 0 : parent;
	}
}

static __always_inline void name_ancestors(struct evidence *e, struct task_struct *task)
{
	u32 pid = 0;

#pragma clang loop unroll(full)
	for (u32 i = 0; i < ANCESTORS; i++) {
		e->ancestors[i][0] = 0;
		if (!task)
			continue;
		core_read(&task, &task->real_parent);
		core_read(&pid, &task->tgid);
		if (!pid) { /* above init */
			task = 0;
			continue;
		}
		bpf_probe_read_kernel_str(e->ancestors[i], COMM, &task->comm);
	}
}

/* Counts an event of the current thread. What it did is in the scratch already. A
 * function of its own: a dozen places call it. */
static __noinline int happened(u64 id, u32 event, struct scratch *s)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct counts *c = entry(&securities, id, &no_counts);
	struct evidence *e = &s->evidence;
	struct cred *cred = 0;
	u64 key = id << 4 | event;

	if (!c || event >= EVENTS)
		return 0;
	add(&c->n[event], 1);
	e->at = bpf_ktime_get_ns();
	e->pid = bpf_get_current_pid_tgid() >> 32;
	core_read(&cred, &task->cred);
	core_read(&e->uid, &cred->uid.val);
	bpf_get_current_comm(e->comm, COMM);
	name_ancestors(e, task);
	name_binary(e, task);
	if (bpf_map_update_elem(&evidences, &key, e, 0))
		count_lost();
	return 0;
}

/* Clears what an event need not have. */
static __always_inline struct scratch *begin(u64 flags, u32 number)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	s->evidence.flags = flags;
	s->evidence.number = number;
	s->evidence.text[0] = 0;
	s->evidence.from[0] = 0;
	return s;
}

static __always_inline struct file *file_of(struct task_struct *task, u32 fd)
{
	struct files_struct *files = 0;
	struct fdtable *table = 0;
	struct file **all = 0, *file = 0;
	u32 max = 0;

	core_read(&files, &task->files);
	core_read(&table, &files->fdt);
	core_read(&max, &table->max_fds);
	if (fd >= max)
		return 0;
	core_read(&all, &table->fd);
	bpf_probe_read_kernel(&file, sizeof(file), all + fd);
	return file;
}

/* The kind of the namespace that a file of /proc/PID/ns stands for. */
static __always_inline u64 kind_of(struct file *file)
{
	struct inode *inode = 0;
	struct super_block *sb = 0;
	struct ns_common *ns = 0;
	const struct proc_ns_operations *ops = 0;
	unsigned long magic = 0;
	u32 type = 0;

	core_read(&inode, &file->f_inode);
	core_read(&sb, &inode->i_sb);
	core_read(&magic, &sb->s_magic);
	if (magic != NSFS_MAGIC)
		return 0;
	core_read(&ns, &inode->i_private);
	if (core_field_exists(ns->ns_type)) {
		core_read(&type, &ns->ns_type);
	} else if (core_field_exists(ops->type)) {
		core_read(&ops, &ns->ops);
		core_read(&type, &ops->type);
	}
	return type;
}

/* Whether the path of that length, its end included, is of such a name. */
static __always_inline bool named(struct scratch *s, s64 length, const union name *name, u32 size)
{
	char before = '/';

	if (length < size)
		return 0;
	if (length > size)
		bpf_probe_read_kernel(&before, 1, s->path + length - size - 1);
	s->tail.words[0] = 0;
	s->tail.words[1] = 0;
	bpf_probe_read_kernel(&s->tail, size, s->path + length - size);
	return before == '/' && s->tail.words[0] == name->words[0] && s->tail.words[1] == name->words[1];
}

/* A file is opened for writing. */
static __always_inline void writes(u64 id, u64 path)
{
	struct scratch *s = begin(0, 0);
	s64 length;
	u32 event;

	if (!s)
		return;
	length = bpf_probe_read_user_str(s->path, sizeof(s->path), (void *)path);
	if (length <= 0)
		return;
	if (named(s, length, &release_agent, 14))
		event = RELEASE_AGENT;
	else if (named(s, length, &core_pattern, 13))
		event = CORE_PATTERN;
	else
		return;
	bpf_probe_read_kernel_str(s->evidence.text, TEXT, s->path);
	happened(id, event, s);
}

/* Asks to be root, having been nothing of the kind, and may. */
static __always_inline void becomes(struct task_struct *task, u64 id)
{
	struct cred *cred = 0;
	struct scratch *s;
	u64 effective = 0;
	u32 uid = 0, euid = 0, suid = 0;

	core_read(&cred, &task->cred);
	core_read(&uid, &cred->uid.val);
	core_read(&euid, &cred->euid.val);
	core_read(&suid, &cred->suid.val);
	core_read(&effective, &cred->cap_effective);
	if (!uid || !euid || !suid || !(effective & 1ULL << CAP_SETUID))
		return;
	s = begin(0, uid);
	if (s)
		happened(id, PRIVILEGE_GAIN, s);
}

struct arguments {
	u64 a[4];
};

static __always_inline void arguments_of(struct arguments *args, struct pt_regs *regs, bool compat)
{
#if defined(__TARGET_ARCH_x86)
	unsigned long a = 0, b = 0, c = 0, d = 0;

	if (compat) {
		core_read(&a, &regs->bx);
		core_read(&b, &regs->cx);
		core_read(&c, &regs->dx);
		core_read(&d, &regs->si);
	} else {
		core_read(&a, &regs->di);
		core_read(&b, &regs->si);
		core_read(&c, &regs->dx);
		core_read(&d, &regs->r10);
	}
	args->a[0] = a;
	args->a[1] = b;
	args->a[2] = c;
	args->a[3] = d;
#else
	core_read(&args->a[0], &regs->regs[0]);
	core_read(&args->a[1], &regs->regs[1]);
	core_read(&args->a[2], &regs->regs[2]);
	core_read(&args->a[3], &regs->regs[3]);
#endif
}

static __always_inline int looked_at(struct task_struct *task, u64 id, u32 call, struct arguments *args)
{
	struct scratch *s;
	u64 how = 0;

	switch (call) {
	case ON_SETNS:
		s = begin(args->a[1] & NAMESPACES, 0);
		if (!s)
			return 0;
		if (!(u32)args->a[1])
			s->evidence.flags = kind_of(file_of(task, args->a[0]));
		happened(id, SETNS, s);
		return 0;
	case ON_UNSHARE:
		if (!(args->a[0] & NAMESPACES)) /* files and the like, from its own threads */
			return 0;
		s = begin(args->a[0] & NAMESPACES, 0);
		if (s)
			happened(id, UNSHARE, s);
		return 0;
	case ON_MOUNT:
		s = begin(args->a[3], 0);
		if (!s)
			return 0;
		bpf_probe_read_user_str(s->evidence.text, TEXT, (void *)args->a[1]);
		bpf_probe_read_user_str(s->evidence.from, NAME, (void *)args->a[0]);
		happened(id, MOUNT, s);
		return 0;
	case ON_OPEN_TREE:
		if (!(args->a[2] & OPEN_TREE_CLONE))
			return 0;
		s = begin(0, 0);
		if (!s)
			return 0;
		bpf_probe_read_user_str(s->evidence.from, NAME, (void *)args->a[1]);
		happened(id, MOUNT, s);
		return 0;
	case ON_FSMOUNT:
		s = begin(0, 0);
		if (s)
			happened(id, MOUNT, s);
		return 0;
	case ON_PTRACE: /* the beginnings: TRACEME, ATTACH, SEIZE */
		if (args->a[0] != 0 && args->a[0] != 16 && args->a[0] != 0x4206)
			return 0;
		s = begin(args->a[0], args->a[0] ? args->a[1] : 0);
		if (s)
			happened(id, PTRACE, s);
		return 0;
	case ON_INIT_MODULE:
		s = begin(0, 0);
		if (s)
			happened(id, MODULE_LOAD, s);
		return 0;
	case ON_FINIT_MODULE: {
		struct file *file = file_of(task, args->a[0]);
		struct dentry *dentry = 0;
		const unsigned char *name = 0;

		s = begin(0, 0);
		if (!s)
			return 0;
		core_read(&dentry, &file->f_path.dentry);
		core_read(&name, &dentry->d_name.name);
		if (name)
			bpf_probe_read_kernel_str(s->evidence.text, TEXT, name);
		happened(id, MODULE_LOAD, s);
		return 0;
	}
	case ON_BPF:
		s = begin(0, args->a[0]);
		if (s)
			happened(id, BPF, s);
		return 0;
	case ON_EXECVE: {
		struct who w = {};
		u32 tid = bpf_get_current_pid_tgid();

		who_is(task, &w);
		if (bpf_map_update_elem(&execs, &tid, &w, 0))
			count_lost();
		return 0;
	}
	case ON_OPEN:
		if (args->a[1] & O_ACCMODE)
			writes(id, args->a[0]);
		return 0;
	case ON_OPENAT2:
		if (!bpf_probe_read_user(&how, sizeof(how), (void *)args->a[2]) && how & O_ACCMODE)
			writes(id, args->a[1]);
		return 0;
	case ON_OPENAT:
		if (args->a[2] & O_ACCMODE)
			writes(id, args->a[1]);
		return 0;
	case ON_CREAT:
		writes(id, args->a[0]);
		return 0;
	case ON_SETUID:
		if (!(u32)args->a[0])
			becomes(task, id);
		return 0;
	case ON_SETRESUID: /* and setreuid, whose third is no argument */
		if (!(u32)args->a[0] || !(u32)args->a[1])
			becomes(task, id);
		return 0;
	}
	return 0;
}

static __always_inline int enters(struct pt_regs *regs, u64 number)
{
	typeof(COMPAT(((struct task_struct *)0)->thread_info)) compat = 0;
	struct task_struct *task;
	struct arguments args = {};
	u64 n = number & ~(u64)X32, id;
	u32 call;

	if (n >= NUMBERS)
		return 0;
	call = watched[n];
	if (!call)
		return 0;
	task = (void *)bpf_get_current_task();
	id = task_group_id(task);
	if (id <= ROOT)
		return 0;
	core_read(&compat, &COMPAT(task->thread_info));
	call = compat & IS_COMPAT ? call >> 8 : call & 0xff;
	if (!call || runtime_of(task))
		return 0;
	arguments_of(&args, regs, compat & IS_COMPAT);
	return looked_at(task, id, call, &args);
}

/* A process or thread was made, by the current one. */
static __always_inline int born(struct task_struct *child, u64 flags)
{
	struct task_struct *parent = (void *)bpf_get_current_task();
	struct runtime *r = runtime_of(parent);
	struct scratch *s;
	u64 id = task_group_id(parent);

	if (!(flags & CLONE_THREAD)) {
		if (r)
			mark(child, r->mnt);
		else if (task_group_id(child) != id)
			put(child);
	}
	if (!(flags & NAMESPACES) || r || id <= ROOT)
		return 0;
	s = begin(flags & NAMESPACES, 0);
	if (s)
		happened(id, CLONE, s);
	return 0;
}

/* Whether the image has the file: overlayfs keeps beside its inode (fs/overlayfs/
 * ovl_entry.h, struct ovl_inode, which has its place in that since 4.13) the one of the
 * upper layer, where there is one. What has no name any more, or never had (memfd), is
 * in no image either. */
static __always_inline bool outside_image(struct file *file, u64 id)
{
	struct inode *inode = 0;
	struct super_block *sb = 0;
	struct dentry *upper = 0;
	struct counts *c;
	unsigned long magic = 0;
	u32 links = 1;

	core_read(&inode, &file->f_inode);
	if (!inode)
		return 0;
	core_read(&links, &inode->i_nlink);
	core_read(&sb, &inode->i_sb);
	core_read(&magic, &sb->s_magic);
	if (magic == OVERLAYFS_MAGIC) {
		c = entry(&securities, id, &no_counts);
		if (c)
			add(&c->on_overlay, 1);
		bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + core_type_size(struct inode));
	}
	return upper || !links;
}

static __always_inline int executes(struct task_struct *task, u32 old, struct linux_binprm *bprm)
{
	struct runtime *r = runtime_of(task);
	struct who *was, is = {}, before;
	struct scratch *s;
	struct file *file = 0;
	const char *filename = 0;
	u64 id = task_group_id(task), tgid, gained;
	u32 mnt, one = 1;
	bool known = 0;

	was = bpf_map_lookup_elem(&execs, &old);
	if (was) {
		before = *was;
		known = 1;
		bpf_map_delete_elem(&execs, &old);
	}
	if (r) {
		mnt = mount_namespace(task);
		if (mnt == r->mnt)
			return 0;
		tgid = tgid_of(task);
		bpf_map_delete_elem(&runtimes, &tgid);
		bpf_map_update_elem(&homes, &mnt, &one, 0);
		known = 0; /* it becomes what the runtime made it */
	}
	if (id <= ROOT)
		return 0;
	core_read(&file, &bprm->file);
	core_read(&filename, &bprm->filename);
	if (outside_image(file, id)) {
		s = begin(0, 0);
		if (s) {
			bpf_probe_read_kernel_str(s->evidence.text, TEXT, filename);
			happened(id, EXEC_OUTSIDE_IMAGE, s);
		}
	}
	if (!known)
		return 0;
	who_is(task, &is);
	if (is.user_ns != before.user_ns)
		return 0;
	gained = is.caps & ~before.caps;
	if (!gained && (is.euid || !before.euid))
		return 0;
	s = begin(gained, before.euid);
	if (s) {
		bpf_probe_read_kernel_str(s->evidence.text, TEXT, filename);
		happened(id, PRIVILEGE_GAIN, s);
	}
	return 0;
}

static __always_inline int forgotten(struct task_struct *task)
{
	u64 tgid = tgid_of(task), start = 0;
	struct runtime *r;
	u32 pid = 0;

	core_read(&pid, &task->pid);
	bpf_map_delete_elem(&execs, &pid);
	if (pid != tgid)
		return 0;
	core_read(&start, &task->start_time);
	r = bpf_map_lookup_elem(&runtimes, &tgid);
	if (r && r->start == start) /* else the number has another already */
		bpf_map_delete_elem(&runtimes, &tgid);
	return 0;
}

static __always_inline int attached(struct task_struct *task)
{
	put(task);
	return 0;
}

/* Every hook twice, the second time for a kernel that refuses tracing programs. */
#define HOOK(name, hook, body) \
	SEC("tp_btf/" hook) int name(u64 *ctx) { return body; } \
	SEC("raw_tp/" hook) int name##_raw(u64 *ctx) { return body; }

HOOK(cgroup_attach_task, "cgroup_attach_task", attached((void *)ctx[2]))
HOOK(task_newtask, "task_newtask", born((void *)ctx[0], ctx[1]))
HOOK(sched_process_exec, "sched_process_exec", executes((void *)ctx[0], ctx[1], (void *)ctx[2]))
HOOK(sched_process_free, "sched_process_free", forgotten((void *)ctx[0]))
HOOK(sys_enter, "sys_enter", enters((void *)ctx[0], ctx[1]))

SEC("kprobe/trace_syscall_enter")
int sys_enter_kprobe(u64 *ctx)
{
	struct pt_regs *entered = (void *)ctx[FIRST_ARGUMENT];
	typeof(NUMBER(entered)) number = -1;

	core_read(&number, &NUMBER(entered));
	return enters(entered, (u32)number);
}

/* Keeps the tracepoint on for the kprobe. */
SEC("tp_btf/sys_enter")
int sys_enter_empty(u64 *ctx)
{
	return 0;
}
