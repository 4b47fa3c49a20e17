//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The system calls of those who bring a container to life: every one counted as it is
 * entered, and those that make a container out of a process told one by one as they return.
 *
 * Why apart from birth.bpf.c: these hooks are in the way of every system call of the
 * machine, and are attached only while a birth is in flight.
 *
 * Why sys_enter for the counts: it sees what never returns, and is what strace and perf
 * count. Why sys_exit for the rest: what failed made nothing, and the arguments are there
 * still. Why also kprobes: see syscalls.bpf.c. */
#include "headers/birth.h"

#define NUMBERS 512
#define COMPAT_CALLS (NUMBERS - 1) /* calls of a 32-bit program, whose numbers mean others */
#define TEXT 128
#define MESSAGE 1024

/* How a call is told, by number of this architecture. Go: birthCalls */
enum how {
	UNTOLD,
	PLAIN,       /* its arguments are enough */
	ONE_TEXT,    /* the first argument is a string */
	TWO_TEXTS,   /* the first two */
	THREE_TEXTS, /* the first three */
	SECOND_TEXT, /* the second argument is a string */
	MOVE,        /* move_mount: the second and fourth */
	CONFIGURE,   /* fsconfig: the third and fourth */
	NEW_PROCESS, /* clone: told when its flags make namespaces */
	UNSHARE,
	CLONE3,      /* likewise, the flags are in memory */
	JOIN,        /* setns */
	WRITE,       /* told when it is to a file of a cgroup */
	SEND,        /* told when it is to a netlink socket */
	SEND_MESSAGE,
	FILTER,      /* prctl: told when it is about seccomp, capabilities or new privileges */
	REPLACE,     /* setsockopt: told when it replaces a table of iptables */
	EXECUTE,     /* told of an entrypoint: it has returned to user space; and when it fails */
	EXECUTE_AT,
};

const volatile u8 how[NUMBERS] = {};

struct counter {
	u64 image;
	u32 number;
	u32 epoch;
};

struct count {
	u64 n;
	u64 first; /* CLOCK_MONOTONIC */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct counter);
	__type(value, struct count);
} counts SEC(".maps");

struct call {
	struct head head;
	u64 args[5];
	s64 result;
	u32 number;
	u32 detail; /* clone3: its flags; setns: the kind of namespace */
	char text[3][TEXT];
};

struct netlink {
	struct head head;
	s64 result;
	u32 protocol;
	u32 length;  /* of the message, of which less than MESSAGE bytes are here */
	u32 rules;   /* of nftables, that it adds */
	u32 unread;  /* not all of it was looked at */
	u8 message[MESSAGE];
};

/* Keep the types in the object, for the Go side. */
const struct call *unused_call __attribute__((unused));
const struct netlink *unused_netlink __attribute__((unused));

#if defined(__TARGET_ARCH_x86)
#define COMPAT(thread_info) ((thread_info).status)
#define IS_COMPAT 0x2 /* TS_COMPAT */
#define NUMBER(regs) ((regs)->orig_ax)
#define READ_ARGUMENTS(to, regs) ({ \
	core_read(&(to)[0], &(regs)->di); \
	core_read(&(to)[1], &(regs)->si); \
	core_read(&(to)[2], &(regs)->dx); \
	core_read(&(to)[3], &(regs)->r10); \
	core_read(&(to)[4], &(regs)->r8); \
})
#define FIRST_ARGUMENT 14 /* of a probed function, in words of struct pt_regs: rdi, rsi */
#define SECOND_ARGUMENT 13
#elif defined(__TARGET_ARCH_arm64)
#define COMPAT(thread_info) ((thread_info).flags)
#define IS_COMPAT (1UL << 22) /* TIF_32BIT */
#define NUMBER(regs) ((regs)->syscallno)
#define READ_ARGUMENTS(to, regs) ({ \
	core_read(&(to)[0], &(regs)->orig_x0); \
	core_read(&(to)[1], &(regs)->regs[1]); \
	core_read(&(to)[2], &(regs)->regs[2]); \
	core_read(&(to)[3], &(regs)->regs[3]); \
	core_read(&(to)[4], &(regs)->regs[4]); \
})
#define FIRST_ARGUMENT 0 /* x0, x1 */
#define SECOND_ARGUMENT 1
#else
#error "say how this architecture passes arguments and marks a 32-bit call"
#endif

