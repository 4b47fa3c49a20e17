package sampler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
)

// machine is a Tree, a Tracer, a Clock and an Index that a test turns by hand.
type machine struct {
	wall    time.Time
	elapsed time.Duration

	groups     []cgroup.Group
	owners     map[cgroup.ID]cgroup.ID
	cpu        map[cgroup.ID]cgroup.CPUStat
	limit      map[cgroup.ID]cgroup.CPULimit
	fails      map[cgroup.ID]error
	reads      map[cgroup.ID]int
	limitReads int

	detached  map[bpf.Probe]bool
	syscalls  map[uint64][]uint64
	durations map[uint64]bpf.Histogram
	waits     map[uint64]bpf.RunqueueWait
	periods   map[uint64][]bpf.Period
	reclaims  map[uint64]bpf.ReclaimStalls
	kills     map[uint64]bpf.OOMKills
	network   map[uint64]bpf.Network
	security  map[uint64]bpf.Security
	memory    map[cgroup.ID]cgroup.MemoryStat
	counts    map[cgroup.ID]cgroup.MemoryCounts
	pressure  map[cgroup.ID]cgroup.Pressure
	fault     error
	forgotten []uint64

	containers map[string]pods.Container
	podUIDs    map[string]pods.Container
	usage      map[reported.Key]reported.Usage
	maps       []bpf.MapStats
}

func newMachine() *machine {
	return &machine{
		wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), elapsed: time.Hour,
		owners: map[cgroup.ID]cgroup.ID{}, cpu: map[cgroup.ID]cgroup.CPUStat{}, limit: map[cgroup.ID]cgroup.CPULimit{},
		fails: map[cgroup.ID]error{}, reads: map[cgroup.ID]int{}, detached: map[bpf.Probe]bool{},
		reclaims: map[uint64]bpf.ReclaimStalls{}, kills: map[uint64]bpf.OOMKills{}, network: map[uint64]bpf.Network{},
		memory: map[cgroup.ID]cgroup.MemoryStat{}, counts: map[cgroup.ID]cgroup.MemoryCounts{}, pressure: map[cgroup.ID]cgroup.Pressure{},
		syscalls: map[uint64][]uint64{}, waits: map[uint64]bpf.RunqueueWait{}, durations: map[uint64]bpf.Histogram{},
		containers: map[string]pods.Container{}, podUIDs: map[string]pods.Container{}, usage: map[reported.Key]reported.Usage{},
	}
}

func (m *machine) Now() time.Time         { return m.wall }
func (m *machine) Elapsed() time.Duration { return m.elapsed }
func (m *machine) pass(d time.Duration)   { m.wall, m.elapsed = m.wall.Add(d), m.elapsed+d }

func (m *machine) Groups() []cgroup.Group { return m.groups }
func (m *machine) Stats() cgroup.Stats    { return cgroup.Stats{Groups: len(m.groups)} }
func (m *machine) Owner(id cgroup.ID) (cgroup.ID, bool) {
	o, ok := m.owners[id]
	return o, ok
}

func (m *machine) CPU(g cgroup.Group) (cgroup.CPUStat, error) {
	m.reads[g.ID]++
	if err := m.fails[g.ID]; err != nil {
		return cgroup.CPUStat{}, err
	}
	s := m.cpu[g.ID]
	s.At, s.HasUsage, s.HasBandwidth = m.wall, true, true
	return s, nil
}

