package sampler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
)

func TestSecurityEventsAreSummedOverNestedGroups(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{
		{ID: 3, Path: "/a", Seen: m.wall}, {ID: 2, Path: "/quiet", Seen: m.wall},
		{ID: 4, Path: "/system.slice/x.service", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindService}},
	}
	m.owners[3], m.owners[11], m.owners[2], m.owners[4] = 3, 3, 2, 4
	one := bpf.Security{Last: map[bpf.SecurityEvent]bpf.SecurityEvidence{
		bpf.SecurityPtrace: {At: 5, Comm: "early"}, bpf.SecurityMount: {At: 6, Comm: "mount"},
	}}
	one.Counts[bpf.SecurityPtrace], one.Counts[bpf.SecurityMount] = 2, 1
	nested := bpf.Security{ImageKnown: true, Last: map[bpf.SecurityEvent]bpf.SecurityEvidence{bpf.SecurityPtrace: {At: 7, Comm: "late"}}}
	nested.Counts[bpf.SecurityPtrace] = 4
	m.security = map[uint64]bpf.Security{3: one, 11: nested, 4: nested}
	s := m.sampler(Config{Tracer: m})
	snap := s.Sample()
	got := find(t, snap, "/a").Security
	assert.EqualValues(t, 6, got.Counts[bpf.SecurityPtrace])
	assert.EqualValues(t, 1, got.Counts[bpf.SecurityMount])
	assert.True(t, got.ImageKnown)
	assert.Equal(t, "late", got.Last[bpf.SecurityPtrace].Comm)
	assert.Equal(t, "mount", got.Last[bpf.SecurityMount].Comm)
	assert.Equal(t, &Security{}, find(t, snap, "/quiet").Security, "none is a measurement")
	assert.Nil(t, find(t, snap, "/system.slice/x.service").Security, "a service of the host")

	// A nested cgroup that ends leaves its counts and its evidence behind.
	delete(m.security, 11)
	delete(m.owners, 11)
	m.pass(time.Second)
	got = find(t, s.Sample(), "/a").Security
	assert.EqualValues(t, 6, got.Counts[bpf.SecurityPtrace])
	assert.Equal(t, "late", got.Last[bpf.SecurityPtrace].Comm)

	m.groups = m.groups[1:]
	delete(m.owners, 3)
	s.Sample()
	assert.NotContains(t, s.security.groups.owned, cgroup.ID(3))
	assert.NotContains(t, s.security.last, cgroup.ID(3))
}

func TestSecurityWithoutItsProbe(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{{ID: 1, Path: "/a", Seen: m.wall}}
	m.detached[bpf.ProbeSecurity] = true
	assert.Nil(t, find(t, m.sampler(Config{Tracer: m}).Sample(), "/a").Security, "absent, not 0")
}

func TestAContainerHasItsPodsLabels(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{{ID: 1, Path: "/a", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, PodUID: "u", ContainerID: "c"}}}
	m.containers["c"] = pods.Container{Namespace: "shop", Pod: "web", Container: "app", Labels: map[string]string{"app": "web"}}
	s := m.sampler(Config{Pods: m, Tracer: m, Allowed: func(namespace string, labels map[string]string) (allowed [bpf.SecurityEvents]bool) {
		allowed[bpf.SecurityMount] = namespace == "shop" && labels["app"] == "web"
		return allowed
	}})
	got := find(t, s.Sample(), "app")
	assert.Equal(t, map[string]string{"app": "web"}, got.Labels)
	assert.True(t, got.Security.Allowed[bpf.SecurityMount])
	assert.False(t, got.Security.Allowed[bpf.SecurityBPF])
}