#define NEW_NAMESPACES 0x7e020080ULL /* CLONE_NEWTIME, NEWNS, NEWCGROUP, … NEWNET: linux/sched.h */
#define CGROUP_MAGIC 0x27e0eb
#define CGROUP2_MAGIC 0x63677270
#define NSFS_MAGIC 0x6e736673
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define AF_NETLINK 16
#define NETLINK_NETFILTER 12
#define NETLINK_HEADER 16     /* bytes */
#define NETLINK_MESSAGES 1024 /* of one call that are looked at */
#define NEW_RULE 0xa06        /* NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE */

static __always_inline bool is_compat(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	typeof(COMPAT(task->thread_info)) compat = 0;

	core_read(&compat, &COMPAT(task->thread_info));
	return compat & IS_COMPAT;
}

static __always_inline int enter(u64 number)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p;
	struct counter key = {};
	struct count *c, one = {.n = 1};

	if (!marked(tgid))
		return 0;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || p->born)
		return 0;
	key.image = p->image;
	key.epoch = p->epoch;
	key.number = number >= COMPAT_CALLS || is_compat() ? COMPAT_CALLS : number;
	c = bpf_map_lookup_elem(&counts, &key);
	if (!c) {
		one.first = bpf_ktime_get_ns();
		if (!bpf_map_update_elem(&counts, &key, &one, BPF_NOEXIST))
			return 0;
		c = bpf_map_lookup_elem(&counts, &key); /* another thread was first */
		if (!c) {
			lose(COUNTS_FULL);
			return 0;
		}
	}
	add(&c->n, 1);
	return 0;
}

SEC("raw_tp/sys_enter")
int sys_enter(u64 *ctx)
{
	return enter(ctx[1]);
}

SEC("kprobe/trace_syscall_enter")
int sys_enter_kprobe(u64 *ctx)
{
	struct pt_regs *entered = (void *)ctx[FIRST_ARGUMENT];
	typeof(NUMBER(entered)) number = -1;

	core_read(&number, &NUMBER(entered));
	return enter(number);
}

/* A file that the current task has open. */
static __always_inline struct file *file_of(u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
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

static __always_inline unsigned long magic_of(struct file *file)
{
	struct inode *inode = 0;
	struct super_block *super = 0;
	unsigned long magic = 0;

	core_read(&inode, &file->f_inode);
	core_read(&super, &inode->i_sb);
	core_read(&magic, &super->s_magic);
	return magic;
}

static __always_inline u32 kind_of_namespace(u32 fd)
{
	struct file *file = file_of(fd);
	struct inode *inode = 0;
	struct ns_common *ns = 0;
	const struct proc_ns_operations *ops = 0;
	u32 type = 0;

	if (!file || magic_of(file) != NSFS_MAGIC)
		return 0;
	core_read(&inode, &file->f_inode);
	core_read(&ns, &inode->i_private);
	if (core_field_exists(ns->ns_type)) {
		core_read(&type, &ns->ns_type);
	} else { /* before 6.18 */
		core_read(&ops, &ns->ops);
		core_read(&type, &ops->type);
	}
	return type;
}

/* The names of a file, its directory and that one's: cpu.max, <container>, pod<UID>. */
static __always_inline void names(struct call *e, struct file *file)
{
	struct dentry *dentry = 0;
	const unsigned char *name = 0;

	core_read(&dentry, &file->f_path.dentry);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < 3; i++) {
		name = 0;
		core_read(&name, &dentry->d_name.name);
		bpf_probe_read_kernel_str(e->text[i], TEXT, name);
		core_read(&dentry, &dentry->d_parent);
	}
}