func (m *machine) Limit(g cgroup.Group) (cgroup.CPULimit, error) {
	m.limitReads++
	return m.limit[g.ID], m.fails[g.ID]
}
func (m *machine) CPUs(cgroup.Group) (int, error) { return 4, nil }
func (m *machine) Memory(g cgroup.Group) (cgroup.MemoryStat, bool, error) {
	stat, ok := m.memory[g.ID]
	return stat, ok, m.fails[g.ID]
}
func (m *machine) MemoryCounts(g cgroup.Group) (cgroup.MemoryCounts, error) {
	return m.counts[g.ID], m.fails[g.ID]
}
func (m *machine) Pressure(g cgroup.Group) (cgroup.Pressure, error) {
	return m.pressure[g.ID], m.fails[g.ID]
}
func (m *machine) ReclaimStalls() (map[uint64]bpf.ReclaimStalls, error) {
	return m.reclaims, m.err(bpf.ProbeReclaim)
}
func (m *machine) Network() (map[uint64]bpf.Network, error) {
	return m.network, m.err(bpf.ProbeNetwork)
}
func (m *machine) Security() (map[uint64]bpf.Security, error) {
	return m.security, m.err(bpf.ProbeSecurity)
}
func (m *machine) OverflowsCounted() bool                     { return true }
func (m *machine) OOMKills() (map[uint64]bpf.OOMKills, error) { return m.kills, m.err(bpf.ProbeOOM) }

func (m *machine) Status() []bpf.Status {
	var all []bpf.Status
	for _, p := range []bpf.Probe{bpf.ProbeThrottle, bpf.ProbeDemand, bpf.ProbeRunqueue, bpf.ProbeSyscalls, bpf.ProbeReclaim, bpf.ProbeOOM, bpf.ProbeNetwork, bpf.ProbeSecurity} {
		all = append(all, bpf.Status{Probe: p, Attached: !m.detached[p]})
	}
	return all
}

func (m *machine) err(p bpf.Probe) error {
	if m.detached[p] {
		return fmt.Errorf("probe %s: %w", p, bpf.ErrNotAttached)
	}
	return m.fault
}
func (m *machine) SyscallNames() []string { return []string{"read", "other"} }
func (m *machine) Syscalls() (map[uint64][]uint64, error) {
	return maps.Clone(m.syscalls), m.err(bpf.ProbeSyscalls)
}
func (m *machine) ThrottleDurations() (map[uint64]bpf.Histogram, error) {
	return m.durations, m.err(bpf.ProbeThrottle)
}
func (m *machine) RunqueueWait() (map[uint64]bpf.RunqueueWait, error) {
	return m.waits, m.err(bpf.ProbeRunqueue)
}
func (m *machine) Demand() (map[uint64][]bpf.Period, error) {
	p := m.periods
	m.periods = nil
	return p, m.err(bpf.ProbeDemand)
}
func (m *machine) Forget(ids ...uint64) {
	m.forgotten = append(m.forgotten, ids...)
	for _, id := range ids {
		delete(m.syscalls, id)
		delete(m.network, id)
	}
}
func (m *machine) Programs() []bpf.ProgramStats { return nil }
func (m *machine) Maps() []bpf.MapStats         { return m.maps }

func (m *machine) ByContainerID(id string) (pods.Container, bool) {
	c, ok := m.containers[id]
	return c, ok
}
func (m *machine) ByPodUID(uid string) (pods.Container, bool) {
	c, ok := m.podUIDs[uid]
	return c, ok
}
func (m *machine) Usage(k reported.Key) (reported.Usage, bool) {
	u, ok := m.usage[k]
	return u, ok
}

func (m *machine) sampler(cfg Config) *Sampler {
	cfg.Tree, cfg.Clock, cfg.Log = m, m, slog.New(slog.DiscardHandler)
	return New(cfg)
}

// group adds a living cgroup that owns itself.
func (m *machine) group(id cgroup.ID, path string) {
	m.groups = append(m.groups, cgroup.Group{ID: id, Path: path, Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindOther}})
	m.owners[id] = id
	m.limit[id] = cgroup.CPULimit{Quota: 20 * time.Millisecond, Period: 100 * time.Millisecond}
}

