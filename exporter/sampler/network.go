package sampler

import (
	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
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
func (s *Sampler) readNetworkInstrument(fold func(*totals, map[uint64][]uint64)) {
	raw, err := s.Tracer.Network()
	if !s.readable(readerNetwork, err) {
		return
	}
	flat := make(map[uint64][]uint64, len(raw))
	for id, n := range raw {
		if id == bpf.NodeGroup {
			s.network.node = n
			continue
		}
		flat[id] = flattenNetwork(&n)
	}
	fold(s.network.groups, flat)
}

func (s *Sampler) joinNetwork(st *state) {
	st.out.Network = nil
	if s.noted(bpf.ProbeNetwork, s.network.groups.owned[st.out.Group.ID]) {
		st.out.Network = s.networkOf(st.out.Group.ID)
	}
}

func (s *Sampler) networkOf(id cgroup.ID) *Network {
	n := &Network{HasOverflows: s.Tracer.OverflowsCounted()}
	total := s.network.groups.owned[id]
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
func flattenNetwork(n *bpf.Network) []uint64 {
	fields := networkFields(n)
	out := make([]uint64, 0, len(fields)+len(n.Drops))
	for _, f := range fields {
		out = append(out, *f)
	}
	return append(out, n.Drops[:]...)
}