static __always_inline void text(struct call *e, u32 i, u64 from)
{
	if (from && bpf_probe_read_user_str(e->text[i], TEXT, (void *)from) < 0)
		lose(UNREADABLE);
}

/* One part of a message, and where the vector has the next ones. */
struct part {
	u64 at, length;
	u64 next, left;
};

/* Counts the rules that a batch of nftables' adds. It is in pages of its own, far more
 * than an event has room for, and what is between the headers is of no interest. */
static __always_inline void count_rules(struct netlink *e, struct part part)
{
	u64 at = part.at, end = part.at + part.length, vector[2];
	struct {
		u32 length;
		u16 type;
		u16 flags;
	} header;
	u32 rules = 0;

	e->unread = 1;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NETLINK_MESSAGES; i++) {
		if (at + NETLINK_HEADER > end) {
			if (!part.left) {
				e->unread = 0;
				break;
			}
			if (bpf_probe_read_user(&vector, sizeof(vector), (void *)part.next))
				break;
			part.next += sizeof(vector);
			part.left--;
			at = vector[0];
			end = at + vector[1];
			continue;
		}
		if (bpf_probe_read_user(&header, sizeof(header), (void *)at) || header.length < NETLINK_HEADER)
			break;
		if (header.type == NEW_RULE)
			rules++;
		at += (header.length + 3ULL) & ~3ULL;
	}
	e->rules = rules;
}

static __always_inline int tell_netlink(struct process *p, u64 id, struct sock *sk, struct part part, s64 result)
{
	u64 from = part.at, length = part.length;
	struct netlink *e = RESERVE(struct netlink);
	u64 n = length < MESSAGE ? length : MESSAGE - 1;
	u16 protocol = 0;

	if (!e)
		return 0;
	fill(&e->head, NETLINK, p, id);
	core_read(&protocol, &sk->sk_protocol);
	e->protocol = protocol;
	e->result = result;
	e->length = length;
	e->rules = 0;
	e->unread = length >= MESSAGE || part.left;
	asm volatile("" : "+r"(n)); /* or the compiler finds that the mask does nothing */
	if (bpf_probe_read_user(e->message, n & (MESSAGE - 1), (void *)from)) {
		lose(UNREADABLE);
		e->length = 0;
	} else if (protocol == NETLINK_NETFILTER) {
		count_rules(e, part);
	}
	LATER(e);
	return 0;
}