// run lets a group run for a second: so many CPU seconds, periods and throttles.
func (m *machine) run(id cgroup.ID, used float64, periods, throttled uint64) {
	s := m.cpu[id]
	s.Usage += seconds(used)
	s.Periods += periods
	s.Throttled += throttled
	s.ThrottledTime += time.Duration(throttled) * 80 * time.Millisecond
	m.cpu[id] = s
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

func find(t *testing.T, snap *Snapshot, container string) Container {
	t.Helper()
	for _, c := range snap.Containers {
		if c.Container == container {
			return c
		}
	}
	require.Failf(t, "no such container", "%s is not among %d", container, len(snap.Containers))
	return Container{}
}

func TestRatioLooksBackOverTheWindow(t *testing.T) {
	m := newMachine()
	m.group(7, "/a")
	s := m.sampler(Config{Window: 10 * time.Second})
	m.run(7, 0.2, 1000, 1000) // its past before we came
	require.Nil(t, find(t, s.Sample(), "/a").Throttling, "one sample has no window")

	for range 30 {
		m.pass(time.Second)
		m.run(7, 0.2, 10, 9)
		s.Sample()
	}
	for range 5 {
		m.pass(time.Second)
		m.run(7, 0.2, 10, 0)
		s.Sample()
	}
	got := find(t, s.Snapshot(), "/a").Throttling
	require.NotNil(t, got)
	assert.Equal(t, Throttling{Window: 10 * time.Second, Periods: 100, Throttled: 45,
		ThrottledTime: 45 * 80 * time.Millisecond, Used: 2 * time.Second}, *got)
	ratio, ok := got.Ratio()
	assert.True(t, ok)
	assert.Equal(t, 0.45, ratio)
	assert.Equal(t, 36, m.reads[7], "one read a sample")
	assert.LessOrEqual(t, cap(s.groups[7].Points), 256, "the trail is bounded")
	assert.LessOrEqual(t, len(s.groups[7].Points), 10+60+1)

	// Idle: no period elapsed, nothing can be said.
	for range 12 {
		m.pass(time.Second)
		s.Sample()
	}
	_, ok = find(t, s.Snapshot(), "/a").Throttling.Ratio()
	assert.False(t, ok)
}

func TestNewGroupIsJudgedFromItsBirth(t *testing.T) {
	m := newMachine()
	s := m.sampler(Config{Window: time.Minute})
	s.Sample()
	m.pass(300 * time.Millisecond)
	m.group(7, "/young")
	m.pass(700 * time.Millisecond)
	m.run(7, 0.14, 7, 6)
	got := find(t, s.Sample(), "/young").Throttling
	require.NotNil(t, got, "its first second counts")
	assert.Equal(t, uint64(7), got.Periods)
	assert.Equal(t, uint64(6), got.Throttled)
	assert.Equal(t, 700*time.Millisecond, got.Window)

	// A group with a past longer than it was seen began before.
	m.group(8, "/old")
	m.run(8, 100, 5000, 10)
	m.pass(500 * time.Millisecond)
	require.Nil(t, find(t, s.Sample(), "/old").Throttling)
	m.pass(time.Second)
	m.run(8, 0.1, 10, 1)
	assert.Equal(t, uint64(10), find(t, s.Sample(), "/old").Throttling.Periods)
}

func TestWallClockStepsDoNotBreakWindows(t *testing.T) {
	m := newMachine()
	m.group(7, "/a")
	key := reported.Key{Container: "/a"}
	s := m.sampler(Config{Window: 10 * time.Second, Reporters: []Reporter{m}})
	tick := func() *Snapshot {
		m.pass(time.Second)
		m.run(7, 0.5, 10, 5)
		return s.Sample()
	}
	for range 20 {
		tick()
	}
	m.usage[key] = reported.Usage{Source: reported.SourceKubelet, Cores: 0.4, At: m.wall.Add(-2 * time.Second), Window: 5 * time.Second}
	gap := find(t, tick(), "/a").Gap
	require.NotNil(t, gap)
	require.NotNil(t, gap.Accounting)
	assert.InDelta(t, 0.1, *gap.Accounting, 1e-9)

	m.wall = m.wall.Add(-time.Hour) // somebody sets the clock
	c := find(t, tick(), "/a")
	assert.Equal(t, 10*time.Second, c.Throttling.Window)
	assert.Equal(t, uint64(100), c.Throttling.Periods)
	m.usage[key] = reported.Usage{Source: reported.SourceKubelet, Cores: 0.4, At: m.wall.Add(-2 * time.Second), Window: 5 * time.Second}
	c = find(t, tick(), "/a")
	require.NotNil(t, c.Gap)
	assert.Nil(t, c.Gap.Accounting, "a window that spans the step can't be placed")
	assert.InDelta(t, 0.5, *c.Gap.Used, 1e-9)
	for range 6 {
		tick()
	}
	m.usage[key] = reported.Usage{Source: reported.SourceKubelet, Cores: 0.4, At: m.wall, Window: 5 * time.Second}
	c = find(t, tick(), "/a")
	require.NotNil(t, c.Gap.Accounting, "later windows can be again")
	assert.InDelta(t, 0.1, *c.Gap.Accounting, 1e-9)
}

// The emulation's figure is made of our own readings: its accounting gap is nil.
func TestEmulationAgreesWithTheKernel(t *testing.T) {
	m := newMachine()
	m.group(7, "/a")
	s := m.sampler(Config{Emulation: reported.NewEmulation()})
	var c Container
	for i := range 60 {
		m.pass(time.Second)
		m.run(7, []float64{0, 0.9, 0.1}[i%3], 10, 5)
		c = find(t, s.Sample(), "/a")
	}
	require.Len(t, c.Reported, 1)
	assert.Equal(t, reported.SourceEmulation, c.Reported[0].Source)
	require.NotNil(t, c.Gap.Accounting)
	assert.InDelta(t, 0, *c.Gap.Accounting, 1e-6)
	assert.InDelta(t, 0.9-c.Reported[0].Cores, *c.Gap.Averaging, 1e-6)
}

func TestOneGroupsErrorCostsOnlyThatGroup(t *testing.T) {
	m := newMachine()
	m.group(1, "/broken")
	m.group(2, "/gone")
	m.group(3, "/fine")
	s := m.sampler(Config{Tracer: m})
	s.Sample()
	m.fails[1] = errors.New("input/output error")
	m.fails[2] = cgroup.ErrGone
	m.pass(time.Second)
	m.run(3, 0.2, 10, 5)
	snap := s.Sample()
	assert.Equal(t, uint64(10), find(t, snap, "/fine").CPU.Periods)
	broken := find(t, snap, "/broken")
	assert.Nil(t, broken.CPU, "not measured is absent")
	assert.Nil(t, broken.Throttling)
	assert.Nil(t, broken.Gap)
	assert.NotNil(t, find(t, snap, "/gone").CPU, "its last figures stay until the tree tells")
	assert.Equal(t, uint64(1), snap.Errors["cpu.stat"], "a cgroup that is gone is no error")
	assert.Equal(t, uint64(0), snap.Errors["bpf_syscalls"])

	m.fault = errors.New("bad file descriptor")
	m.pass(time.Second)
	snap = s.Sample()
	assert.Equal(t, uint64(1), snap.Errors["bpf_syscalls"])
	assert.NotNil(t, find(t, snap, "/fine").CPU)
}

func TestDetachedProbesAreAbsentAndNoErrors(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	for _, p := range []bpf.Probe{bpf.ProbeThrottle, bpf.ProbeDemand, bpf.ProbeRunqueue, bpf.ProbeSyscalls, bpf.ProbeReclaim, bpf.ProbeOOM, bpf.ProbeNetwork} {
		m.detached[p] = true
	}
	s := m.sampler(Config{Tracer: m})
	s.Sample()
	m.pass(time.Second)
	m.run(1, 0.2, 10, 5)
	snap := s.Sample()
	c := find(t, snap, "/a")
	assert.Nil(t, c.Durations)
	assert.Nil(t, c.Denied)
	assert.Nil(t, c.Runqueue)
	assert.Equal(t, Memory{}, c.Memory)
	assert.Nil(t, c.Syscalls)
	require.NotNil(t, c.Gap)
	assert.Nil(t, c.Gap.Contended)
	assert.NotNil(t, c.Gap.Throttled)
	for reader, n := range snap.Errors {
		assert.Zero(t, n, reader)
	}
}

// A map that turned somebody away leaves those without an entry unknown, and not at 0.
func TestCrowdedMapsLeaveFiguresAbsent(t *testing.T) {
	m := newMachine()
	m.group(1, "/counted")
	m.group(2, "/perhaps")
	m.syscalls = map[uint64][]uint64{1: {5, 1}}
	s := m.sampler(Config{Tracer: m})
	for range slow {
		snap := s.Sample()
		assert.Equal(t, []uint64{5, 1}, find(t, snap, "/counted").Syscalls)
		assert.Equal(t, []uint64{0, 0}, find(t, snap, "/perhaps").Syscalls, "there was room: it made no calls")
		m.pass(time.Second)
	}
	m.maps = []bpf.MapStats{{Probe: bpf.ProbeSyscalls, Entries: 1, Capacity: 1, Lost: 7}, {Probe: bpf.ProbeRunqueue, Entries: 1, Capacity: 9}}
	s.Sample() // reads them, for the next
	m.pass(time.Second)
	snap := s.Sample()
	assert.Equal(t, []uint64{5, 1}, find(t, snap, "/counted").Syscalls)
	assert.Nil(t, find(t, snap, "/perhaps").Syscalls)
	assert.NotNil(t, find(t, snap, "/perhaps").Runqueue, "another map had room")
	m.syscalls[2] = []uint64{3, 0} // the next event found room
	m.pass(time.Second)
	assert.Equal(t, []uint64{3, 0}, find(t, s.Sample(), "/perhaps").Syscalls)
}

func TestNestedAndUnownedIDs(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	m.owners[11] = 1
	s := m.sampler(Config{Tracer: m})
	m.syscalls = map[uint64][]uint64{1: {5, 1}, 11: {3, 0}, 99: {7, 7}}
	snap := s.Sample()
	assert.Equal(t, []uint64{8, 1}, find(t, snap, "/a").Syscalls)
	assert.Equal(t, 1, snap.Unowned)
	assert.Len(t, snap.Containers, 1, "what belongs to nobody has no series")

	// A nested cgroup's count survives it, and nothing is counted twice when one
	// reading misses an entry.
	delete(m.owners, 11)
	delete(m.syscalls, 11)
	m.pass(time.Second)
	assert.Equal(t, []uint64{8, 1}, find(t, s.Sample(), "/a").Syscalls)
	m.syscalls[11] = []uint64{4, 0}
	m.syscalls[1] = []uint64{6, 1}
	m.pass(time.Second)
	assert.Equal(t, []uint64{10, 1}, find(t, s.Sample(), "/a").Syscalls)

	// An id that finds its owner late brings its whole count.
	m.group(2, "/late")
	m.owners[99] = 2
	m.pass(time.Second)
	snap = s.Sample()
	assert.Equal(t, []uint64{7, 7}, find(t, snap, "/late").Syscalls)
	assert.Zero(t, snap.Unowned)
}

func TestTombstonesKeepFiguresAndThenAreForgotten(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	m.owners[11] = 1
	m.syscalls = map[uint64][]uint64{1: {5, 1}, 11: {3, 0}}
	m.run(1, 1, 10, 5)
	s := m.sampler(Config{Tracer: m, Emulation: reported.NewEmulation()})
	s.Sample()

	m.groups[0].Gone = m.wall
	m.fails[1] = cgroup.ErrGone
	m.syscalls[1] = []uint64{6, 1} // its last breath
	m.pass(time.Second)
	c := find(t, s.Sample(), "/a")
	assert.Equal(t, uint64(10), c.CPU.Periods)
	assert.Equal(t, []uint64{9, 1}, c.Syscalls)
	assert.Equal(t, 1, m.reads[1], "the dead are not read")

	m.groups = nil
	delete(m.owners, 1)
	delete(m.owners, 11)
	m.pass(time.Second)
	assert.Empty(t, s.Sample().Containers)
	assert.ElementsMatch(t, []uint64{1, 11}, m.forgotten)
	assert.Empty(t, s.groups)
	assert.Empty(t, s.syscalls.owned)
}

func TestIdleUnownedIDsAreForgotten(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	m.syscalls = map[uint64][]uint64{1: {5, 1}, 50: {1, 0}, 51: {1, 0}}
	s := m.sampler(Config{Tracer: m})
	for i := range idleReads + 5 {
		m.syscalls[51] = []uint64{uint64(i) + 1, 0} // alive, and nobody's
		m.pass(time.Second)
		s.Sample()
	}
	assert.Equal(t, []uint64{50}, m.forgotten)
	assert.Len(t, s.syscalls.read, 2)
}

func TestNames(t *testing.T) {
	const id = "aaaa"
	m := newMachine()
	pod := pods.Container{Namespace: "shop", Pod: "cart-1", PodUID: "uid-1"}
	cart := pod
	cart.Container = "cart"
	m.podUIDs["uid-1"] = pod
	m.groups = []cgroup.Group{
		{ID: 1, Path: "/kubepods/pod-uid-1", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindPod, PodUID: "uid-1"}},
		{ID: 2, Path: "/kubepods/pod-uid-1/aaaa", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, PodUID: "uid-1", ContainerID: id}},
		{ID: 3, Path: "/kubepods/pod-uid-1/pause", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, PodUID: "uid-1", ContainerID: "pause"}},
		{ID: 4, Path: "/kubepods/pod-uid-9/bbbb", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, PodUID: "uid-9", ContainerID: "bbbb"}},
		{ID: 5, Path: "/system.slice/b\xffd.service", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindService}},
		{ID: 6, Path: "/docker/cccc", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, ContainerID: "cccc"}},
	}
	limited := cgroup.CPULimit{Quota: time.Millisecond, Period: time.Second}
	m.limit[1] = limited
	s := m.sampler(Config{Pods: m})
	names := func() []string {
		var out []string
		for _, c := range s.Sample().Containers {
			out = append(out, c.Namespace+"/"+c.Pod+"/"+c.Container)
		}
		m.pass(time.Second)
		return out
	}
	assert.Equal(t, []string{"///docker/cccc", "///system.slice/b\uFFFDd.service"}, names(),
		"the container waits for its name, the sandbox for ever, and the pod for a container")
	m.containers[id] = cart
	assert.Subset(t, names(), []string{"shop/cart-1/", "shop/cart-1/cart"}, "only the pod has a limit")
	delete(m.containers, id)
	m.limit[2] = limited
	assert.NotContains(t, names(), "shop/cart-1/", "the container's limit tells more than the pod's sum")

	m.pass(nameGrace)
	assert.Contains(t, names(), "///kubepods/pod-uid-9/bbbb", "the API server does not tell: by its path")
	delete(m.containers, id)
	delete(m.podUIDs, "uid-1")
	assert.Contains(t, names(), "shop/cart-1/cart", "a name once known stays")
}

