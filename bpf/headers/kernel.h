/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The kernel's structures, cut down to the fields that are read. Offsets are
 * relocated against the running kernel's BTF (CO-RE), so order and size mean
 * nothing here. A suffix ___x is dropped when the type is looked up: it names the
 * same structure as an older or newer kernel has it. */
#pragma once

#include "bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id; /* the inode number of the cgroup's directory */
};

struct cgroup_root {
	s32 hierarchy_id; /* as in /proc/PID/cgroup; 0 is version 2 */
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
	u64 serial_nr; /* of all there ever were; from 1 */
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
};

enum cgroup_subsys_id {
	memory_cgrp_id = 1, /* as the kernel was built */
};

/* include/linux/memcontrol.h, page_counter.h: in pages */
struct page_counter {
	unsigned long max;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
};

/* include/linux/oom.h */
struct oom_control {
	struct mem_cgroup *memcg; /* none: the node is out of memory */
	struct task_struct *chosen;
};

/* include/linux/mm_types.h: file, anonymous, swapped, shared */
struct percpu_counter {
	s64 count;
};

struct mm_struct {
	struct percpu_counter rss_stat[4];
	unsigned long arg_start, arg_end, env_start, env_end;
	struct file *exe_file;
};

struct mm_rss_stat {
	struct {
		s64 counter;
	} count[4];
};

struct mm_struct___old { /* before 6.2 */
	struct mm_rss_stat rss_stat;
};

struct timerqueue_node {
	s64 expires;
};

struct hrtimer {
	struct timerqueue_node node;
};

/* kernel/sched/sched.h */
struct cfs_bandwidth {
	s64 period;
	u64 quota;
	struct hrtimer period_timer;
	s32 nr_periods;
	s32 nr_throttled;
	u64 throttled_time;
};

struct task_group {
	struct cgroup_subsys_state css;
	struct cfs_rq **cfs_rq;
	struct task_group *parent;
	struct cfs_bandwidth cfs_bandwidth;
};

struct rq {
	u64 clock;
	u64 clock_task;
	u64 clock_pelt;
	s32 cpu;
};

struct cfs_rq {
	struct rq *rq;
	struct task_group *tg;
	u64 throttled_clock;
	s32 throttled;
	s32 throttle_count;
	u64 throttled_clock_self; /* from 6.6 on */
	u64 throttled_clock_self_time;
};

struct cfs_rq___pelt { /* about 6.0 to 6.5 */
	u64 throttled_clock_pelt;
	u64 throttled_clock_pelt_time;
};

struct cfs_rq___task { /* before */
	u64 throttled_clock_task;
	u64 throttled_clock_task_time;
};

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

/* include/linux/sched.h */
struct sched_info {
	unsigned long pcount;
	u64 run_delay;
	u64 last_queued;
};

struct thread_info {
	unsigned long flags;
	u32 status;
};

/* include/linux/pid.h */
struct pid {
	u32 level; /* of its PID namespace: the host's is 0 */
};

/* include/linux/sched/signal.h */
typedef struct {
	s32 counter;
} atomic_t;

struct signal_struct {
	atomic_t live; /* threads that have not ended */
	s32 group_exit_code;
};

/* include/linux/ns_common.h, proc_ns.h */
struct proc_ns_operations {
	u32 type; /* CLONE_NEW… */
};

struct ns_common {
	const struct proc_ns_operations *ops;
	u32 ns_type; /* from 6.18 on, instead of the operations' */
	u32 inum; /* the inode number of /proc/PID/ns/net */
};

/* fs/mount.h, include/linux/nsproxy.h */
struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

/* include/linux/fs.h, dcache.h, fdtable.h */
struct super_block {
	unsigned long s_magic;
};

struct inode {
	u16 i_mode;
	u32 i_nlink;
	struct super_block *i_sb;
	void *i_private;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	u32 max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

/* include/linux/binfmts.h */
struct linux_binprm {
	struct file *file;
	const char *filename;
};

struct task_struct {
	struct thread_info thread_info;
	u32 __state; /* from 5.14 on */
	struct sched_entity se;
	struct task_group *sched_task_group;
	struct sched_info sched_info;
	s32 pid;
	s32 tgid;
	char comm[16];
	struct mm_struct *mm;
	struct css_set *cgroups;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	s32 exit_code;
	struct pid *thread_pid;
	struct nsproxy *nsproxy;
	struct files_struct *files;
	struct signal_struct *signal;
	u64 start_time; /* CLOCK_MONOTONIC, ns */
	struct cred *cred;
};

struct task_struct___old {
	long state;
};

/* include/net/net_namespace.h */
struct net {
	struct ns_common ns;
	u32 hash_mix; /* random */
};

typedef struct {
	struct net *net;
} possible_net_t;

/* include/linux/cred.h, capability.h, uidgid.h: a set of capabilities is 64 bits,
 * before 6.3 in two words */
typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	u64 val;
} kernel_cap_t;

struct user_namespace;

struct cred {
	kuid_t uid;
	kuid_t suid;
	kuid_t euid;
	kernel_cap_t cap_permitted;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};

/* include/net/sock.h */
struct sock_common {
	u16 skc_family;
	u8 skc_state;
	u16 skc_num; /* the local port, in the host's order */
	possible_net_t skc_net;
	struct sock *skc_listener; /* of a request that is not accepted yet */
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* include/linux/net.h */
struct socket {
	struct sock *sk;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	atomic_t sk_drops;
	struct sock_cgroup_data sk_cgrp_data;
};

struct sock_cgroup_data___old { /* before 5.15 */
	u64 val;
};

struct sock___old {
	struct sock_cgroup_data___old sk_cgrp_data;
};

/* include/linux/netdevice.h, skbuff.h, include/net/tcp.h */
struct net_device {
	possible_net_t nd_net;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	u8 cb[48];
	u16 protocol; /* big endian */
	u32 end;
	u8 *head;
};

struct skb_shared_info {
	u16 gso_segs;
};

struct tcp_skb_cb {
	u16 tcp_gso_segs;
};

/* arch/.../include/asm/ptrace.h: what a thread entered the kernel with */
struct pt_regs {
#if defined(__TARGET_ARCH_x86)
	unsigned long orig_ax;
	unsigned long di, si, dx, r10, r8;
	unsigned long bx, cx; /* a 32-bit caller's are bx, cx, dx, si */
#else
	s32 syscallno;
	u64 orig_x0;
	u64 regs[31];
#endif
};

#pragma clang attribute pop