static __always_inline int leave(struct pt_regs *regs, s64 result)
{
	u64 id = bpf_get_current_pid_tgid(), args[5] = {}, vector[2], parts[2];
	u32 tgid = id >> 32, way, kind = 0;
	typeof(NUMBER(regs)) number = -1;
	struct process *p;
	struct file *file = 0;
	struct inode *inode = 0;
	struct socket *socket = 0;
	struct sock *sk = 0;
	struct call *e;
	u16 mode = 0, family = 0;

	if (!marked(tgid))
		return 0;
	core_read(&number, &NUMBER(regs));
	if (number >= NUMBERS || number < 0)
		return 0;
	way = how[number & (NUMBERS - 1)];
	if (!way)
		return 0;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || is_compat())
		return 0;
	if ((way == EXECUTE || way == EXECUTE_AT) && p->born) {
		struct head *returned;

		if (result)
			return 0;
		returned = RESERVE(struct head);
		if (returned) {
			fill(returned, RETURNED, p, id);
			LATER(returned);
		}
		leave_out(tgid);
		return 0;
	}
	if (p->born)
		return 0;
	READ_ARGUMENTS(args, regs);
	switch (way) {
	case EXECUTE:
	case EXECUTE_AT:
		if (result >= 0)
			return 0;
		break;
	case NEW_PROCESS:
		if (!result) /* the child, which returns from it as well */
			return 0;
		/* fallthrough */
	case UNSHARE:
		if (!(args[0] & NEW_NAMESPACES))
			return 0;
		kind = args[0];
		break;
	case CLONE3:
		if (!result || bpf_probe_read_user(&vector, sizeof(u64), (void *)args[0]) || !(vector[0] & NEW_NAMESPACES))
			return 0;
		kind = vector[0];
		break;
	case JOIN:
		kind = args[1] ? args[1] : kind_of_namespace(args[0]);
		break;
	case WRITE:
		if (result < 0)
			return 0;
		file = file_of(args[0]);
		if (!file)
			return 0;
		if (magic_of(file) != CGROUP_MAGIC && magic_of(file) != CGROUP2_MAGIC)
			return 0;
		break;
	case SEND:
	case SEND_MESSAGE:
		file = file_of(args[0]);
		if (!file)
			return 0;
		core_read(&inode, &file->f_inode);
		core_read(&mode, &inode->i_mode);
		if ((mode & S_IFMT) != S_IFSOCK)
			return 0;
		core_read(&socket, &file->private_data);
		core_read(&sk, &socket->sk);
		core_read(&family, &sk->__sk_common.skc_family);
		if (family != AF_NETLINK)
			return 0;
		if (way == SEND)
			return tell_netlink(p, id, sk, (struct part){.at = args[1], .length = args[2]}, result);
		/* struct user_msghdr: the third word is the vector, the fourth its length */
		if (bpf_probe_read_user(&parts, sizeof(parts), (void *)args[1] + 16) ||
		    bpf_probe_read_user(&vector, sizeof(vector), (void *)parts[0])) {
			lose(UNREADABLE);
			return 0;
		}
		return tell_netlink(p, id, sk, (struct part){
			.at = vector[0], .length = vector[1], .next = parts[0] + sizeof(vector), .left = parts[1] ? parts[1] - 1 : 0,
		}, result);
	case FILTER:
		/* PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT */
		if (args[0] != 22 && args[0] != 24 && args[0] != 38 && args[0] != 47)
			return 0;
		break;
	case REPLACE:
		/* SOL_IP or SOL_IPV6, IPT_SO_SET_REPLACE */
		if ((args[1] != 0 && args[1] != 41) || args[2] != 64)
			return 0;
		break;
	}
	e = RESERVE(struct call);
	if (!e)
		return 0;
	fill(&e->head, CALL, p, id);
	__builtin_memcpy(e->args, args, sizeof(args));
	e->result = result;
	e->number = number;
	e->detail = kind;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < 3; i++)
		e->text[i][0] = 0;
	if (way == ONE_TEXT || way == TWO_TEXTS || way == THREE_TEXTS || way == EXECUTE)
		text(e, 0, args[0]);
	if (way == TWO_TEXTS || way == THREE_TEXTS || way == SECOND_TEXT || way == MOVE || way == EXECUTE_AT)
		text(e, 1, args[1]);
	if (way == THREE_TEXTS || way == CONFIGURE)
		text(e, 2, args[2]);
	if (way == MOVE)
		text(e, 2, args[3]);
	if (way == WRITE)
		names(e, file);
	LATER(e);
	return 0;
}

SEC("raw_tp/sys_exit")
int sys_exit(u64 *ctx)
{
	return leave((void *)ctx[0], ctx[1]);
}

SEC("kprobe/trace_syscall_exit")
int sys_exit_kprobe(u64 *ctx)
{
	return leave((void *)ctx[FIRST_ARGUMENT], ctx[SECOND_ARGUMENT]);
}

/* Keep the tracepoints on for the kprobes; and the yardstick of the benchmarks. */
SEC("raw_tp/sys_enter")
int sys_enter_empty(u64 *ctx)
{
	return 0;
}

SEC("raw_tp/sys_exit")
int sys_exit_empty(u64 *ctx)
{
	return 0;
}