func TestRestartedContainerHasOneSeries(t *testing.T) {
	m := newMachine()
	cart := pods.Container{Namespace: "shop", Pod: "cart-1", Container: "cart", PodUID: "uid-1"}
	m.containers["old"], m.containers["new"] = cart, cart
	kind := cgroup.KindContainer
	m.groups = []cgroup.Group{
		{ID: 1, Path: "/p/old", Seen: m.wall, Gone: m.wall.Add(time.Minute), Identity: cgroup.Identity{Kind: kind, PodUID: "uid-1", ContainerID: "old"}},
		{ID: 2, Path: "/p/new", Seen: m.wall.Add(-time.Hour), Identity: cgroup.Identity{Kind: kind, PodUID: "uid-1", ContainerID: "new"}},
	}
	snap := m.sampler(Config{Pods: m}).Sample()
	require.Len(t, snap.Containers, 1)
	assert.Equal(t, "new", snap.Containers[0].Group.ContainerID)
}

func TestRequestIsThatOfTheSpecNow(t *testing.T) {
	m := newMachine()
	quarter, two := 0.25, 2.0
	cart := pods.Container{Namespace: "shop", Pod: "cart-1", Container: "cart", PodUID: "uid-1", CPURequestCores: &quarter}
	m.containers["a"] = cart
	m.groups = []cgroup.Group{
		{ID: 1, Path: "/p/a", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, PodUID: "uid-1", ContainerID: "a"}},
		{ID: 2, Path: "/system.slice/b.service", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindService}},
	}
	s := m.sampler(Config{Pods: m})
	before := s.Sample()
	assert.Equal(t, &quarter, find(t, before, "cart").Request)
	assert.Nil(t, find(t, before, "/system.slice/b.service").Request, "no pod asks for a service")

	cart.CPURequestCores = &two
	m.containers["a"] = cart
	m.pass(time.Second)
	assert.Equal(t, &two, find(t, s.Sample(), "cart").Request, "resized in place")
	assert.Equal(t, &quarter, find(t, before, "cart").Request, "a published snapshot never changes")

	delete(m.containers, "a")
	m.pass(time.Second)
	assert.Equal(t, &two, find(t, s.Sample(), "cart").Request, "stays with the name")
	cart.CPURequestCores = nil
	m.containers["a"] = cart
	m.pass(time.Second)
	assert.Nil(t, find(t, s.Sample(), "cart").Request)
}

