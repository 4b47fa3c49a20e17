package bpf

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/features"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// These tests load the real objects into the running kernel. Where it refuses a
// probe they hold it to saying why; anything else must agree with the kernel's files.

func open(t testing.TB, cfg Config) *Tracer {
	t.Helper()
	needRoot(t)
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	tracer := Open(t.Context(), cfg)
	t.Cleanup(func() { assert.NoError(t, tracer.Close()) })
	return tracer
}

// attached is false where the probe is rightly not attached. A probe that needs no
// more than tracepoints has no excuse where there is BTF.
func attached(t testing.TB, tracer *Tracer, p Probe) bool {
	t.Helper()
	for _, s := range tracer.Status() {
		if s.Probe != p {
			continue
		}
		if s.Attached {
			assert.Empty(t, s.Reason)
			return true
		}
		assert.NotEmpty(t, s.Lost)
		if _, err := os.Stat(btfPath); err != nil {
			require.Contains(t, s.Reason, btfPath)
		} else {
			require.Equal(t, ProbeThrottle, p, "not attached: %s", s.Reason)
			require.Contains(t, s.Reason, "fentry programs are refused by this kernel (EPERM)")
		}
		report(tracer, p, "attach", math.NaN())
		return false
	}
	require.Fail(t, "not asked for", "%s", p)
	return false
}

// report prints what the kernel matrix collects. agreement is in percent.
func report(tracer *Tracer, p Probe, check string, agreement float64) {
	for _, s := range tracer.Status() {
		if s.Probe != p {
			continue
		}
		percent := ""
		if !math.IsNaN(agreement) {
			percent = fmt.Sprintf("%.3f%%", agreement)
		}
		fmt.Printf("RESULT probe=%s attached=%t mode=%q agreement=%s reason=%q check=%q\n",
			p, s.Attached, s.Mode, percent, s.Reason, check)
	}
}

// agreement of a figure with the kernel's, in percent.
func agreement(ours, kernels time.Duration) float64 {
	if ours == kernels {
		return 100
	}
	return 100 * (1 - math.Abs(float64(ours-kernels))/math.Max(float64(ours), float64(kernels)))
}

func TestSyscallsAreCountedExactly(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSyscalls}, SyscallNames: []string{"read", "getppid", "futex"}})
	if !attached(t, tracer, ProbeSyscalls) {
		_, err := tracer.Syscalls()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	require.Equal(t, []string{"read", "getppid", "futex", OtherSyscalls}, tracer.SyscallNames())

	const neighbours = 8
	want := make(map[uint64]uint64)
	var all []*process
	for i := range neighbours + 1 {
		g := newGroup(t)
		calls := 1_000_000
		if i > 0 {
			calls = 300_000 + i
		}
		want[g.id] = uint64(calls)
		p := g.start(t)
		p.order(t, "call %d", calls)
		all = append(all, p)
	}
	for _, p := range all {
		p.answer(t)
	}
	counts, err := tracer.Syscalls()
	require.NoError(t, err)
	var made, counted, missed uint64
	for _, p := range tracer.Programs() {
		missed += p.Missed
		if !countsNothing(p.Program) {
			assert.GreaterOrEqual(t, p.Runs, uint64(1_000_000), p.Program)
			assert.NotZero(t, p.RunTime, p.Program)
		}
	}
	for id, n := range want {
		// A kprobe is skipped while a bpf system call of anybody is preempted on that CPU.
		assert.InDelta(t, n, counts[id][1], float64(missed), "getppid calls of cgroup %d", id)
		assert.LessOrEqual(t, counts[id][1], n, "getppid calls of cgroup %d", id)
		assert.NotZero(t, counts[id][3], "the runtime of cgroup %d makes other calls", id)
		made, counted = made+n, counted+counts[id][1]
	}
	if tracer.Status()[0].Mode != "kprobe" {
		assert.Zero(t, missed)
	}
	assert.NotContains(t, counts, uint64(1), "the root cgroup")
	for _, m := range tracer.Maps() {
		assert.Zero(t, m.Lost)
		assert.GreaterOrEqual(t, m.Entries, len(want))
	}
	report(tracer, ProbeSyscalls, "calls of 9 busy cgroups, calls made", agreement(time.Duration(counted), time.Duration(made)))
}

