package sampler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
)

func TestNetworkIsSummedOverNestedGroups(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{{ID: 3, Path: "/a", Seen: m.wall}, {ID: 2, Path: "/quiet", Seen: m.wall}}
	m.owners[3], m.owners[11], m.owners[2] = 3, 3, 2
	one := bpf.Network{
		SegmentsSent: 1, SegmentsReceived: 2, Retransmits: 3, Connections: 4,
		AcceptOverflows: 5, Refused: 6, ResetsReceived: 7, ResetsSent: 8,
	}
	one.Drops[0], one.Drops[bpf.DropReasonCount-1] = 9, 10
	m.network = map[uint64]bpf.Network{3: one, 11: one, bpf.NodeGroup + 98: {Refused: 1}}
	s := m.sampler(Config{Tracer: m})
	snap := s.Sample()
	want := bpf.Network{
		SegmentsSent: 2, SegmentsReceived: 4, Retransmits: 6, Connections: 8,
		AcceptOverflows: 10, Refused: 12, ResetsReceived: 14, ResetsSent: 16,
	}
	want.Drops[0], want.Drops[bpf.DropReasonCount-1] = 18, 20
	assert.Equal(t, &Network{want, true}, find(t, snap, "/a").Network)
	assert.Equal(t, &Network{HasOverflows: true}, find(t, snap, "/quiet").Network, "none is a measurement")

	// A nested cgroup that ends leaves its counts behind.
	delete(m.network, 11)
	delete(m.owners, 11)
	m.pass(time.Second)
	assert.Equal(t, want, find(t, s.Sample(), "/a").Network.Network)

	m.groups, m.forgotten = m.groups[1:], nil
	delete(m.owners, 3)
	s.Sample()
	assert.Contains(t, m.forgotten, uint64(3))
	assert.NotContains(t, s.network.groups.owned, cgroup.ID(3))
}

func TestNodeNetworkBelongsToNoGroup(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{{ID: 5, Path: "/a", Seen: m.wall}}
	m.owners[5] = 5
	m.network = map[uint64]bpf.Network{bpf.NodeGroup: {ResetsSent: 3}}
	s := m.sampler(Config{Tracer: m})
	snap := s.Sample()
	require.NotNil(t, snap.NodeNetwork)
	assert.EqualValues(t, 3, snap.NodeNetwork.ResetsSent)
	assert.Zero(t, snap.Unowned)
	for range idleReads + 2 {
		m.pass(time.Second)
		snap = s.Sample()
	}
	assert.EqualValues(t, 3, snap.NodeNetwork.ResetsSent)
	assert.NotContains(t, m.forgotten, bpf.NodeGroup)
}

func TestNetworkWithoutItsProbe(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{{ID: 1, Path: "/a", Seen: m.wall}}
	m.detached[bpf.ProbeNetwork] = true
	snap := m.sampler(Config{Tracer: m}).Sample()
	assert.Nil(t, find(t, snap, "/a").Network, "absent, not 0")
	assert.Nil(t, snap.NodeNetwork)
}
