package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// touchMemory writes to so many bytes, again and again, until its input ends. Given up
// at once (churn) they can be reclaimed without swap; kept (hog) they can't.
func touchMemory(role string) {
	kind, text, _ := strings.Cut(role, ":")
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	awaitLine()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	const chunk = 1 << 20
	for {
		for i := 0; i < len(b); i += chunk {
			for j := i; j < min(i+chunk, len(b)); j += os.Getpagesize() {
				b[j] = 1
			}
			if kind == "churn" {
				if err := unix.Madvise(b[i:min(i+chunk, len(b))], unix.MADV_FREE); err != nil {
					panic(err)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
		if kind == "hog" {
			<-done
			return
		}
	}
}

// memoryLimit puts the group into the memory hierarchy, too, under a limit.
func (g *group) memoryLimit(bytes int) (dir string) {
	g.t.Helper()
	mounts, err := cgroup.FindMounts("", "/proc")
	require.NoError(g.t, err)
	require.NotEmpty(g.t, mounts.Memory, "there is no memory controller")
	dir, file := filepath.Join(mounts.Memory, g.path), "memory.max"
	if g.v2 {
		require.NoError(g.t, os.WriteFile(filepath.Join(mounts.CPU, "cgroup.subtree_control"), []byte("+memory"), 0o644))
	} else {
		file = "memory.limit_in_bytes"
		require.NoError(g.t, os.Mkdir(dir, 0o755))
		g.dirs = append(g.dirs, dir)
		g.dirs[len(g.dirs)-1], g.dirs[1] = g.dirs[1], g.dirs[len(g.dirs)-1] // cpuacct stays last
		g.t.Cleanup(func() {
			assert.Eventually(g.t, func() bool { return os.Remove(dir) == nil }, time.Minute, 50*time.Millisecond, "removing %s", dir)
		})
	}
	require.NoError(g.t, os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(bytes)), 0o644))
	return dir
}

func TestMemoryPressureOfARealWorkload(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it attaches BPF programs and makes cgroups")
	}
	const megabyte = 1 << 20
	told, url := listenFor[wire.MemoryPressure](t, wire.TypeMemoryPressure)
	short, doomed, quiet := newGroup(t, "short"), newGroup(t, "doomed"), newGroup(t, "calm")
	var room string
	for g, limit := range map[*group]int{short: 48 * megabyte, doomed: 48 * megabyte, quiet: 512 * megabyte} {
		dir := g.memoryLimit(limit)
		if g == quiet {
			room = dir
		}
	}
	churning, hogging, idling := short.child("churn:"+fmt.Sprint(192*megabyte)), doomed.child("hog:"+fmt.Sprint(96*megabyte)), quiet.child("hog:"+fmt.Sprint(96*megabyte))
	e := startExporter(t, "--whisper.url="+url, "--whisper.memory-threshold=0.01")
	for _, g := range []*group{short, doomed, quiet} {
		e.eventually(g.series("memory_limit_bytes"), time.Minute)
	}
	before := rss(t, hogging.cmd.Process.Pid)
	for _, c := range []*child{churning, hogging, idling} {
		c.begin()
	}

	// Exactly one kill, told with whom it hit.
	var killed wire.MemoryPressure
	require.Eventually(t, func() bool {
		for _, ev := range told.of(doomed) {
			if ev.OOMKills != nil && *ev.OOMKills > 0 {
				killed = ev
				return true
			}
		}
		return false
	}, time.Minute, 50*time.Millisecond, "no event tells of the kill")
	assert.EqualValues(t, 1, *killed.OOMKills)
	require.NotNil(t, killed.OOMVictimPID)
	assert.EqualValues(t, hogging.cmd.Process.Pid, *killed.OOMVictimPID)
	assert.EqualValues(t, 48*megabyte, *killed.OOMLimitBytes)
	// Charged elsewhere: what it had before it came into the group, and pages of the
	// binary that somebody read before.
	binary, err := os.Stat("/proc/self/exe")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, int64(*killed.OOMVictimRSSBytes), int64(32*megabyte))
	assert.LessOrEqual(t, int64(*killed.OOMVictimRSSBytes), 48*megabyte+before+binary.Size())
	err = hogging.cmd.Wait()
	require.Error(t, err)
	assert.Equal(t, syscall.SIGKILL, hogging.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())

	// Stalled, and told so.
	require.Eventually(t, func() bool { return len(told.of(short)) > 0 }, 2*time.Minute, 100*time.Millisecond, "no event tells that it is stalled")
	first := told.of(short)[0]
	require.NotNil(t, first.ReclaimStallPercent)
	assert.GreaterOrEqual(t, *first.ReclaimStallPercent, 1.0)
	assert.EqualValues(t, 48*megabyte, *first.MemoryLimitBytes)
	assert.Zero(t, *first.OOMKills)

	s := e.scrapeAfter(time.Now())
	stall := func(g *group, suffix string) string {
		return g.series("memory_reclaim_stall_seconds"+suffix, "kind", "memcg")
	}
	assert.Equal(t, 1.0, s[doomed.series("oom_kills_total")])
	assert.Equal(t, 0.0, s[short.series("oom_kills_total")])
	assert.Equal(t, 0.0, s[quiet.series("oom_kills_total")])
	assert.Equal(t, 1.0, s[doomed.series("memory_events_total", "event", "oom_kill", "scope", eventScope(doomed))])
	assert.NotZero(t, s[stall(short, "_count")])
	assert.NotZero(t, s[stall(short, "_sum")])
	assert.NotContains(t, s, stall(quiet, "_count"), "the neighbour has room")
	assert.Empty(t, told.of(quiet))
	// Pages of the binary may be charged to it, so no constant is right but the kernel's.
	assert.GreaterOrEqual(t, s[quiet.series("memory_working_set_bytes")], float64(96*megabyte))
	assert.InDelta(t, workingSet(t, quiet, room), s[quiet.series("memory_working_set_bytes")], 4*megabyte)
	_, pressure := s[short.series("pressure_seconds_total", "kind", "some", "resource", "memory")]
	assert.Equal(t, short.v2, pressure, "cgroup v1 has none of its own: absent, not 0")
}

// rss is the process's resident memory in bytes (Documentation/filesystems/proc.rst, statm).
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	require.NoError(t, err)
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	require.NoError(t, err)
	return pages * int64(os.Getpagesize())
}

// workingSet is what a memory cgroup's own files say: usage without inactive file pages.
func workingSet(t *testing.T, g *group, dir string) float64 {
	t.Helper()
	usage, inactive := "memory.usage_in_bytes", "total_inactive_file "
	if g.v2 {
		usage, inactive = "memory.current", "inactive_file "
	}
	b, err := os.ReadFile(filepath.Join(dir, usage))
	require.NoError(t, err)
	used, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	require.NoError(t, err)
	b, err = os.ReadFile(filepath.Join(dir, "memory.stat"))
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, inactive); ok {
			file, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			require.NoError(t, err)
			return used - file
		}
	}
	require.Fail(t, "no inactive file pages in memory.stat")
	return 0
}

func eventScope(g *group) string {
	if g.v2 {
		return "own"
	}
	return "group"
}
