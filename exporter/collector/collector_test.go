package collector

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

var (
	at    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	since = at.Add(-time.Hour)
)

func ptr[T any](v T) *T { return &v }

// full is a container of which everything is measured.
func full(syscalls int) sampler.Container {
	h := bpf.Histogram{Sum: 42 * time.Second}
	h.Buckets[0], h.Buckets[17], h.Buckets[20], h.Buckets[27] = 1, 400, 3, 2
	c := sampler.Container{
		Namespace: "shop", Pod: "cart-7d9f", Container: "cart", PodUID: "7c0e5f3a-0000-4000-8000-000000000001",
		Group: cgroup.Group{
			ID: 42, Path: "/kubepods.slice/cri-containerd-" + strings.Repeat("ab", 32) + ".scope",
			Identity: cgroup.Identity{Kind: cgroup.KindContainer, ContainerID: strings.Repeat("ab", 32), QoS: cgroup.QoSBurstable},
		},
		CPU: &cgroup.CPUStat{
			Usage: 123456789 * time.Microsecond, HasUsage: true, HasBandwidth: true,
			Periods: 6000, Throttled: 5540, ThrottledTime: 700 * time.Second,
			HierarchicalThrottledTime: ptr(701 * time.Second),
		},
		Limit:      &cgroup.CPULimit{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond, Burst: 10 * time.Millisecond},
		CPUs:       4,
		Request:    ptr(0.25),
		Throttling: &sampler.Throttling{Window: time.Minute, Periods: 600, Throttled: 554},
		Durations:  &h,
		Runqueue:   &bpf.RunqueueWait{Histogram: h, Throttled: time.Second},
		Reported: []reported.Usage{
			{Source: reported.SourceKubelet, Cores: 0.24, At: at.Add(-9500 * time.Millisecond), Window: 15 * time.Second},
			{Source: reported.SourceMetrics, Cores: 0.23, At: at.Add(-25 * time.Second), Window: 15 * time.Second},
		},
		Gap: &gap.Parts{Used: ptr(0.25), Accounting: ptr(0.01), Averaging: ptr(0.2), Throttled: ptr(1.4), Contended: ptr(0.1), Demand: ptr(1.75)},
	}
	c.Reported[0].MemoryBytes = ptr(61e6)
	events := cgroup.MemoryEvents{Count: [cgroup.MemoryEventKinds]uint64{0, 20, 1, 1}, Told: [cgroup.MemoryEventKinds]bool{true, true, true, true}}
	group := events
	group.Count[cgroup.EventMax] = 22
	c.Memory = sampler.Memory{
		Stat:   &cgroup.MemoryStat{Usage: 70e6, WorkingSet: 60e6, Anon: 50e6, Limit: 100e6, Faults: 1000, Major: 10, Refaults: 5, HasRefaults: true},
		Counts: &cgroup.MemoryCounts{Group: group, Own: events},
		Pressure: &cgroup.Pressure{
			CPU:    cgroup.Stall{Some: 3 * time.Second, HasSome: true},
			Memory: cgroup.Stall{Some: 2 * time.Second, Full: time.Second, HasSome: true, HasFull: true},
			IO:     cgroup.Stall{HasSome: true, HasFull: true},
		},
		Reclaim: &bpf.ReclaimStalls{Memcg: h},
		OOM:     &bpf.OOMKills{Count: 1},
	}
	c.Network = &sampler.Network{HasOverflows: true, Network: bpf.Network{
		SegmentsSent: 10_000, SegmentsReceived: 9_000, Retransmits: 120, Connections: 40, AcceptOverflows: 7,
	}}
	c.Network.Drops[1] = 3
	c.Security = &sampler.Security{}
	c.WhatIf = &whatif.Result{Outcome: whatif.Predicted, Confidence: whatif.Medium, Periods: 1200, Recommended: 1.4}
	for _, m := range whatif.DefaultConfig().Multiples {
		c.WhatIf.At = append(c.WhatIf.At, whatif.Prediction{Multiple: m, Ratio: 0.25, Low: 0.125, High: 0.5, Outcome: whatif.Predicted})
	}
	for i := range syscalls {
		c.Syscalls = append(c.Syscalls, uint64(i*1000))
	}
	return c
}

