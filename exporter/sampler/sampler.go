// Package sampler reads every cgroup once a second and joins what the tree, the
// kernel's instruments, the pods and the reporters say of it into a Snapshot.
//
// Nothing else reads the kernel: reading cpu.stat makes it flush its statistics,
// so a storm of scrapes must not become a storm of reads. A scrape reads the last
// Snapshot, which is memory.
package sampler

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

// Tree finds and reads cgroups.
type Tree interface {
	Groups() []cgroup.Group
	Owner(id cgroup.ID) (cgroup.ID, bool)
	CPU(g cgroup.Group) (cgroup.CPUStat, error)
	Limit(g cgroup.Group) (cgroup.CPULimit, error)
	CPUs(g cgroup.Group) (int, error)
	Memory(g cgroup.Group) (stat cgroup.MemoryStat, ok bool, err error)
	MemoryCounts(g cgroup.Group) (cgroup.MemoryCounts, error)
	Pressure(g cgroup.Group) (cgroup.Pressure, error)
	Stats() cgroup.Stats
}

// Tracer reads the kernel's instruments. A reader whose probe is not attached
// returns bpf.ErrNotAttached.
type Tracer interface {
	Status() []bpf.Status
	SyscallNames() []string
	Syscalls() (map[uint64][]uint64, error)
	ThrottleDurations() (map[uint64]bpf.Histogram, error)
	RunqueueWait() (map[uint64]bpf.RunqueueWait, error)
	Demand() (map[uint64][]bpf.Period, error)
	ReclaimStalls() (map[uint64]bpf.ReclaimStalls, error)
	OOMKills() (map[uint64]bpf.OOMKills, error)
	Network() (map[uint64]bpf.Network, error)
	Security() (map[uint64]bpf.Security, error)
	OverflowsCounted() bool
	Forget(ids ...uint64)
	Programs() []bpf.ProgramStats
	Maps() []bpf.MapStats
}

// Reporter tells what others say a container uses, from memory.
type Reporter interface {
	Usage(reported.Key) (reported.Usage, bool)
}

// Emulation is a Reporter that lives on the sampler's own readings.
type Emulation interface {
	Reporter
	Observe(key reported.Key, at time.Time, cumulative time.Duration)
	Forget(reported.Key)
}

// Clock tells the time. Elapsed is monotonic from any fixed origin and is what
// windows are measured with; Now may step.
type Clock interface {
	Now() time.Time
	Elapsed() time.Duration
}

// The readers, as they are named in Snapshot.Errors and in logs.
const (
	readerCPU      = "cpu.stat"
	readerLimit    = "cpu.max"
	readerCPUs     = "cpuset"
	readerSyscalls = "bpf_syscalls"
	readerThrottle = "bpf_throttle"
	readerRunqueue = "bpf_runqueue"
	readerDemand   = "bpf_demand"
)

const (
	// slow is how many samples pass between readings of what seldom changes: CPUs
	// that may be used, probes' cost, the occupancy of maps.
	slow = 10
	// idleEvery is how many samples pass between readings of all files of a cgroup that
	// uses no CPU; half of a node's are such, the pods' sandboxes.
	idleEvery = 5
	// newborn is how long a cgroup is read in full whatever it does: it is made first and
	// given its limits then.
	newborn = 10 * time.Second
	// reportLag is how far back, beyond the trailing window, a reporter's window may
	// reach: kubelet's figures are up to a minute old when its housekeeping is stretched.
	reportLag = time.Minute
	// nameGrace is how long a container is held back until the API server has told
	// its name. After that it goes by its path.
	nameGrace = 30 * time.Second
	// tolerance for the ends of a reporter's window against the ends of our trail.
	tolerance = 100 * time.Millisecond
	// step is the smallest jump of the wall clock against the monotonic one that
	// makes earlier reports' time stamps useless.
	step = 50 * time.Millisecond
)

