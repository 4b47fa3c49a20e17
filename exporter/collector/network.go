package collector

import (
	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type network struct {
	segments, retransmits, connections, overflows, resets, drops *Family
	nodeEvents, nodeDrops                                        *Family
}

func newNetwork() Collector {
	return &network{
		segments: perContainer(counter, "network_tcp_segments_total",
			"TCP segments of the container's sockets, sent (retransmits included) or received on established connections; one that the device cuts (GSO) is as many as it becomes (BPF).", "direction"),
		retransmits: perContainer(counter, "network_tcp_retransmits_total",
			"TCP segments that the container's sockets sent again, SYN and SYN-ACK included: RetransSegs by container (BPF)."),
		connections: perContainer(counter, "network_tcp_connections_total",
			"TCP connections of the container that were established, either way (BPF)."),
		overflows: perContainer(counter, "network_accept_queue_overflows_total",
			"Connections that the container's listeners turned away because the accept queue was full: ListenDrops by container, which also counts those for want of memory (BPF)."),
		resets: perContainer(counter, "network_tcp_resets_total",
			"TCP resets of the container's sockets: received on a connection, sent, or refused, in answer to its attempt to connect (BPF). Exposed from the first one on.", "kind"),
		drops: perContainer(counter, "network_drops_total",
			"Packets of the container that the kernel dropped, by its own reason (BPF, kfree_skb; enum skb_drop_reason). not_specified is all that a kernel before 5.17 tells, and not always a loss. Each reason is exposed from its first drop on.", "reason"),
		nodeEvents: newFamily(counter, "node_network_events_total",
			"The same events where the container can't be told: sockets of the root cgroup, and what has no socket in a network namespace that several cgroups share (BPF).", "event"),
		nodeDrops: newFamily(counter, "node_network_drops_total",
			"Packets that the kernel dropped where the container can't be told, by its own reason (BPF, kfree_skb). Each reason is exposed from its first drop on.", "reason"),
	}
}

func (c *network) Families() []*Family {
	return []*Family{c.segments, c.retransmits, c.connections, c.overflows, c.resets, c.drops, c.nodeEvents, c.nodeDrops}
}

func (c *network) Update(out *Exposition) {
	reasons := bpf.DropReasons()
	for i := range out.Containers {
		g := &out.Containers[i]
		n := g.Network
		if n == nil {
			continue
		}
		out.of(g, c.segments, float64(n.SegmentsSent), "sent")
		out.of(g, c.segments, float64(n.SegmentsReceived), "received")
		out.of(g, c.retransmits, float64(n.Retransmits))
		out.of(g, c.connections, float64(n.Connections))
		if n.HasOverflows {
			out.of(g, c.overflows, float64(n.AcceptOverflows))
		}
		for _, r := range resets(n) {
			if r.count > 0 {
				out.of(g, c.resets, float64(r.count), r.kind)
			}
		}
		for i, count := range n.Drops {
			if count > 0 {
				out.of(g, c.drops, float64(count), reasons[i])
			}
		}
	}
	if n := out.Snapshot.NodeNetwork; n != nil {
		c.updateNode(out, n)
	}
}

func (c *network) updateNode(out *Exposition, n *sampler.Network) {
	out.node(c.nodeEvents, float64(n.SegmentsSent), "segment_sent")
	out.node(c.nodeEvents, float64(n.SegmentsReceived), "segment_received")
	out.node(c.nodeEvents, float64(n.Retransmits), "retransmit")
	out.node(c.nodeEvents, float64(n.Connections), "connection")
	if n.HasOverflows {
		out.node(c.nodeEvents, float64(n.AcceptOverflows), "accept_queue_overflow")
	}
	for _, r := range resets(n) {
		out.node(c.nodeEvents, float64(r.count), "reset_"+r.kind)
	}
	reasons := bpf.DropReasons()
	for i, count := range n.Drops {
		if count > 0 {
			out.node(c.nodeDrops, float64(count), reasons[i])
		}
	}
}

type reset struct {
	kind  string
	count uint64
}

func resets(n *sampler.Network) []reset {
	return []reset{{"received", n.ResetsReceived}, {"sent", n.ResetsSent}, {"refused", n.Refused}}
}
