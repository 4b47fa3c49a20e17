//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What happens to a container's packets: TCP segments sent again, resets, refused
 * connections, full accept queues, drops with the kernel's reason, and the traffic that
 * these are a share of.
 *
 * Whose a socket is: on cgroup v2 the kernel keeps the cgroup that made it, children of
 * a listener included (sk_cgrp_data). With the cpu controller on v1 that tells nothing,
 * and the owner is who was seen to connect, listen or close: by the socket's address,
 * or, for what a listener accepted, by its namespace and port.
 *
 * A packet without a socket belongs to the one cgroup whose sockets were seen in its
 * network namespace. Where several were, as in the host's, and for all else that can't
 * be told, the node is charged: entry ROOT.
 *
 * Why these hooks: all are tracepoints, so that a kernel without fentry has them. The
 * accept queue has none; the kernel counts what it turned away in the listener itself
 * (sk_drops, and ListenDrops in the same breath), which a program run for the known
 * listeners collects, less what is dropped there for another reason. */
#include "headers/group.h"

#define ETH_P_IP 0x0008 /* as they are in memory */
#define ETH_P_IPV6 0xdd86
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

enum { /* include/net/tcp_states.h */
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

/* Go: Network */
enum { SENT, RECEIVED, RETRANSMITTED, CONNECTIONS, OVERFLOWS, REFUSED, RESETS_RECEIVED, RESETS_SENT, EVENTS };

#define REASONS 24      /* Go: dropReasons */
#define MAX_REASON 256  /* of the kernel's core reasons; a subsystem's own are larger */
#define IGNORED 255

struct counts {
	u64 events[EVENTS];
	u64 drops[REASONS];
};

const struct counts no_counts = {};

/* Set before the load: the cpu controller is on cgroup v1. */
const volatile u32 cgroup_v1 = 0;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct counts);
} networks SEC(".maps");

/* The place in counts.drops of each of the kernel's reasons, whose numbers differ from
 * version to version: user space finds them by name. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REASON);
	__type(key, u32);
	__type(value, u32);
} reasons SEC(".maps");

struct owner {
	u64 id;
	u64 rival; /* CLOCK_MONOTONIC when another cgroup was last seen */
};

/* Keys are a socket's address, a namespace and port, or a namespace. What is forgotten
 * is learned again, so this one is LRU. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, struct owner);
} owners SEC(".maps");

#define MAX_ARGUMENTS 12 /* of a run of a raw_tp program (net/bpf/test_run.c) */

struct listener {
	u64 id;
	u32 drops; /* that are counted already */
	u32 again; /* SYN-ACKs sent again since */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct listener);
} listeners SEC(".maps");

/* How long a namespace is nobody's after two cgroups were seen in it: a container that
 * was restarted is alone in its pod's again. */
#define RIVALRY (600 * 1000000000ULL)

static __always_inline void count(u64 id, u32 event, u64 n)
{
	struct counts *c = entry(&networks, id, &no_counts);

	if (c)
		add(&c->events[event], n);
}

/* A network namespace's inode number, which the next one takes over at once, and a
 * random number of its own. 0: there is none. */
static __always_inline u64 namespace_of(possible_net_t *from)
{
	struct net *net = 0;
	u32 inum = 0, random = 0;

	core_read(&net, &from->net);
	if (!net)
		return 0;
	core_read(&inum, &net->ns.inum);
	if (core_field_exists(net->hash_mix))
		core_read(&random, &net->hash_mix);
	return (u64)random << 32 | inum;
}

static __always_inline u64 port_key(u64 net, u16 port)
{
	return net ^ (u64)port << 8;
}