// Config is what a Sampler is made of.
type Config struct {
	Tree   Tree
	Tracer Tracer     // nil: no instruments
	Pods   pods.Index // nil: no Kubernetes
	// Reporters by preference.
	Reporters []Reporter
	// Emulation is fed with every reading; nil: none. It is asked after Reporters.
	Emulation Emulation

	// WhatIf is how throttling at other limits is predicted; nil: it is not.
	WhatIf *whatif.Config
	// Births is asked what became of births; nil: they are not followed.
	Births func() *Births
	// Allowed tells which security events are expected of a pod; nil: none.
	Allowed func(namespace string, labels map[string]string) [bpf.SecurityEvents]bool
	// Memory and Pressure are whether those files are read.
	Memory, Pressure bool

	Window   time.Duration // trailing window of ratios, default 60 s
	Interval time.Duration // between samples, default 1 s
	Clock    Clock         // default the system's
	Log      *slog.Logger  // default slog.Default()
}

// Sampler holds the last samples of every cgroup. Snapshot may be called by
// anyone at any time; Sample and Run by one goroutine.
type Sampler struct {
	Config
	last atomic.Pointer[Snapshot]

	since   time.Time
	started time.Duration
	ticks   uint64
	groups  map[cgroup.ID]*state
	errors  map[string]uint64
	failing map[string]bool // instruments whose last read failed

	wall, elapsed, stepped time.Duration // see watchClock

	syscalls, durations, waits *totals
	predictions                Predictions
	memory                     memory
	network                    network
	security                   security

	told     []reported.Usage
	uncalled []uint64     // of who made no system call
	probes   []bpf.Status // of this sample
	programs []bpf.ProgramStats
	maps     []bpf.MapStats
}

// state is what is remembered of one cgroup.
type state struct {
	history
	out Container

	durations figure[bpf.Histogram]
	waits     figure[bpf.RunqueueWait]
	reclaims  figure[bpf.ReclaimStalls]
	network   figure[Network]
	security  figure[Security]

	model   *whatif.Model // nil without a limit
	named   bool
	sampled bool
	failing map[string]bool
}