func fixture() *sampler.Snapshot {
	names := []string{"read", "write", "other"}
	bare := sampler.Container{ // nothing but a limit and an idle cpu.stat
		Container: "/system.slice/cron.service", Group: cgroup.Group{Path: "/system.slice/cron.service", Identity: cgroup.Identity{Kind: cgroup.KindService}},
		CPU:        &cgroup.CPUStat{HasBandwidth: true},
		Limit:      &cgroup.CPULimit{Quota: 100 * time.Millisecond, Period: 100 * time.Millisecond},
		Throttling: &sampler.Throttling{Window: time.Minute},
	}
	unlimited := sampler.Container{
		Namespace: "shop", Pod: "web-0", Container: "web",
		Group: cgroup.Group{Path: "/kubepods.slice/web", Identity: cgroup.Identity{Kind: cgroup.KindContainer}},
		CPU:   &cgroup.CPUStat{Usage: time.Second, HasUsage: true, HasBandwidth: true}, Limit: &cgroup.CPULimit{Period: 100 * time.Millisecond},
		Runqueue: &bpf.RunqueueWait{},
		Security: &sampler.Security{
			Security: bpf.Security{Counts: [bpf.SecurityEvents]uint64{bpf.SecurityPtrace: 2, bpf.SecurityCorePattern: 1}},
			Allowed:  [bpf.SecurityEvents]bool{bpf.SecurityPtrace: true},
		},
		Network: &sampler.Network{Network: bpf.Network{Refused: 3, ResetsReceived: 2, ResetsSent: 1, Drops: [bpf.DropReasonCount]uint64{4, 0, 0, 5}}},
	}
	unread := sampler.Container{ // gone before its first sample
		Namespace: "shop", Pod: "job-1", Container: "job", Syscalls: []uint64{1, 2, 3},
		Group: cgroup.Group{Path: "/kubepods.slice/job", Identity: cgroup.Identity{Kind: cgroup.KindContainer}},
	}
	total := bpf.Histogram{}
	total.Observe(900 * time.Millisecond)
	total.Observe(1100 * time.Millisecond)
	births := &sampler.Births{InFlight: 1, Complete: 1, Failed: 1, Durations: map[string]bpf.Histogram{"total": total, "network": {}}}
	births.Syscalls.Observe(14918)
	births.Syscalls.Observe(512)
	births.Setup.Observe(8465)
	return &sampler.Snapshot{
		At: at, Took: 2500 * time.Microsecond, Window: time.Minute, Since: since,
		Containers: []sampler.Container{bare, full(3), unlimited, unread}, SyscallNames: names, Births: births,
		Probes: []bpf.Status{
			{Probe: bpf.ProbeThrottle, Attached: true, Mode: "fentry"}, {Probe: bpf.ProbeSyscalls, Attached: true},
			{Probe: bpf.ProbeRunqueue, Reason: "no", Lost: "waits"},
		},
		Programs: []bpf.ProgramStats{{Probe: bpf.ProbeSyscalls, Program: "sys_enter", Runs: 1000, RunTime: time.Millisecond, Missed: 7}, {Probe: bpf.ProbeThrottle, Program: "unthrottle_enter"}},
		Maps: []bpf.MapStats{
			{Probe: bpf.ProbeSyscalls, Map: "syscalls", Entries: 3, Capacity: 2048, Lost: 1},
			{Probe: bpf.ProbeSecurity, Map: "securities", Entries: 3, Capacity: 2048, Lost: 2}, {Probe: bpf.ProbeSecurity, Map: "evidences", Entries: 1, Capacity: 4096},
		},
		Unowned: 5,
		NodeNetwork: &sampler.Network{HasOverflows: true, Network: bpf.Network{
			SegmentsSent: 50, ResetsSent: 2, Drops: [bpf.DropReasonCount]uint64{1: 11},
		}},
		Tree:   &cgroup.Stats{Groups: 3, Tombstones: 1, Walks: 2},
		Errors: map[string]uint64{"cpu.stat": 1, "cpu.max": 0},
	}
}

// set is a Set over one Snapshot whose scrape is reproducible.
func set(snap *sampler.Snapshot, o Options) *Set {
	return New(All(o), func() *sampler.Snapshot { return snap }, func() time.Time { return at.Add(time.Second) }, slog.New(slog.DiscardHandler))
}

// gather checks what the client library checks of what is gathered from several, sorts
// it, and leaves out what differs from run to run.
func gather(t *testing.T, s *Set) []*dto.MetricFamily {
	t.Helper()
	families, err := prometheus.Gatherers{s}.Gather()
	require.NoError(t, err)
	var stable []*dto.MetricFamily
	for _, f := range families {
		if f.GetName() != "kernel_gossip_exporter_collector_duration_seconds" {
			stable = append(stable, f)
		}
	}
	return stable
}