/* Whose cgroup made the socket, on v2. */
static __always_inline u64 cgroup_of(struct sock *sk)
{
	struct sock___old *old = (void *)sk;
	struct cgroup *cgroup = 0;
	struct kernfs_node *kn = 0;
	u64 id = ROOT;

	if (core_field_exists(sk->sk_cgrp_data.cgroup)) {
		core_read(&cgroup, &sk->sk_cgrp_data.cgroup);
	} else {
		u64 val = 0;

		core_read(&val, &old->sk_cgrp_data.val);
		if (!(val & 1)) /* else a class, of net_cls or net_prio */
			cgroup = (void *)(val & ~3ULL);
	}
	if (!cgroup)
		return ROOT;
	core_read(&kn, &cgroup->kn);
	core_read(&id, &kn->id);
	return id;
}

static __always_inline u64 known(u64 key)
{
	struct owner *o = bpf_map_lookup_elem(&owners, &key);

	return o ? o->id : ROOT;
}

/* Who is alone in a namespace. */
static __always_inline u64 alone(u64 net)
{
	struct owner *o = bpf_map_lookup_elem(&owners, &net);

	if (!o || (o->rival && bpf_ktime_get_ns() - o->rival < RIVALRY))
		return ROOT;
	return o->id;
}

static __always_inline void learn(u64 key, u64 id)
{
	struct owner new = {.id = id};

	bpf_map_update_elem(&owners, &key, &new, 0);
}

static __always_inline void claim(u64 net, u64 id)
{
	struct owner *o = bpf_map_lookup_elem(&owners, &net);

	if (!o) {
		learn(net, id);
	} else if (o->id != id) {
		o->rival = bpf_ktime_get_ns();
		o->id = id;
	}
}

static __always_inline u64 owner_of(struct sock *sk)
{
	u8 state = 0;
	u64 net, id = ROOT;

	core_read(&state, &sk->__sk_common.skc_state);
	if (state == TCP_NEW_SYN_RECV) {
		core_read(&sk, &sk->__sk_common.skc_listener);
		if (!sk)
			return ROOT;
	}
	net = namespace_of(&sk->__sk_common.skc_net);
	if (cgroup_v1) {
		u16 port = 0;

		id = known((u64)sk);
		if (id <= ROOT) {
			core_read(&port, &sk->__sk_common.skc_num);
			if (port)
				id = known(port_key(net, port));
		}
	} else if (state != TCP_TIME_WAIT) { /* which is cut down, and has no cgroup */
		id = cgroup_of(sk);
	}
	return id > ROOT ? id : alone(net);
}

/* Where a packet without a socket is. Once it is in a socket's queue the device's place
 * holds other things: then this finds no namespace that it knows. */
static __always_inline u64 owner_of_packet(struct sk_buff *skb)
{
	struct net_device *dev = 0;
	u64 net;

	core_read(&dev, &skb->dev);
	net = dev ? namespace_of(&dev->nd_net) : 0;
	return net ? alone(net) : ROOT;
}

static __always_inline u64 segments(struct sk_buff *skb)
{
	struct skb_shared_info *info;
	u8 *head = 0;
	u32 end = 0;
	u16 n = 0;

	core_read(&head, &skb->head);
	core_read(&end, &skb->end);
	info = (void *)(head + end);
	core_read(&n, &info->gso_segs);
	return n ? n : 1;
}

static __always_inline void listens(struct sock *sk, u64 id)
{
	u64 key = (u64)sk;
	struct listener l = {.id = id}, *old = bpf_map_lookup_elem(&listeners, &key);

	if (old) {
		if (old->id <= ROOT)
			old->id = id;
		return;
	}
	core_read(&l.drops, &sk->sk_drops.counter);
	if (bpf_map_update_elem(&listeners, &key, &l, BPF_NOEXIST))
		count_lost();
}