// New returns a Sampler that has sampled nothing yet.
func New(cfg Config) *Sampler {
	if cfg.Window <= 0 {
		cfg.Window = time.Minute
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{time.Now()}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Sampler{
		Config: cfg, since: cfg.Clock.Now(), started: cfg.Clock.Elapsed(), stepped: -1 << 62,
		groups: map[cgroup.ID]*state{}, failing: map[string]bool{},
		errors:   map[string]uint64{readerCPU: 0, readerLimit: 0, readerCPUs: 0},
		syscalls: newTotals(), durations: newTotals(), waits: newTotals(), memory: newMemory(), network: network{groups: newTotals()}, security: newSecurity(),
	}
	if cfg.Memory {
		s.errors[readerMemory], s.errors[readerEvents] = 0, 0
	}
	if cfg.Pressure {
		s.errors[readerPressure] = 0
	}
	if cfg.Tracer != nil {
		s.uncalled = make([]uint64, len(cfg.Tracer.SyscallNames()))
		for _, r := range []string{readerSyscalls, readerThrottle, readerRunqueue, readerDemand, readerReclaim, readerOOM, readerNetwork, readerSecurity} {
			s.errors[r] = 0
		}
	}
	return s
}

// Snapshot is the last sample, nil before the first.
func (s *Sampler) Snapshot() *Snapshot { return s.last.Load() }

// Run samples at once and then each interval until ctx ends. each, when not nil,
// is called with every Snapshot and must not block. A sample that takes longer
// than the interval delays the next one; none are made up for.
func (s *Sampler) Run(ctx context.Context, each func(*Snapshot)) {
	ticker := time.NewTicker(s.Interval)
	defer ticker.Stop()
	for {
		snap := s.Sample()
		if each != nil {
			each(snap)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Sample reads everything once and publishes what it found.
func (s *Sampler) Sample() *Snapshot {
	now, elapsed := s.Clock.Now(), s.Clock.Elapsed()
	s.watchClock(now, elapsed)
	if s.Tracer != nil {
		s.probes = s.Tracer.Status()
	}

	groups := s.Tree.Groups()
	s.forgetGone(groups, elapsed)
	unowned := s.readInstruments()

	snap := &Snapshot{At: now, Window: s.Window, Since: s.since, Unowned: unowned}
	shown := make([]*Container, 0, len(groups))
	limited := map[string]bool{} // pods, by the UID in the path, with a limited container
	for _, g := range groups {
		st := s.groups[g.ID]
		if st == nil {
			st = &state{failing: map[string]bool{}}
			s.groups[g.ID] = st
		}
		st.out.Group = g
		if g.Gone.IsZero() {
			if idle := s.read(st, now, elapsed); !idle {
				s.readMemory(st, now)
			}
		}
		s.join(st)
		if _, ok := st.out.Cores(); ok && g.Kind == cgroup.KindContainer {
			limited[g.PodUID] = true
		}
		if s.name(st, now) {
			s.report(st, now, elapsed)
			s.allowSecurity(&st.out)
			shown = append(shown, &st.out)
		}
	}
	kills := s.sumKills(shown, elapsed)
	shown = unique(ownLimits(shown, limited))
	snap.Containers = make([]Container, len(shown))
	for i, c := range shown {
		snap.Containers[i] = *c
		if sum, ok := kills[c.key()]; ok {
			snap.Containers[i].Memory.OOM = shared(c.Memory.OOM, sum)
		}
	}

	if s.Tracer != nil {
		if s.ticks%slow == 0 {
			s.programs, s.maps = s.Tracer.Programs(), s.Tracer.Maps()
		}
		snap.Probes, snap.Programs, snap.Maps = s.probes, s.programs, s.maps
		snap.SyscallNames = s.Tracer.SyscallNames()
		snap.NodeNetwork = s.nodeNetwork()
	}
	if s.Births != nil {
		snap.Births = s.Births()
	}
	if s.WhatIf != nil {
		predictions := s.predictions
		snap.Predictions = &predictions
	}
	stats := s.Tree.Stats()
	snap.Tree = &stats
	snap.Errors = make(map[string]uint64, len(s.errors))
	for reader, n := range s.errors {
		snap.Errors[reader] = n
	}
	s.ticks++
	snap.Took = s.Clock.Elapsed() - elapsed
	s.last.Store(snap)
	return snap
}

// watchClock notices when the wall clock was stepped: reports from before then
// can't be placed on the monotonic clock.
func (s *Sampler) watchClock(now time.Time, elapsed time.Duration) {
	wall := time.Duration(now.UnixNano())
	if s.ticks > 0 {
		jump := (wall - s.wall) - (elapsed - s.elapsed)
		if jump.Abs() > step {
			s.stepped = elapsed
			s.Log.Info("The wall clock was stepped; reported figures from before are not compared with the kernel's.", "by", jump)
		}
	}
	s.wall, s.elapsed = wall, elapsed
}

// forgetGone drops groups that the tree no longer lists, in the kernel's maps too.
func (s *Sampler) forgetGone(groups []cgroup.Group, elapsed time.Duration) {
	listed := make(map[cgroup.ID]bool, len(groups))
	for _, g := range groups {
		listed[g.ID] = true
	}
	for id, st := range s.groups {
		if listed[id] {
			continue
		}
		if s.Tracer != nil {
			forget := []uint64{uint64(id)}
			for _, t := range []*totals{s.syscalls, s.durations, s.waits, s.memory.reclaims, s.memory.kills, s.network.groups, s.security.groups} {
				forget = append(forget, t.drop(id)...)
			}
			slices.Sort(forget)
			s.Tracer.Forget(slices.Compact(forget)...)
		}
		if s.Emulation != nil {
			s.Emulation.Forget(st.out.key())
		}
		s.leaveKills(st, elapsed)
		delete(s.security.last, id)
		delete(s.groups, id)
	}
}

// fold adds one reading of a map to its totals.
type fold func(*totals, iter.Seq2[uint64, []uint64])

// readInstruments reads every map once. It returns how many cgroups in them
// belong to no group.
func (s *Sampler) readInstruments() (unowned int) {
	if s.Tracer == nil {
		return 0
	}
	var forget []uint64
	fold := func(t *totals, raw iter.Seq2[uint64, []uint64]) {
		gone, n := t.add(raw, s.Tree.Owner)
		forget = append(forget, gone...)
		unowned = max(unowned, n)
	}
	if raw, err := s.Tracer.Syscalls(); s.readable(readerSyscalls, err) {
		fold(s.syscalls, maps.All(raw))
	}
	if raw, err := s.Tracer.ThrottleDurations(); s.readable(readerThrottle, err) {
		fold(s.durations, flat(raw, flattenHistogram))
	}
	if raw, err := s.Tracer.RunqueueWait(); s.readable(readerRunqueue, err) {
		fold(s.waits, flat(raw, flattenWait))
	}
	s.readMemoryInstruments(fold)
	s.readNetworkInstrument(fold)
	s.readSecurityInstrument(fold)
	if periods, err := s.Tracer.Demand(); s.readable(readerDemand, err) {
		for id, ps := range periods {
			// A nested cgroup's own quota denies only itself, not its owner.
			if st := s.groups[cgroup.ID(id)]; st != nil {
				st.out.Denied = withPeriods(st.out.Denied, ps)
				st.observe(ps)
			}
		}
	}
	if len(forget) > 0 {
		slices.Sort(forget)
		s.Tracer.Forget(slices.Compact(forget)...)
	}
	return unowned
}

// withPeriods returns h with the denied time of the throttled periods among ps.
// Snapshots share the old one, so it is copied.
func withPeriods(h *bpf.Histogram, ps []bpf.Period) *bpf.Histogram {
	var out bpf.Histogram
	if h != nil {
		out = *h
	}
	for _, p := range ps {
		if p.Throttled {
			observe(&out, p.Denied)
		}
	}
	return &out
}

// readable tells whether an instrument gave figures. A probe that is not attached
// is told by its status, not as an error.
func (s *Sampler) readable(reader string, err error) bool {
	if err == nil {
		if s.failing[reader] {
			s.failing[reader] = false
			s.Log.Info("Reading the kernel's instrument works again.", "reader", reader)
		}
		return true
	}
	if errors.Is(err, bpf.ErrNotAttached) {
		return false
	}
	s.errors[reader]++
	if !s.failing[reader] {
		s.failing[reader] = true
		s.Log.Error("Can't read the kernel's instrument; its metrics stand still until it works again.", "reader", reader, "err", err)
	}
	return false
}

// read takes one sample of a living group, and tells whether it is idle: what has used
// no CPU since the last sample has changed nothing else by itself, so the rest of it is
// read at each idleEvery-th sample only. An error costs this group this figure.
func (s *Sampler) read(st *state, now time.Time, elapsed time.Duration) (idle bool) {
	g := st.out.Group
	cpu, err := s.Tree.CPU(g)
	if s.failed(st, readerCPU, err) {
		if !errors.Is(err, cgroup.ErrGone) { // then the tree is about to tell, and the last figures stay
			st.out.CPU, st.out.Throttling, st.out.Gap = nil, nil, nil
		}
		return false
	}
	idle = st.out.CPU != nil && cpu.HasUsage && cpu.Usage == st.out.CPU.Usage &&
		now.Sub(g.Seen) > newborn && (s.ticks+uint64(g.ID))%idleEvery != 0
	st.out.CPU = &cpu
	if !idle {
		if limit, err := s.Tree.Limit(g); !s.failed(st, readerLimit, err) {
			st.out.Limit = shared(st.out.Limit, limit)
		} else if !errors.Is(err, cgroup.ErrGone) {
			st.out.Limit = nil
		}
	}
	if st.out.CPUs == 0 || s.ticks%slow == 0 {
		if cpus, err := s.Tree.CPUs(g); !s.failed(st, readerCPUs, err) {
			st.out.CPUs = cpus
		}
	}

	p := gap.Point{At: elapsed + cpu.At.Sub(now), Used: cpu.Usage, Throttled: cpu.ThrottledTime}
	waited := s.noted(bpf.ProbeRunqueue, s.waits.owned[g.ID])
	if waited {
		w := wait(s.waits.owned[g.ID])
		p.Waited, p.WaitedThrottled = w.Sum, w.Throttled
	}
	st.measures(cpu.HasUsage, cpu.HasBandwidth, waited)
	b := bandwidth{cpu.Periods, cpu.Throttled}
	keep := s.Window + reportLag
	if born, ok := s.birth(st, p, b, now, elapsed); ok {
		st.add(gap.Point{At: born}, bandwidth{}, keep)
	}
	st.add(p, b, keep)
	st.sampled = true
	s.predict(st, now)
	return idle
}

// birth is when a group that appeared while we watched began to count, from zero.
// Without it the first second of a container would be lost to its windows. False
// when its counters show a life before it was seen.
func (s *Sampler) birth(st *state, first gap.Point, b bandwidth, now time.Time, elapsed time.Duration) (time.Duration, bool) {
	if st.sampled || s.ticks == 0 {
		return 0, false
	}
	born := elapsed + st.out.Group.Seen.Sub(now)
	age := first.At - born
	if born <= s.started || age <= 0 || age > 2*s.Interval+time.Second {
		return 0, false
	}
	if st.out.CPUs == 0 || first.Used > age*time.Duration(st.out.CPUs) {
		return 0, false
	}
	if st.out.Limit != nil && time.Duration(b.periods)*st.out.Limit.Period > age+st.out.Limit.Period {
		return 0, false
	}
	return born, true
}

// failed logs and counts an error of one group once per series of failures.
func (s *Sampler) failed(st *state, reader string, err error) bool {
	if err == nil {
		st.failing[reader] = false
		return false
	}
	if !errors.Is(err, cgroup.ErrGone) {
		s.errors[reader]++
		if !st.failing[reader] {
			st.failing[reader] = true
			s.Log.Warn("Can't read a cgroup; what this file tells is missing until it works again.",
				"reader", reader, "cgroup", st.out.Group.Path, "err", err)
		}
	}
	return true
}

// attached tells whether a probe delivers: then a cgroup without an entry in its
// map has counted nothing, which is a measurement.
func (s *Sampler) attached(p bpf.Probe) bool {
	for _, st := range s.probes {
		if st.Probe == p {
			return st.Attached
		}
	}
	return false
}

// noted tells whether a group's total in a probe's map is what happened. Without an
// entry it is, unless the map had no room for somebody, who may be this group.
func (s *Sampler) noted(p bpf.Probe, total []uint64) bool {
	return s.attached(p) && (total != nil || !slices.ContainsFunc(s.maps, func(m bpf.MapStats) bool { return m.Probe == p && m.Lost > 0 }))
}

// join adds the instruments' totals. They also grow after the group is gone: its
// last second is in the kernel's maps, not in its files.
func (s *Sampler) join(st *state) {
	id := st.out.Group.ID
	st.out.Syscalls, st.out.Durations, st.out.Runqueue = nil, nil, nil
	if total := s.syscalls.owned[id]; s.noted(bpf.ProbeSyscalls, total) {
		if total == nil {
			total = s.uncalled
		}
		st.out.Syscalls = total
	}
	if total := s.durations.owned[id]; s.noted(bpf.ProbeThrottle, total) {
		st.out.Durations = st.durations.from(total, histogram)
	}
	if total := s.waits.owned[id]; s.noted(bpf.ProbeRunqueue, total) {
		st.out.Runqueue = st.waits.from(total, wait)
	}
	s.joinMemory(st)
	s.joinNetwork(st)
	s.joinSecurity(st)
	if _, limited := st.out.Cores(); limited && st.out.Denied == nil && s.attached(bpf.ProbeDemand) {
		st.out.Denied = &bpf.Histogram{}
	}
}

// name finds the names of a group and what was asked for it, and tells whether it is
// to be shown.
func (s *Sampler) name(st *state, now time.Time) bool {
	out := &st.out
	g := out.Group
	if s.Pods == nil || (g.PodUID == "" && g.ContainerID == "") {
		out.Container, out.PodUID = pathName(g), g.PodUID
		return true
	}
	if g.Kind == cgroup.KindPod {
		if p, ok := s.Pods.ByPodUID(g.PodUID); ok {
			out.Namespace, out.Pod, out.PodUID, out.Labels, st.named = p.Namespace, p.Pod, p.PodUID, p.Labels, true
			out.Request = p.CPURequestCores
		}
		return st.named
	}
	if c, ok := s.Pods.ByContainerID(g.ContainerID); ok {
		if !st.named && out.Container != "" && s.Emulation != nil {
			s.Emulation.Forget(st.out.key()) // it went by its path until now
		}
		out.Namespace, out.Pod, out.Container, out.PodUID, st.named = c.Namespace, c.Pod, c.Container, c.PodUID, true
		out.Request = c.CPURequestCores
		out.Labels = c.Labels
	}
	if st.named {
		return true
	}
	if _, ok := s.Pods.ByPodUID(g.PodUID); ok {
		return false // the pod's sandbox, or a container that the API does not tell of yet
	}
	out.Container, out.PodUID = pathName(g), g.PodUID
	return g.PodUID == "" || now.Sub(g.Seen) > nameGrace
}

// pathName is a label's value, which must be UTF-8; a directory's name need not be.
func pathName(g cgroup.Group) string { return strings.ToValidUTF8(g.Path, "\uFFFD") }

func (c *Container) key() reported.Key {
	return reported.Key{PodUID: c.PodUID, Namespace: c.Namespace, Pod: c.Pod, Container: c.Container}
}

// report adds what is reported and takes the gap apart.
func (s *Sampler) report(st *state, now time.Time, elapsed time.Duration) {
	if !st.out.Group.Gone.IsZero() || len(st.Points) == 0 {
		return // the last figures stay
	}
	key := st.out.key()
	told := s.told[:0]
	for _, r := range s.Reporters {
		if u, ok := r.Usage(key); ok {
			told = append(told, u)
		}
	}
	if s.Emulation != nil {
		if st.out.CPU != nil && st.out.CPU.HasUsage {
			s.Emulation.Observe(key, st.out.CPU.At, st.out.CPU.Usage)
		}
		if u, ok := s.Emulation.Usage(key); ok {
			told = append(told, u)
		}
	}
	if s.told = told; !slices.Equal(told, st.out.Reported) {
		st.out.Reported = append([]reported.Usage(nil), told...) // Snapshots share the old
	}

	if st.out.CPU == nil {
		return // not read: what was measured before is not of now
	}
	st.out.Throttling = st.ratio(s.Window, s.Interval)
	st.out.Gap = nil
	if st.out.CPUs == 0 {
		return // no bound for what is contended
	}
	cpus := float64(st.out.CPUs)
	first, last := st.Points[0].At, st.Points[len(st.Points)-1].At
	for _, u := range st.out.Reported {
		to := elapsed + u.At.Sub(now)
		w := gap.Window{From: near(to-u.Window, first), To: near(to, last)}
		if w.From < s.stepped {
			continue
		}
		if parts, ok := st.Parts(w, cpus, &u.Cores); ok {
			st.out.Gap = &parts
			return
		}
	}
	from, _ := st.trailing(s.Window, s.Interval)
	w := gap.Window{From: from.At, To: last}
	if parts, ok := st.Parts(w, cpus, nil); ok {
		st.out.Gap = &parts
	}
}

// near is end when t is within tolerance of it: a report made of our own readings
// ends a few microseconds beside them.
func near(t, end time.Duration) time.Duration {
	if (t - end).Abs() <= tolerance {
		return end
	}
	return t
}

// ownLimits drops the pods' own cgroups that merely add up their containers, also
// those that have no name yet: a pod's is known before its containers' are. One
// stays where its limit is the only one (pod-level resources, KEP-2837): there the
// kernel throttles the pod and not the container. Whether it is can be told when a
// container is there: on a slow node the kernel throttles the making of the sandbox,
// seconds before the container has its cgroup and its limit.
func ownLimits(cs []*Container, limited map[string]bool) []*Container {
	named := map[string]bool{}
	for _, c := range cs {
		if c.Group.Kind == cgroup.KindContainer && c.Pod != "" {
			named[c.Group.PodUID] = true
		}
	}
	return slices.DeleteFunc(cs, func(c *Container) bool {
		if c.Group.Kind != cgroup.KindPod || c.Pod == "" {
			return false
		}
		_, ok := c.Cores()
		return !ok || limited[c.Group.PodUID] || !named[c.Group.PodUID]
	})
}

// unique sorts by names and keeps one container for each: a restarted container's
// new cgroup, not the old one's tombstone.
func unique(cs []*Container) []*Container {
	slices.SortStableFunc(cs, func(a, b *Container) int {
		return cmp.Or(compareNames(a, b), -compareLife(a, b))
	})
	return slices.CompactFunc(cs, func(a, b *Container) bool { return compareNames(a, b) == 0 })
}

func compareNames(a, b *Container) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
}

// compareLife puts the dead before the living and the old before the young.
func compareLife(a, b *Container) int {
	alive := func(c *Container) int {
		if c.Group.Gone.IsZero() {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(alive(a), alive(b)), a.Group.Seen.Compare(b.Group.Seen))
}

// shared is the last figure where it has not changed: most have not, and each made anew
// is to be collected.
func shared[T comparable](last *T, now T) *T {
	if last != nil && *last == now {
		return last
	}
	fresh := now // which alone escapes
	return &fresh
}

type systemClock struct{ origin time.Time }

func (systemClock) Now() time.Time           { return time.Now() }
func (c systemClock) Elapsed() time.Duration { return time.Since(c.origin) }