// Whichever way it is attached, the probe either counts a call or says that it missed
// one. Where the kernel preempts it there is much to miss.
func TestMissedSyscallsAreTold(t *testing.T) {
	needRoot(t)
	h := examine("/proc")
	if !h.btf {
		return
	}
	load, all := variants(ProbeSyscalls, h)
	for _, v := range all {
		t.Run(v.mode, func(t *testing.T) {
			slots, _ := newSlotTable([]string{"getppid"})
			p := &probe{status: Status{Probe: ProbeSyscalls, Attached: true, Mode: v.mode}}
			require.NoError(t, p.try(load, v, slots, DefaultMaxGroups, h))
			tracer := &Tracer{log: slog.New(slog.DiscardHandler), probes: []*probe{p}, slots: slots}
			t.Cleanup(func() { assert.NoError(t, tracer.Close()) })

			const calls = 100_000
			groups, processes := make([]*group, 6), make([]*process, 6)
			for i := range groups {
				groups[i] = newGroup(t)
				processes[i] = groups[i].start(t)
				processes[i].order(t, "call %d", calls)
			}
			for _, p := range processes {
				p.answer(t)
			}
			counts, err := tracer.Syscalls()
			require.NoError(t, err)
			var counted, missed uint64
			for _, g := range groups {
				counted += counts[g.id][0]
			}
			for _, p := range tracer.Programs() {
				missed += p.Missed
			}
			made := uint64(calls * len(groups))
			t.Logf("%d of %d calls counted; in all %d missed", counted, made, missed)
			assert.LessOrEqual(t, counted, made)
			assert.GreaterOrEqual(t, counted+missed, made) // other calls are missed as well
			if v.lost == "" && v.mode != "kprobe" {
				assert.Zero(t, missed)
			}
		})
	}
}

// limited is a case of TestThrottling, and what came of it.
type limited struct {
	threads       int
	quota, period time.Duration

	group   *group
	process *process
	periods []Period
}

// Containers side by side, with different limits, and one in a pod that has a limit
// too and a second container without: what the probes tell of each must be what its own
// cpu.stat says.
func TestThrottling(t *testing.T) {
	tracer := open(t, Config{})
	cases := []*limited{
		{threads: 1, quota: 20 * time.Millisecond, period: 100 * time.Millisecond},
		{threads: 2, quota: 20 * time.Millisecond, period: 100 * time.Millisecond},
		{threads: 1, quota: 10 * time.Millisecond, period: 40 * time.Millisecond},
		{threads: 2, quota: 10 * time.Millisecond, period: 40 * time.Millisecond},
		{threads: 2, quota: 20 * time.Millisecond, period: 100 * time.Millisecond}, // the pod
		{threads: 1, quota: 8 * time.Millisecond, period: 50 * time.Millisecond},   // its container
	}
	pod := cases[len(cases)-2]
	byID := make(map[uint64]*limited)
	for i, c := range cases {
		above := rootGroup(t)
		if i == len(cases)-1 {
			above = pod.group
		}
		c.group = newGroupIn(t, above)
		c.group.limit(t, c.quota, c.period)
		c.group.favour(t)
		home := c.group
		if c == pod {
			home = newGroupIn(t, pod.group)
		}
		c.process = home.start(t)
		byID[c.group.id] = c
	}
	collect := func() {
		demand, err := tracer.Demand()
		if err != nil {
			assert.ErrorIs(t, err, ErrNotAttached)
			return
		}
		for id, periods := range demand {
			if c := byID[id]; c != nil {
				c.periods = append(c.periods, periods...)
			}
		}
	}
	// On a machine with no time to spare one may be starved rather than throttled.
	for range 10 {
		for _, c := range cases {
			c.process.order(t, "burn %d 4s", c.threads)
		}
		for range 8 { // a second may be long under emulation
			time.Sleep(500 * time.Millisecond)
			collect()
		}
		enough := true
		for _, c := range cases {
			c.process.answer(t)
			enough = enough && c.group.stat(t).throttledPeriods >= 10
		}
		if enough {
			break
		}
	}
	// Let the last throttling end and the timers stop; then one more event closes the
	// last period. Under emulation even that may use up a quota: then once more.
	time.Sleep(500 * time.Millisecond)
	collect()
	for range 10 {
		quiet := true
		before := make([]stat, len(cases))
		for i, c := range cases {
			before[i] = c.group.stat(t)
			c.process.order(t, "burn 1 1ms")
			c.process.answer(t)
		}
		time.Sleep(time.Second)
		collect()
		for i, c := range cases {
			quiet = quiet && c.group.stat(t).throttledPeriods == before[i].throttledPeriods
		}
		if quiet {
			break
		}
	}

	t.Run("nothing is lost", func(t *testing.T) { checkNothingIsLost(t, tracer) })
	t.Run("durations", func(t *testing.T) { checkDurations(t, tracer, cases) })
	t.Run("demand", func(t *testing.T) { checkDemand(t, tracer, cases) })
}