static __always_inline void collect(struct sock *sk, struct listener *l)
{
	u32 drops = 0, new, again;
	u8 state = 0;

	/* What is told of its end is still in this state; what is not is another by now. */
	core_read(&state, &sk->__sk_common.skc_state);
	if (state != TCP_LISTEN || core_read(&drops, &sk->sk_drops.counter))
		return;
	new = drops - l->drops;
	l->drops = drops;
	/* A SYN that comes again because its answer was lost is dropped, too, once that has
	 * been sent again (tcp_check_req). */
	again = l->again;
	l->again = 0;
	if (new < 1U << 31 && new > again) /* else it was set back, or none was turned away */
		count(l->id, OVERFLOWS, new - again);
}

/* Sockets come from and go to their owner in these steps; the others are made in the
 * softirq of whoever runs. */
static __always_inline bool by_owner(u32 from, u32 to)
{
	return (from == TCP_CLOSE && (to == TCP_SYN_SENT || to == TCP_LISTEN)) ||
	       (from == TCP_ESTABLISHED && to == TCP_FIN_WAIT1) ||
	       (from == TCP_CLOSE_WAIT && to == TCP_LAST_ACK);
}

static __always_inline int set_state(struct sock *sk, u32 from, u32 to)
{
	u64 key = (u64)sk, id, net;
	u16 protocol = 0, port = 0;

	core_read(&protocol, &sk->sk_protocol);
	if (protocol != IPPROTO_TCP)
		return 0;
	if (to == TCP_ESTABLISHED) {
		count(owner_of(sk), CONNECTIONS, 1);
		return 0;
	}
	if (from == TCP_LISTEN && to == TCP_CLOSE) {
		struct listener *l = bpf_map_lookup_elem(&listeners, &key);

		if (l)
			collect(sk, l);
		bpf_map_delete_elem(&listeners, &key);
	}
	if (by_owner(from, to)) {
		net = namespace_of(&sk->__sk_common.skc_net);
		id = cgroup_v1 ? task_group_id((void *)bpf_get_current_task()) : cgroup_of(sk);
		claim(net, id);
		if (cgroup_v1) {
			core_read(&port, &sk->__sk_common.skc_num);
			if (from == TCP_CLOSE)
				learn(key, id);
			if (port && (to == TCP_LISTEN || known(key) <= ROOT))
				learn(port_key(net, port), id);
		}
		if (to == TCP_LISTEN) {
			bpf_map_delete_elem(&listeners, &key);
			listens(sk, id);
		}
	}
	if (cgroup_v1 && to == TCP_CLOSE)
		bpf_map_delete_elem(&owners, &key);
	return 0;
}

static __always_inline int retransmit(struct sock *sk, struct sk_buff *skb)
{
	struct tcp_skb_cb *cb = (void *)&skb->cb;
	u16 n = 0;

	core_read(&n, &cb->tcp_gso_segs);
	count(owner_of(sk), RETRANSMITTED, n ? n : 1);
	return 0;
}

static __always_inline int receive_reset(struct sock *sk)
{
	u8 state = 0;

	core_read(&state, &sk->__sk_common.skc_state);
	count(owner_of(sk), state == TCP_SYN_SENT ? REFUSED : RESETS_RECEIVED, 1);
	return 0;
}

static __always_inline int send_reset(struct sock *sk, struct sk_buff *skb)
{
	count(sk ? owner_of(sk) : skb ? owner_of_packet(skb) : ROOT, RESETS_SENT, 1);
	return 0;
}