func TestDeniedPeriods(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	s := m.sampler(Config{Tracer: m})
	s.Sample()
	m.periods = map[uint64][]bpf.Period{
		1:  {{Denied: 80 * time.Millisecond, Throttled: true}, {Denied: 0}, {Denied: 250 * time.Millisecond, Throttled: true}},
		77: {{Denied: time.Second, Throttled: true}},
	}
	before := s.Snapshot()
	m.pass(time.Second)
	c := find(t, s.Sample(), "/a")
	require.NotNil(t, c.Denied)
	assert.Equal(t, uint64(2), c.Denied.Count())
	assert.Equal(t, 330*time.Millisecond, c.Denied.Sum)
	assert.Equal(t, uint64(1), c.Denied.Buckets[-3-bpf.HistogramMinExp], "80 ms is in (62.5, 125]")
	assert.Equal(t, uint64(1), c.Denied.Buckets[-2-bpf.HistogramMinExp], "250 ms is in (125, 250]")
	assert.Zero(t, find(t, before, "/a").Denied.Count(), "a published snapshot never changes")
}

func TestObserveBuckets(t *testing.T) {
	for d, exp := range map[time.Duration]int{
		0: bpf.HistogramMinExp, time.Nanosecond: bpf.HistogramMinExp, time.Second: 0, time.Second + 1: 1,
		500 * time.Millisecond: -1, 2 * time.Second: 1, 10 * time.Minute: bpf.HistogramMinExp + bpf.HistogramBuckets - 1,
	} {
		var h bpf.Histogram
		observe(&h, d)
		assert.Equal(t, uint64(1), h.Buckets[exp-bpf.HistogramMinExp], "%s belongs below 2^%d s", d, exp)
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	s := m.sampler(Config{Interval: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	s.Run(ctx, func(*Snapshot) {
		if n++; n == 3 {
			cancel()
		}
	})
	assert.GreaterOrEqual(t, n, 3)
}

func TestIdleGroupsAreReadSeldom(t *testing.T) {
	m := newMachine()
	m.groups = []cgroup.Group{{ID: 7, Path: "/docker/a", Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, ContainerID: "a"}}}
	limit := func(quota time.Duration) { m.limit[7] = cgroup.CPULimit{Quota: quota, Period: time.Second} }
	limit(time.Millisecond)
	s := m.sampler(Config{})
	sample := func(n int) *Snapshot {
		var snap *Snapshot
		for range n {
			snap = s.Sample()
			m.pass(time.Second)
		}
		return snap
	}
	sample(10)
	assert.Equal(t, 10, m.limitReads, "its limit may come after it")
	m.limitReads = 0
	sample(20)
	assert.InDelta(t, 20/idleEvery, m.limitReads, 1)
	assert.Equal(t, 30, m.reads[7], "whether it is idle is looked at each time")

	limit(2 * time.Millisecond)
	snap := sample(idleEvery)
	assert.Equal(t, 2*time.Millisecond, snap.Containers[0].Limit.Quota, "seen some seconds later")
	limit(3 * time.Millisecond)
	m.cpu[7] = cgroup.CPUStat{Usage: time.Millisecond}
	assert.Equal(t, 3*time.Millisecond, sample(1).Containers[0].Limit.Quota, "at once where it works")
}