func checkNothingIsLost(t *testing.T, tracer *Tracer) {
	for _, m := range tracer.Maps() {
		assert.Zero(t, m.Lost, "%s: map %s", m.Probe, m.Map)
	}
	for _, p := range tracer.Programs() {
		// A thread may be preempted among the programs of system calls. A kprobe's program
		// is skipped while a thread that reads a map is preempted on its CPU
		// (bpf_disable_instrumentation); how often is told.
		if p.Probe != ProbeSyscalls && p.Program != securityProgSysEnterKprobe {
			assert.Zero(t, p.Missed, "%s: program %s", p.Probe, p.Program)
		}
	}
}

func checkDurations(t *testing.T, tracer *Tracer, cases []*limited) {
	if !attached(t, tracer, ProbeThrottle) {
		_, err := tracer.ThrottleDurations()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	durations, err := tracer.ThrottleDurations()
	require.NoError(t, err)
	worst := 100.0
	for _, c := range cases {
		h, kernel := durations[c.group.id], c.group.stat(t)
		require.NotZero(t, kernel.throttled)
		assert.InDelta(t, kernel.throttled, h.Sum, float64(len(cases)*1000), "sum of durations, %d threads, %v of %v", c.threads, c.quota, c.period)
		assert.NotZero(t, h.Count())
		// The mean of a bucket lies in it, so the buckets bound the sum.
		var most time.Duration
		for i, n := range h.Buckets {
			most += time.Duration(float64(n) * math.Exp2(float64(i+HistogramMinExp)) * float64(time.Second))
		}
		assert.LessOrEqual(t, h.Sum, most)
		worst = min(worst, agreement(h.Sum, kernel.throttled))
	}
	report(tracer, ProbeThrottle, "sum of durations, cpu.stat throttled time", worst)
}

func checkDemand(t *testing.T, tracer *Tracer, cases []*limited) {
	if !attached(t, tracer, ProbeDemand) {
		_, err := tracer.Demand()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	flags, denials, usage := 100.0, 100.0, 100.0
	for _, c := range cases {
		kernel := c.group.stat(t)
		var used, denied time.Duration
		throttled := 0
		last := time.Duration(0)
		for _, p := range c.periods {
			used += p.Used
			denied += p.Denied
			if p.Throttled {
				throttled++
			}
			assert.Equal(t, c.quota, p.Quota)
			assert.Equal(t, c.period, p.Length)
			assert.Greater(t, p.Start, last, "periods are in order")
			last = p.Start
		}
		require.NotZero(t, kernel.throttledPeriods)
		assert.Equal(t, kernel.throttledPeriods, throttled, "throttled periods, %d threads, %v of %v", c.threads, c.quota, c.period)
		assert.InEpsilon(t, kernel.throttled, denied, 0.001, "denied time")
		// As a process is moved the kernel charges what ran since its last tick to the
		// cgroup's usage, not to its quota.
		assert.InEpsilon(t, kernel.used, used, 0.03, "used time")
		// Idle ones before the first event and after the last are counted, not told.
		assert.InDelta(t, kernel.periods, len(c.periods), 4+float64(kernel.periods)/20, "periods")
		flags = min(flags, agreement(time.Duration(throttled), time.Duration(kernel.throttledPeriods)))
		denials = min(denials, agreement(denied, kernel.throttled))
		usage = min(usage, agreement(used, kernel.used))
	}
	report(tracer, ProbeDemand, "throttled periods, nr_throttled", flags)
	report(tracer, ProbeDemand, "denied time, throttled time", denials)
	report(tracer, ProbeDemand, "used time, usage", usage)
}

func TestRunqueueWait(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeRunqueue}})
	if !attached(t, tracer, ProbeRunqueue) {
		_, err := tracer.RunqueueWait()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	// Side by side, and each with its own wait: many threads, and one.
	var groups []*group
	var processes []*process
	for range 2 {
		g := newGroup(t)
		p := g.start(t)
		p.order(t, "burn 1 1ms") // threads that were there before are seen for the first time
		p.answer(t)
		groups, processes = append(groups, g), append(processes, p)
	}
	// The kernel takes its time as the switch begins, the probe as it ends. A machine so
	// busy that it stops an emulator in between has them far apart, but not each time.
	best := 0.0
	for round := 0; round < 5 && best < 99; round++ {
		before, err := tracer.RunqueueWait()
		require.NoError(t, err)
		kernelBefore := []time.Duration{processes[0].waited(t), processes[1].waited(t)}
		for i, threads := range []int{3 * runtime.NumCPU(), 1} {
			processes[i].order(t, "burn %d 2s", threads)
		}
		for _, p := range processes {
			p.answer(t)
		}
		waits, err := tracer.RunqueueWait()
		require.NoError(t, err)
		worst := 100.0
		for i, g := range groups {
			w, first, kernel := waits[g.id], before[g.id], processes[i].waited(t)-kernelBefore[i]
			ours := w.Sum - first.Sum
			t.Logf("group %d: %s, schedstat %s", i, ours, kernel)
			assert.Zero(t, w.Throttled, "there is no limit")
			assert.Greater(t, w.Count(), first.Count())
			worst = min(worst, agreement(ours, kernel))
		}
		assert.Greater(t, waits[groups[0].id].Sum, time.Second, "three threads a CPU wait")
		best = max(best, worst)
	}
	assert.GreaterOrEqual(t, best, 98.0, "agreement with schedstat, in percent")
	report(tracer, ProbeRunqueue, "wait of two cgroups side by side, schedstat", best)
}

