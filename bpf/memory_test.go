package bpf

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// touch writes to n bytes of anonymous memory. Given up (MADV_FREE) they can be
// reclaimed without swap and without a disk.
func touch(n int, giveUp bool) error {
	const chunk = 1 << 20
	for range n / chunk {
		b, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		if giveUp {
			if err := unix.Madvise(b, unix.MADV_FREE); err != nil {
				return err
			}
		}
	}
	return nil
}

// memoryGroup is a cgroup with a memory limit.
type memoryGroup struct {
	*group
	dir string // in the memory controller's hierarchy
}

func newMemoryGroup(t testing.TB, limit int) memoryGroup {
	t.Helper()
	g := memoryGroup{group: newGroup(t)}
	g.dir = g.dirs[0]
	file := "memory.max"
	if g.v2 {
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(g.dir), "cgroup.subtree_control"), []byte("+memory"), 0o644))
	} else {
		g.dir, file = filepath.Join(memoryHierarchy(t), filepath.Base(g.dir)), "memory.limit_in_bytes"
		require.NoError(t, os.Mkdir(g.dir, 0o755))
		t.Cleanup(func() { removeGroup(t, g.dir) })
		g.dirs = slices.Insert(g.dirs, 1, g.dir)
	}
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.Itoa(limit)), 0o644))
	return g
}

// memoryHierarchy is where cgroup v1 has the memory controller.
func memoryHierarchy(t testing.TB) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[2] == "cgroup" && slices.Contains(strings.Split(f[3], ","), "memory") {
			return f[1]
		}
	}
	require.Fail(t, "no hierarchy has the memory controller")
	return ""
}

// counter reads a line "key value" of one of the group's files, or a file of one number.
func (g memoryGroup) counter(t testing.TB, file, key string) uint64 {
	t.Helper()
	f, err := os.Open(filepath.Join(g.dir, file))
	require.NoError(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if key == "" || len(words) == 2 && words[0] == key {
			n, err := strconv.ParseUint(words[len(words)-1], 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	require.Fail(t, "no such line", "%s in %s", key, file)
	return 0
}

// stalled is the time that memory.pressure counts; false where there is no PSI.
func (g memoryGroup) stalled(t testing.TB) (time.Duration, bool) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, "memory.pressure"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, false
	}
	require.NoError(t, err)
	some, _, _ := strings.Cut(string(b), "\n")
	_, total, ok := strings.Cut(some, "total=")
	require.True(t, ok, "%q", b)
	n, err := strconv.ParseInt(total, 10, 64)
	require.NoError(t, err)
	return time.Duration(n) * time.Microsecond, true
}

// pin keeps the process on one CPU: PSI's times are means over the CPUs that a cgroup
// keeps busy.
func (p *process) pin(t testing.TB) {
	t.Helper()
	var cpus, one unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(p.pid, &cpus))
	for cpu := range 8 * len(cpus) * 8 {
		if cpus.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.pid), "task"))
	require.NoError(t, err)
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		require.NoError(t, err)
		require.NoError(t, unix.SchedSetaffinity(tid, &one))
	}
}

const megabyte = 1 << 20

