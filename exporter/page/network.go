package page

import (
	"fmt"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// network is what became of the container's packets, each beside the traffic it is of.
func network(c *sampler.Container) section {
	s := section{Title: "Network", Note: "of its own sockets, since the exporter attached"}
	n := c.Network
	if n == nil {
		return s
	}
	add := func(name string, count uint64, from string) {
		s.Facts = append(s.Facts, fact{name, fmt.Sprint(count), from})
	}
	of := func(bad, all uint64) string {
		if all == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f %% ", 100*float64(bad)/float64(all))
	}
	add("TCP segments sent", n.SegmentsSent, "BPF, net_dev_queue; retransmits included")
	add("TCP segments received", n.SegmentsReceived, "BPF, tcp_probe")
	add("segments sent again", n.Retransmits, of(n.Retransmits, n.SegmentsSent)+"of those sent; BPF, tcp_retransmit_skb")
	add("connections established", n.Connections, "BPF, inet_sock_set_state")
	if n.HasOverflows {
		add("turned away at a full accept queue", n.AcceptOverflows, of(n.AcceptOverflows, n.AcceptOverflows+n.Connections)+"of the connections; sk_drops of its listeners")
	}
	add("attempts to connect refused", n.Refused, of(n.Refused, n.Refused+n.Connections)+"of the connections; BPF, tcp_receive_reset")
	add("connections reset by the peer", n.ResetsReceived, "BPF, tcp_receive_reset")
	add("resets sent", n.ResetsSent, "BPF, tcp_send_reset")
	for i, reason := range bpf.DropReasons() {
		if n.Drops[i] > 0 {
			add("packets dropped, "+reason, n.Drops[i], "BPF, kfree_skb; the reason is the kernel's")
		}
	}
	return s
}