// A single thread that is throttled, while others press on the CPUs: it waits for
// both reasons, and the throttled part is what cpu.stat has.
func TestThrottledWaitIsNotContention(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeRunqueue}})
	if !attached(t, tracer, ProbeRunqueue) {
		return
	}
	version, err := features.LinuxVersionCode()
	require.NoError(t, err)
	least := 95.0
	if version < 6<<16|6<<8 { // its clock leaves out what interrupts took, which is much under emulation
		least = 80
	}
	// A machine so busy that it stops an emulator has the two clocks apart, but not each time.
	best := 0.0
	for round := 0; round < 4 && best < least; round++ {
		pressure, g := newGroup(t), newGroup(t)
		g.limit(t, 10*time.Millisecond, 50*time.Millisecond)
		neighbours := pressure.start(t)
		loop := g.run(t, exec.Command("/bin/sh", "-c", "read go; while :; do :; done"))
		neighbours.order(t, "burn %d 3s", 2*runtime.NumCPU())
		loop.order(t, "go")
		neighbours.answer(t)
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, syscall.Kill(loop.pid, syscall.SIGKILL))
		time.Sleep(300 * time.Millisecond) // it dies once it is unthrottled

		waits, err := tracer.RunqueueWait()
		require.NoError(t, err)
		w, kernel := waits[g.id], g.stat(t).throttled
		require.NotZero(t, kernel)
		t.Logf("throttled part of its wait %s, throttled time %s", w.Throttled, kernel)
		assert.Greater(t, w.Sum, w.Throttled, "there is contention as well")
		assert.Zero(t, waits[pressure.id].Throttled, "the neighbours have no limit")
		best = max(best, agreement(w.Throttled, kernel))
	}
	assert.GreaterOrEqual(t, best, least, "agreement, in percent")
	report(tracer, ProbeRunqueue, "throttled part of one thread's wait, throttled time", best)
}