func TestReclaimStallsAgreeWithTheKernel(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeReclaim}})
	if !attached(t, tracer, ProbeReclaim) {
		_, err := tracer.ReclaimStalls()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	// The first reclaims alone, the next two side by side.
	alone, roomy := newMemoryGroup(t, 48*megabyte), newMemoryGroup(t, 512*megabyte)
	pair := []memoryGroup{newMemoryGroup(t, 48*megabyte), newMemoryGroup(t, 32*megabyte)}
	for _, together := range [][]memoryGroup{{alone}, {roomy}, pair} {
		var processes []*process
		for i, g := range together {
			p := g.start(t)
			p.pin(t)
			p.order(t, "churn %d", 256/(1+i)*megabyte)
			processes = append(processes, p)
		}
		for _, p := range processes {
			p.answer(t)
		}
	}
	stalls, err := tracer.ReclaimStalls()
	require.NoError(t, err)
	for _, p := range tracer.Programs() {
		if p.Runs > 0 {
			t.Logf("%s: %d runs of %s, %d missed", p.Program, p.Runs, p.RunTime/time.Duration(p.Runs), p.Missed)
		}
	}
	assert.Zero(t, stalls[roomy.id], "what fits its limit does not reclaim")
	for _, g := range append(pair, alone) {
		got := stalls[g.id].Memcg
		require.NotZero(t, got.Count())
		assert.NotZero(t, got.Sum)
		if !g.v2 { // counts retries too
			assert.LessOrEqual(t, got.Count(), g.counter(t, "memory.failcnt", ""))
		}
	}
	if !alone.v2 {
		report(tracer, ProbeReclaim, "reclaims, at most memory.failcnt", 100)
		return
	}
	// Each time a charge finds the limit reached the kernel counts it and reclaims once,
	// unless the charge may not wait: those 5.10 does not count, and later kernels do. They
	// come by time, so that side by side they weigh more.
	for i, g := range pair {
		got, hits := stalls[g.id].Memcg, g.counter(t, "memory.events", "max")
		t.Logf("group %d of the pair: %d reclaims, %d times at the limit", i, got.Count(), hits)
		assert.LessOrEqual(t, got.Count(), hits)
		assert.InEpsilon(t, hits, got.Count(), 0.1)
	}
	got, hits := stalls[alone.id].Memcg, alone.counter(t, "memory.events", "max")
	assert.LessOrEqual(t, got.Count(), hits)
	assert.InEpsilon(t, hits, got.Count(), 0.02)
	report(tracer, ProbeReclaim, "reclaims, memory.events max", agreement(time.Duration(got.Count()), time.Duration(hits)))
	if psi, ok := alone.stalled(t); ok {
		assert.InEpsilon(t, psi, got.Sum, 0.25)
		report(tracer, ProbeReclaim, "reclaim time, memory.pressure some", agreement(got.Sum, psi))
	}
}

// rss is the process's resident memory in bytes (Documentation/filesystems/proc.rst, statm).
func rss(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	require.NoError(t, err)
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	require.NoError(t, err)
	return pages * int64(os.Getpagesize())
}

func TestOOMKillTellsWhoAndUnderWhichLimit(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeOOM}})
	if !attached(t, tracer, ProbeOOM) {
		_, err := tracer.OOMKills()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	const limit = 48 * megabyte
	g, quiet := newMemoryGroup(t, limit), newMemoryGroup(t, 512*megabyte)
	p, q := g.start(t), quiet.start(t)
	g.noSwap(t, limit)
	before := rss(t, p.pid)
	for _, p := range []*process{p, q} {
		p.order(t, "hog %d", 96*megabyte)
	}
	q.answer(t)
	require.False(t, p.out.Scan(), "it was to be killed")

	kills, err := tracer.OOMKills()
	require.NoError(t, err)
	assert.NotContains(t, kills, quiet.id)
	require.EqualValues(t, 1, g.counter(t, g.oomFile(), "oom_kill"))
	require.EqualValues(t, 1, kills[g.id].Count)
	k := kills[g.id].Last
	assert.EqualValues(t, p.pid, k.PID)
	assert.Equal(t, "exe", k.Comm)
	assert.Equal(t, "exe", k.TriggerComm)
	assert.NotZero(t, k.TriggerPID)
	assert.EqualValues(t, limit, k.LimitBytes)
	// Charged elsewhere: what it had before it came into the group, and pages of the
	// binary that somebody read before.
	binary, err := os.Stat("/proc/self/exe")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, int64(k.RSSBytes), int64(limit-16*megabyte))
	assert.LessOrEqual(t, int64(k.RSSBytes), limit+before+binary.Size())
	var now unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	assert.Less(t, k.At, time.Duration(now.Nano()))
	if tracer.Status()[0].Mode == "fentry" {
		assert.Equal(t, OOMCgroup, k.Scope)
	} else {
		assert.Equal(t, OOMUnknown, k.Scope)
	}
	report(tracer, ProbeOOM, "kills, oom_kill", 100)
}

func TestComm(t *testing.T) {
	assert.Equal(t, "app", comm([]int8{'a', 'p', 'p', 0, 'x'}))
	assert.Equal(t, "full", comm([]int8{'f', 'u', 'l', 'l'}))
	assert.Equal(t, "\uFFFD", comm([]int8{-1, 0}))
}

func TestOOMScope(t *testing.T) {
	for n, want := range []OOMScope{OOMUnknown, OOMCgroup, OOMNode, OOMNode} {
		assert.Equal(t, want, oomScope(uint32(n)))
	}
}