func TestGoldenExposition(t *testing.T) {
	for name, o := range map[string]Options{"native": {}, "classic": {ClassicHistograms: true}} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			for _, f := range gather(t, set(fixture(), o)) {
				_, err := expfmt.MetricFamilyToText(&got, f)
				require.NoError(t, err)
			}
			golden := "testdata/" + name + ".prom"
			if *updateGolden {
				require.NoError(t, os.WriteFile(golden, got.Bytes(), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), got.String(), "after an intended change: go test ./exporter/collector -update")
		})
	}
}

func TestNativeHistograms(t *testing.T) {
	for _, f := range gather(t, set(fixture(), Options{})) {
		if f.GetName() != "kernel_gossip_cpu_throttle_duration_seconds" {
			continue
		}
		var h *dto.Histogram
		for _, m := range f.Metric {
			if m.Histogram.GetSampleCount() > 0 {
				h = m.Histogram
			}
		}
		require.NotNil(t, h)
		assert.Equal(t, int32(0), h.GetSchema())
		assert.Equal(t, uint64(406), h.GetSampleCount())
		assert.Equal(t, 42.0, h.GetSampleSum())
		assert.Equal(t, uint64(1), h.GetZeroCount(), "up to the smallest bound")
		assert.Equal(t, since, h.GetCreatedTimestamp().AsTime())
		// Bucket i of schema 0 ends at 2^i: 400 in (62.5, 125] ms is -3; 3 in (0.5, 1] s is 0; 2 above is 7.
		counts := map[int32]int64{}
		index, count, k := int32(0), int64(0), 0
		for _, span := range h.PositiveSpan {
			index += span.GetOffset()
			for range span.GetLength() {
				count += h.PositiveDelta[k]
				if count > 0 {
					counts[index] = count
				}
				index++
				k++
			}
		}
		assert.Equal(t, map[int32]int64{-3: 400, 0: 3, 7: 2}, counts)
		return
	}
	t.Fatal("no histogram of throttle durations")
}

func TestFallbackWhereDurationsCannotBeMeasured(t *testing.T) {
	snap := fixture()
	snap.Probes[0].Attached = false
	h := bpf.Histogram{Sum: time.Second}
	h.Buckets[17] = 4
	snap.Containers[1].Durations, snap.Containers[1].Denied = nil, &h
	names := map[string]int{}
	for _, f := range gather(t, set(snap, Options{})) {
		names[f.GetName()] = len(f.Metric)
	}
	assert.NotContains(t, names, "kernel_gossip_cpu_throttle_duration_seconds", "absent, not 0")
	assert.Equal(t, 1, names["kernel_gossip_cpu_denied_period_seconds"])
}

func TestLint(t *testing.T) {
	for _, o := range []Options{{}, {ClassicHistograms: true}} {
		problems, err := testutil.GatherAndLint(set(fixture(), o))
		require.NoError(t, err)
		assert.Empty(t, problems)
	}
}

// The budget: at defaults at most 67 series per container, as the text format
// counts them, in which a native histogram shows as three. Six of them are the
// network's: a reason of drops, a kind of resets, or a security event adds one when it
// first occurs.
func TestSeriesPerContainer(t *testing.T) {
	const budget, defaultSyscalls, other = 67, 16, 1
	snap := fixture()
	snap.Containers = []sampler.Container{full(defaultSyscalls + other)}
	snap.SyscallNames = nil
	for i := range defaultSyscalls + other {
		snap.SyscallNames = append(snap.SyscallNames, fmt.Sprint("call", i))
	}
	h := bpf.Histogram{}
	snap.Containers[0].Denied = &h
	snap.Containers[0].Reported = snap.Containers[0].Reported[:1] // the metrics API is asked on request
	app := kingpin.New("x", "")
	defaults := Flags(app)
	_, err := app.Parse(nil)
	require.NoError(t, err)
	var text bytes.Buffer
	for _, f := range gather(t, New(defaults, func() *sampler.Snapshot { return snap }, func() time.Time { return at }, slog.New(slog.DiscardHandler))) {
		_, err := expfmt.MetricFamilyToText(&text, f)
		require.NoError(t, err)
	}
	series := strings.Count(text.String(), `container="cart"`)
	t.Logf("%d series per container", series)
	assert.LessOrEqual(t, series, budget)
	assert.Greater(t, series, 30, "the fixture has everything")
}

func TestStaleAndMissingSnapshotsFail(t *testing.T) {
	for name, snapshot := range map[string]*sampler.Snapshot{
		"nothing sampled yet": nil,
		"the sampler hangs":   {At: at.Add(-time.Minute), Containers: fixture().Containers},
	} {
		t.Run(name, func(t *testing.T) {
			families := gather(t, set(snapshot, Options{}))
			require.Len(t, families, 1)
			require.Equal(t, "kernel_gossip_exporter_collector_success", families[0].GetName())
			for _, m := range families[0].Metric {
				assert.Zero(t, m.Gauge.GetValue(), m)
			}
		})
	}
}