static __always_inline int transmit(struct sk_buff *skb)
{
	struct sock *sk = 0;
	u16 family = 0, protocol = IPPROTO_TCP;
	u8 state = 0;
	u64 id;

	core_read(&sk, &skb->sk);
	if (!sk)
		return 0;
	core_read(&family, &sk->__sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	core_read(&state, &sk->__sk_common.skc_state);
	if (state != TCP_NEW_SYN_RECV) /* which is TCP's, and has no more than the common part */
		core_read(&protocol, &sk->sk_protocol);
	if (protocol == IPPROTO_TCP) {
		id = owner_of(sk);
		count(id, SENT, segments(skb));
		if (state == TCP_NEW_SYN_RECV) { /* an answer of a listener that may be older than the probe */
			core_read(&sk, &sk->__sk_common.skc_listener);
			if (sk)
				listens(sk, id);
		}
	} else if (protocol == IPPROTO_UDP && !cgroup_v1) {
		claim(namespace_of(&sk->__sk_common.skc_net), cgroup_of(sk));
	}
	return 0;
}

static __always_inline int drop(struct sk_buff *skb, u32 reason, struct sock *receiver)
{
	struct sock *sk = receiver;
	struct counts *c;
	u16 protocol = 0, family = 0;
	u32 *place, i;

	core_read(&protocol, &skb->protocol);
	if (protocol != ETH_P_IP && protocol != ETH_P_IPV6)
		return 0;
	place = bpf_map_lookup_elem(&reasons, &reason);
	i = place ? *place : REASONS - 1;
	if (i >= REASONS)
		return 0;
	if (!sk)
		core_read(&sk, &skb->sk);
	if (sk) {
		core_read(&family, &sk->__sk_common.skc_family);
		if (family != AF_INET && family != AF_INET6)
			sk = 0;
	}
	c = entry(&networks, sk ? owner_of(sk) : owner_of_packet(skb), &no_counts);
	if (c)
		add(&c->drops[i], 1);
	return 0;
}

/* Every hook twice, the second time for a kernel that refuses tracing programs. */
#define HOOK(name, hook, body) \
	SEC("tp_btf/" hook) int name(u64 *ctx) { return body; } \
	SEC("raw_tp/" hook) int name##_raw(u64 *ctx) { return body; }

HOOK(inet_sock_set_state, "inet_sock_set_state", set_state((void *)ctx[0], ctx[1], ctx[2]))
HOOK(tcp_retransmit_skb, "tcp_retransmit_skb", retransmit((void *)ctx[0], (void *)ctx[1]))
HOOK(tcp_receive_reset, "tcp_receive_reset", receive_reset((void *)ctx[0]))
HOOK(tcp_send_reset, "tcp_send_reset", send_reset((void *)ctx[0], (void *)ctx[1]))
HOOK(net_dev_queue, "net_dev_queue", transmit((void *)ctx[0]))

static __always_inline int again(struct sock *listener)
{
	u64 key = (u64)listener;
	struct listener *l = bpf_map_lookup_elem(&listeners, &key);

	if (l)
		add(&l->again, 1);
	count(owner_of(listener), RETRANSMITTED, 1);
	return 0;
}

static __always_inline int receive(struct sock *sk, struct sk_buff *skb)
{
	count(owner_of(sk), RECEIVED, segments(skb));
	return 0;
}

HOOK(tcp_retransmit_synack, "tcp_retransmit_synack", again((void *)ctx[0]))
HOOK(tcp_probe, "tcp_probe", receive((void *)ctx[0], (void *)ctx[1]))

/* The reason came with 5.17, the receiving socket with 6.11. */
HOOK(kfree_skb, "kfree_skb", drop((void *)ctx[0], 0, 0))
HOOK(kfree_skb_reason, "kfree_skb", drop((void *)ctx[0], ctx[2], 0))
HOOK(kfree_skb_receiver, "kfree_skb", drop((void *)ctx[0], ctx[2], (void *)ctx[3]))

/* Attached to nothing: user space runs it before it reads, with the addresses of some
 * listeners as its arguments, 0 for none. An iterator over the map would need no
 * addresses, and is refused where fentry is. */
SEC("raw_tp")
int collect_overflows(u64 *ctx)
{
#pragma unroll
	for (int i = 0; i < MAX_ARGUMENTS; i++) {
		u64 key = ctx[i];
		struct listener *l = key ? bpf_map_lookup_elem(&listeners, &key) : 0;

		if (l)
			collect((void *)key, l);
	}
	return 0;
}