func TestFullMapCountsWhatItCouldNotTake(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSyscalls}, SyscallNames: []string{"getppid"}, MaxGroups: 1})
	if !attached(t, tracer, ProbeSyscalls) {
		return
	}
	for range 3 {
		p := newGroup(t).start(t)
		p.order(t, "call 1000")
		p.answer(t)
	}
	maps := tracer.Maps()
	require.Len(t, maps, 1)
	assert.Equal(t, 1, maps[0].Entries)
	assert.Equal(t, 1, maps[0].Capacity)
	assert.GreaterOrEqual(t, maps[0].Lost, uint64(2000))
}

// The first event of a cgroup makes its entry, in a context that may not wait for
// memory. However many are made at once, none is lost.
func TestManyGroupsAtOnce(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSyscalls, ProbeRunqueue}, SyscallNames: []string{"getppid"}})
	if !attached(t, tracer, ProbeSyscalls) || !attached(t, tracer, ProbeRunqueue) {
		return
	}
	const count, calls = 256, 10
	home := newGroup(t)
	p := home.start(t)
	groups := make([]*group, count)
	p.order(t, "visit %d", calls)
	for i := range groups {
		groups[i] = newGroup(t)
		p.order(t, "%s", filepath.Join(groups[i].dirs[0], "cgroup.procs"))
	}
	p.order(t, "")
	require.EqualValues(t, count, p.answer(t))
	p.order(t, "stop")
	counts, err := tracer.Syscalls()
	require.NoError(t, err)
	var short []string
	for i, g := range groups {
		if n := slices.Max(append(counts[g.id], 0)[:1]); n != calls {
			short = append(short, fmt.Sprintf("cgroup %d: %d calls", i, n))
		}
	}
	assert.Empty(t, short, "fewer than %d calls counted", calls)
	for _, m := range tracer.Maps() {
		assert.Zero(t, m.Lost, m.Map)
		assert.GreaterOrEqual(t, m.Entries, 1, m.Map)
	}
}

func TestForget(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSyscalls}, SyscallNames: []string{"getppid"}})
	if !attached(t, tracer, ProbeSyscalls) {
		return
	}
	gone, stays := newGroup(t), newGroup(t)
	p, q := gone.start(t), stays.start(t)
	for _, p := range []*process{p, q} {
		p.order(t, "call 1000")
		p.answer(t)
	}
	tracer.Forget(gone.id, 1<<60)
	after := newGroup(t)
	r := after.start(t)
	r.order(t, "call 100")
	r.answer(t)
	p.order(t, "call 10")
	p.answer(t)
	counts, err := tracer.Syscalls()
	require.NoError(t, err)
	assert.EqualValues(t, 10, counts[gone.id][0], "what comes back starts at zero")
	assert.EqualValues(t, 100, counts[after.id][0], "what takes its place starts at zero")
	assert.EqualValues(t, 1000, counts[stays.id][0])
}

// An ordinary user gets no probe, and is told which capabilities are missing.
func TestWithoutPrivileges(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=attach")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, len(AllProbes()))
	want := "it needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
	if _, err := os.Stat(btfPath); err != nil {
		want = btfPath
	}
	for _, line := range lines {
		assert.Contains(t, line, " false ")
		assert.Contains(t, line, want)
	}
}

func TestCancelledStartAttachesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tracer := Open(ctx, Config{Log: slog.New(slog.DiscardHandler), Probes: []Probe{ProbeDemand}})
	require.NoError(t, tracer.Close())
	require.Len(t, tracer.Status(), 1)
	assert.False(t, tracer.Status()[0].Attached)
	assert.Equal(t, "the start was interrupted", tracer.Status()[0].Reason)
}