// A metric that can't be made costs itself and its collector's success.
func TestOneBadMetricCostsOnlyItself(t *testing.T) {
	snap := fixture()
	snap.Containers[1].Container = "not\xffutf8"
	found := map[string]float64{}
	for _, f := range gather(t, set(snap, Options{})) {
		for _, m := range f.Metric {
			if f.GetName() == "kernel_gossip_exporter_collector_success" {
				found[m.Label[0].GetValue()] = m.Gauge.GetValue()
			}
		}
	}
	assert.Equal(t, 0.0, found["cpu"])
	assert.Equal(t, 1.0, found["exporter"])
}

func TestFlags(t *testing.T) {
	app := kingpin.New("test", "")
	selection := Flags(app)
	_, err := app.Parse([]string{"--no-collector.syscalls", "--no-collector.throttle", "--no-collector.memory", "--no-collector.network", "--no-collector.birth", "--no-collector.security"})
	require.NoError(t, err)
	assert.Equal(t, []bpf.Probe{bpf.ProbeRunqueue}, selection.Probes(), "a collector that is off costs no probe")
	families := gather(t, New(selection, fixture, func() time.Time { return at }, slog.New(slog.DiscardHandler)))
	for _, f := range families {
		assert.NotContains(t, f.GetName(), "syscalls")
	}
}

// Each --no-collector.X takes away what X exposes, its probes where no other needs
// them, and nothing else.
func TestEveryCollectorCanBeTurnedOff(t *testing.T) {
	names := func(args ...string) (map[string]bool, *Selection) {
		app := kingpin.New("test", "")
		selection := Flags(app)
		_, err := app.Parse(args)
		require.NoError(t, err)
		exposed := map[string]bool{}
		for _, f := range gather(t, New(selection, fixture, func() time.Time { return at }, slog.New(slog.DiscardHandler))) {
			exposed[f.GetName()] = true
		}
		return exposed, selection
	}
	all, on := names("--collector.whatif") // off by default
	for _, r := range registrations() {
		t.Run(r.name, func(t *testing.T) {
			own := map[string]bool{}
			for _, f := range r.make().Families() {
				own[f.name] = true
			}
			args := []string{"--no-collector." + r.name}
			if r.name != "whatif" {
				args = append(args, "--collector.whatif")
			}
			got, off := names(args...)
			gone := 0
			for name := range all {
				assert.Equal(t, !own[name], got[name], name)
				if own[name] {
					gone++
				}
			}
			assert.Positive(t, gone, "it exposes something while it is on")
			needed := map[bpf.Probe]bool{}
			for _, other := range registrations() {
				for _, p := range other.probes {
					needed[p] = needed[p] || other.name != r.name
				}
			}
			for _, p := range on.Probes() {
				assert.Equal(t, needed[p], slices.Contains(off.Probes(), p), p)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Describe() {
		assert.False(t, seen[m.Name], "%s twice", m.Name)
		seen[m.Name] = true
		assert.True(t, strings.HasPrefix(m.Name, "kernel_gossip_"))
		assert.True(t, strings.HasSuffix(m.Help, "."), "%s: help is a sentence", m.Name)
		if strings.Contains(m.Name, "_seconds") {
			assert.Contains(t, m.Help, "seconds", "%s: help tells the unit", m.Name)
		}
	}
	for _, f := range gather(t, set(fixture(), Options{})) {
		assert.True(t, seen[f.GetName()], "%s is exposed and not described", f.GetName())
	}
}

// What is gone still counts for something: a scrape that comes late hears of all that it
// did, and nothing of what it would be doing now.
func TestTheGoneHaveNoGauges(t *testing.T) {
	snap := fixture()
	snap.Containers = []sampler.Container{full(3)}
	types := func() map[string]dto.MetricType {
		found := map[string]dto.MetricType{}
		for _, f := range gather(t, set(snap, Options{})) {
			for _, l := range f.Metric[0].Label {
				if l.GetName() == "container" {
					found[f.GetName()] = f.GetType()
				}
			}
		}
		return found
	}
	alive := types()
	snap.Containers[0].Group.Gone = at
	gone := types()
	for name, kind := range alive {
		if kind != dto.MetricType_GAUGE || name == "kernel_gossip_container_info" {
			assert.Contains(t, gone, name)
			delete(gone, name)
		}
	}
	assert.Empty(t, gone)
}
