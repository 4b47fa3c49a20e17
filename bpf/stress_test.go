package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stress has a child become stress-ng in its cgroup, pinned to one CPU as PSI's times
// want it, and waits for its end.
func (g *group) stress(t testing.TB, format string, args ...any) {
	t.Helper()
	p := g.start(t)
	p.pin(t)
	p.order(t, "stress --quiet --temp-path %s %s", t.TempDir(), fmt.Sprintf(format, args...))
	for p.out.Scan() {
		t.Log(p.out.Text())
	}
}

func becomeStress(args []string) error {
	path, err := exec.LookPath("stress-ng")
	if err != nil {
		return err
	}
	return unix.Exec(path, append([]string{"stress-ng"}, args...), os.Environ())
}

func needStress(t testing.TB) {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("stress-ng"); err != nil {
		t.Skip("there is no stress-ng: Debian's package of that name has it")
	}
}

// onDisk tells that a directory's files are pages that can be reclaimed without swap.
func onDisk(t testing.TB, dir string) bool {
	t.Helper()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	return st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC
}

// A container that writes more files than its limit holds, as stress-ng does it.
func TestReclaimByStressNG(t *testing.T) {
	needStress(t)
	if !onDisk(t, t.TempDir()) {
		t.Skipf("%s is memory, whose pages can't be reclaimed", os.TempDir())
	}
	tracer := open(t, Config{Probes: []Probe{ProbeReclaim}})
	if !attached(t, tracer, ProbeReclaim) {
		return
	}
	short, quiet := newMemoryGroup(t, 32*megabyte), newMemoryGroup(t, 512*megabyte)
	for _, g := range []memoryGroup{short, quiet} {
		g.stress(t, "--hdd 1 --hdd-bytes 96M --hdd-write-size 256K --hdd-ops 1000")
	}
	stalls, err := tracer.ReclaimStalls()
	require.NoError(t, err)
	got, calm := stalls[short.id].Memcg, stalls[quiet.id].Memcg
	assert.Zero(t, calm.Count(), "the neighbour does the same, and has room")
	require.NotZero(t, got.Count())
	if !short.v2 { // counts retries and charges that may not wait, too
		failed := short.counter(t, "memory.failcnt", "")
		t.Logf("%d reclaims of %s, %d failed charges", got.Count(), got.Sum, failed)
		assert.LessOrEqual(t, got.Count(), failed)
		report(tracer, ProbeReclaim, "stress-ng: reclaims, at most memory.failcnt", 100)
		return
	}
	hits := short.counter(t, "memory.events", "max")
	t.Logf("%d reclaims of %s, %d times at the limit", got.Count(), got.Sum, hits)
	assert.LessOrEqual(t, got.Count(), hits)
	assert.InEpsilon(t, hits, got.Count(), 0.02)
	report(tracer, ProbeReclaim, "stress-ng: reclaims, memory.events max", agreement(time.Duration(got.Count()), time.Duration(hits)))
	if psi, ok := short.stalled(t); ok {
		// PSI's figure has what it takes to turn itself on and off, which is much of a
		// reclaim of some dozen pages, and the waits for pages that were reclaimed too early.
		t.Logf("stalled for %s", psi)
		assert.LessOrEqual(t, got.Sum, psi+psi/50)
		assert.Greater(t, got.Sum, psi/2)
		report(tracer, ProbeReclaim, "stress-ng: reclaim time, memory.pressure some", agreement(got.Sum, psi))
	}
}

// A container that wants more memory than its limit, as stress-ng does it.
func TestOOMKillByStressNG(t *testing.T) {
	needStress(t)
	tracer := open(t, Config{Probes: []Probe{ProbeOOM}})
	if !attached(t, tracer, ProbeOOM) {
		return
	}
	const limit = 48 * megabyte
	doomed, quiet := newMemoryGroup(t, limit), newMemoryGroup(t, 512*megabyte)
	doomed.noSwap(t, limit)
	for _, g := range []memoryGroup{doomed, quiet} {
		g.stress(t, "--vm 1 --vm-bytes 96M --vm-method zero-one --vm-ops 1 --oomable")
	}
	kills, err := tracer.OOMKills()
	require.NoError(t, err)
	assert.NotContains(t, kills, quiet.id, "the neighbour does the same, and has room")
	want := doomed.counter(t, doomed.oomFile(), "oom_kill")
	require.NotZero(t, want)
	assert.Equal(t, want, kills[doomed.id].Count)
	last := kills[doomed.id].Last
	assert.True(t, strings.HasPrefix(last.Comm, "stress-ng"), last.Comm)
	assert.EqualValues(t, limit, last.LimitBytes)
	assert.LessOrEqual(t, last.RSSBytes, uint64(2*limit))
	report(tracer, ProbeOOM, "stress-ng: kills, oom_kill", agreement(time.Duration(kills[doomed.id].Count), time.Duration(want)))
}

// noSwap has the limit hold for memory and swap together, where that can be had.
func (g memoryGroup) noSwap(t testing.TB, limit int) {
	t.Helper()
	file, value := "memory.swap.max", "0"
	if !g.v2 {
		file, value = "memory.memsw.limit_in_bytes", fmt.Sprint(limit)
	}
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0o644); err != nil {
		t.Logf("swap is not limited: %v", err)
	}
}

// oomFile has the line oom_kill.
func (g memoryGroup) oomFile() string {
	if g.v2 {
		return "memory.events"
	}
	return "memory.oom_control"
}
