package sampler

import (
	"github.com/kernel-gossip/kernel-gossip/bpf"
)

const readerNetwork = "bpf_network"

// Network is what became of the packets of a group's sockets.
type Network struct {
	bpf.Network
	// HasOverflows tells whether AcceptOverflows is a measurement.
	HasOverflows bool
}

// network keeps what the instrument told.
type network struct {
	groups *totals
	node   bpf.Network
}

// readNetworkInstrument folds the map of network counts into their owners. What belongs
// to no cgroup is the node's.
func (s *Sampler) readNetworkInstrument(fold fold) {
	raw, err := s.Tracer.Network()
	if !s.readable(readerNetwork, err) {
		return
	}
	if node, ok := raw[bpf.NodeGroup]; ok {
		s.network.node = node
		delete(raw, bpf.NodeGroup)
	}
	fold(s.network.groups, flat(raw, flattenNetwork))
}

func (s *Sampler) joinNetwork(st *state) {
	st.out.Network = nil
	if total := s.network.groups.owned[st.out.Group.ID]; s.noted(bpf.ProbeNetwork, total) {
		st.out.Network = st.network.from(total, s.networkOf)
	}
}

func (s *Sampler) networkOf(total []uint64) Network {
	n := Network{HasOverflows: s.Tracer.OverflowsCounted()}
	fields := networkFields(&n.Network)
	if len(total) == len(fields)+bpf.DropReasonCount {
		for i, f := range fields {
			*f = total[i]
		}
		copy(n.Drops[:], total[len(fields):])
	}
	return n
}

func (s *Sampler) nodeNetwork() *Network {
	if !s.attached(bpf.ProbeNetwork) {
		return nil
	}
	return &Network{Network: s.network.node, HasOverflows: s.Tracer.OverflowsCounted()}
}

func networkFields(n *bpf.Network) []*uint64 {
	return []*uint64{
		&n.SegmentsSent, &n.SegmentsReceived, &n.Retransmits, &n.Connections,
		&n.AcceptOverflows, &n.Refused, &n.ResetsReceived, &n.ResetsSent,
	}
}

// flattenNetwork is the form in which totals folds: the fields, then the drops.
func flattenNetwork(into []uint64, n *bpf.Network) []uint64 {
	for _, f := range networkFields(n) {
		into = append(into, *f)
	}
	return append(into, n.Drops[:]...)
}
