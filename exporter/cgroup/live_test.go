//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// liveRoot makes a cgroup of the test's own in this machine's real hierarchies and
// returns the tree's configuration, the cgroup's directory in the cpu hierarchy and
// its path. Only where no cgroup may be created is the test skipped.
func liveRoot(t testing.TB) (Mounts, string, string) {
	t.Helper()
	m, err := FindMounts("", "/proc")
	if err != nil {
		t.Skipf("this machine shows no usable cgroup hierarchy: %v", err)
	}
	path := fmt.Sprintf("/kernel-gossip-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, hierarchy := range hierarchies(m) {
		dir := hierarchy + path
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("no cgroup may be created here (needs root and a writable cgroup file system): %v", err)
		}
		t.Cleanup(func() { assert.NoError(t, os.Remove(dir)) })
	}
	if m.Version == 2 {
		for _, dir := range []string{m.CPU, m.CPU + path} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu"), 0o644); err != nil {
				t.Skipf("the cpu controller can't be enabled here: %v", err)
			}
		}
	}
	return m, m.CPU + path, path
}

// hierarchies are those that a cgroup with CPU figures is made in.
func hierarchies(m Mounts) []string {
	if m.CPUAcct != "" && m.CPUAcct != m.CPU {
		return []string{m.CPU, m.CPUAcct}
	}
	return []string{m.CPU}
}

// mkdirs makes the cgroup at path in each hierarchy and removes it when the test ends.
func mkdirs(t testing.TB, m Mounts, path string) {
	t.Helper()
	for _, hierarchy := range hierarchies(m) {
		dir := hierarchy + path
		require.NoError(t, os.Mkdir(dir, 0o755))
		t.Cleanup(func() {
			if err := os.Remove(dir); !errors.Is(err, os.ErrNotExist) {
				assert.NoError(t, err)
			}
		})
	}
}

func setQuota(t testing.TB, m Mounts, dir string, quota, period int) {
	t.Helper()
	if m.Version == 2 {
		write(t, filepath.Join(dir, "cpu.max"), fmt.Sprintf("%d %d", quota, period))
		return
	}
	write(t, filepath.Join(dir, "cpu.cfs_period_us"), strconv.Itoa(period))
	write(t, filepath.Join(dir, "cpu.cfs_quota_us"), strconv.Itoa(quota))
}

func TestLiveReadingsAreTheKernels(t *testing.T) {
	m, base, basePath := liveRoot(t)
	path := basePath + "/docker-" + cid("live") + ".scope"
	mkdirs(t, m, path)
	dir := m.CPU + path
	setQuota(t, m, base, 50000, 100000)
	setQuota(t, m, dir, 2000, 10000) // 100 periods a second, a fifth of a core

	tree, err := Open(Config{Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	run(t, tree)
	g := group(t, tree, path)
	assert.Equal(t, Identity{Kind: KindContainer, ContainerID: cid("live"), Runtime: "docker"}, g.Identity)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	id, err := stat(dir)
	require.NoError(t, err)
	assert.True(t, info.IsDir())
	assert.Equal(t, id, g.ID)

	// The child moves itself, so that none of its work is outside.
	procs := ""
	for _, hierarchy := range hierarchies(m) {
		procs += fmt.Sprintf("echo $$ > %q || exit 1; ", filepath.Join(hierarchy, path, "cgroup.procs"))
	}
	child := exec.Command("sh", "-c", procs+"while :; do :; done")
	child.Stderr = os.Stderr
	start := time.Now()
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})

	read := func() CPUStat { s, err := tree.CPU(g); require.NoError(t, err); return s }
	require.Eventually(t, func() bool { return read().Throttled >= 20 }, 60*time.Second, 10*time.Millisecond, "throttled")
	// By hand, before and after: what was read lies between.
	for range 5 {
		before := byHand(t, m, path)
		got := read()
		after := byHand(t, m, path)
		between := func(name string, lo, v, hi int64) {
			assert.True(t, lo <= v && v <= hi, "%s: %d <= %d <= %d", name, lo, v, hi)
		}
		require.True(t, got.HasBandwidth && got.HasUsage)
		between("nr_periods", before["nr_periods"], int64(got.Periods), after["nr_periods"])
		between("nr_throttled", before["nr_throttled"], int64(got.Throttled), after["nr_throttled"])
		between("throttled time", before["throttled"], int64(got.ThrottledTime), after["throttled"])
		between("usage", before["usage"], int64(got.Usage), after["usage"])
		if local, ok := before["local"]; ok {
			require.NotNil(t, got.HierarchicalThrottledTime)
			between("cpu.stat.local", local, int64(*got.HierarchicalThrottledTime), after["local"])
		} else {
			assert.Nil(t, got.HierarchicalThrottledTime)
		}
	}
	s := read()
	elapsed := time.Since(start)
	assert.Positive(t, s.Usage)
	// A fifth of a core, and one quota's slack in each direction of a period.
	assert.LessOrEqual(t, s.Usage, elapsed/5+50*time.Millisecond)
	t.Logf("after %v: usage %v, %d of %d periods throttled, %v throttled", elapsed, s.Usage, s.Throttled, s.Periods, s.ThrottledTime)

	l, err := tree.Limit(g)
	require.NoError(t, err)
	assert.Equal(t, CPULimit{Quota: 2 * time.Millisecond, Period: 10 * time.Millisecond, Burst: l.Burst}, l)
	e, err := tree.EffectiveLimit(g)
	require.NoError(t, err)
	assert.Equal(t, path, e.Path)
	n, err := tree.CPUs(g)
	require.NoError(t, err)
	assert.Positive(t, n)

	// The limit goes: the ancestor's is what binds.
	unlimited := "-1"
	file := "cpu.cfs_quota_us"
	if m.Version == 2 {
		unlimited, file = "max", "cpu.max"
	}
	write(t, filepath.Join(dir, file), unlimited)
	e, err = tree.EffectiveLimit(g)
	require.NoError(t, err)
	assert.Equal(t, basePath, e.Path)
	cores, _ := e.Cores()
	assert.InDelta(t, 0.5, cores, 1e-9)

	// The cgroup goes while its files are open.
	require.NoError(t, child.Process.Kill())
	_ = child.Wait()
	for _, hierarchy := range hierarchies(m) {
		require.Eventually(t, func() bool { return os.Remove(hierarchy+path) == nil }, soon, tick)
	}
	_, err = tree.CPU(g)
	assert.ErrorIs(t, err, ErrGone)
	require.Eventually(t, dead(tree, path), soon, tick)
}

// byHand reads the same files in the plainest way: nanoseconds and counts.
func byHand(t testing.TB, m Mounts, path string) map[string]int64 {
	t.Helper()
	values := map[string]int64{}
	fields := func(file string) map[string]int64 {
		f, err := os.Open(file)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		require.NoError(t, err)
		defer f.Close()
		all := map[string]int64{}
		for {
			var key string
			var v int64
			if n, _ := fmt.Fscanln(f, &key, &v); n != 2 {
				return all
			}
			all[key] = v
		}
	}
	s := fields(filepath.Join(m.CPU, path, "cpu.stat"))
	values["nr_periods"], values["nr_throttled"] = s["nr_periods"], s["nr_throttled"]
	local := fields(filepath.Join(m.CPU, path, "cpu.stat.local"))
	if m.Version == 2 {
		values["usage"], values["throttled"] = s["usage_usec"]*1000, s["throttled_usec"]*1000
	} else {
		values["throttled"] = s["throttled_time"]
		b, err := os.ReadFile(filepath.Join(m.CPUAcct, path, "cpuacct.usage"))
		require.NoError(t, err)
		var usage int64
		_, err = fmt.Sscan(string(b), &usage)
		require.NoError(t, err)
		values["usage"] = usage
	}
	if local != nil {
		values["local"] = local["throttled_time"] + local["throttled_usec"]*1000
	}
	return values
}

func TestLiveCreationAndRemovalAreNoticed(t *testing.T) {
	m, _, base := liveRoot(t)
	tree, err := Open(Config{Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	run(t, tree)

	container := base + "/" + cid("noticed")
	start := time.Now()
	mkdirs(t, m, container)
	require.Eventually(t, alive(tree, container), soon, tick)
	created := time.Since(start)

	start = time.Now()
	for _, hierarchy := range hierarchies(m) {
		require.NoError(t, os.Remove(hierarchy+container))
	}
	require.Eventually(t, dead(tree, container), soon, tick)
	removed := time.Since(start)
	t.Logf("noticed after %v (creation), %v (removal)", created, removed)

	// A plain cgroup counts from its quota on, and one from its first process.
	plain := base + "/quota"
	mkdirs(t, m, plain)
	setQuota(t, m, m.CPU+plain, 20000, 100000)
	require.Eventually(t, alive(tree, plain), soon, tick)

	busy := base + "/busy"
	mkdirs(t, m, busy)
	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
		for _, hierarchy := range hierarchies(m) { // a moment passes until the kernel lets go of it
			assert.Eventually(t, func() bool {
				b, err := os.ReadFile(filepath.Join(hierarchy, busy, "cgroup.procs"))
				return err != nil || len(b) == 0
			}, soon, tick)
		}
	})
	write(t, filepath.Join(m.CPU+busy, "cgroup.procs"), strconv.Itoa(child.Process.Pid))
	require.Eventually(t, alive(tree, busy), soon, tick)
	assert.EqualValues(t, 1, tree.Stats().Walks, "inotify told all of it")
}

func TestLiveChurn(t *testing.T) {
	m, dir, base := liveRoot(t)
	tree, err := Open(Config{Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	run(t, tree)
	t.Cleanup(func() {
		entries, err := os.ReadDir(dir)
		assert.NoError(t, err)
		for _, e := range entries {
			if e.IsDir() {
				assert.NoError(t, os.Remove(filepath.Join(dir, e.Name(), "nested")))
				assert.NoError(t, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	})
	// In the cpu hierarchy only: on v1 that makes cgroups without usage, which is fine.
	churn(t, tree, m.CPU+base, base, func(string) {})
}

// One sample of a thousand real cgroups.
func BenchmarkLiveReadThousand(b *testing.B) {
	m, dir, base := liveRoot(b)
	for i := range 1000 {
		path := base + "/" + cid(fmt.Sprint(i))
		mkdirs(b, m, path)
		setQuota(b, m, m.CPU+path, 20000, 100000)
	}
	tree, err := Open(Config{Log: quiet()})
	require.NoError(b, err)
	defer tree.Close()
	var groups []Group
	for _, g := range tree.Groups() {
		if filepath.Dir(m.CPU+g.Path) == dir {
			groups = append(groups, g)
		}
	}
	b.Logf("walk of the tree: %v, %d files open", tree.Stats().LastWalk, tree.OpenFiles())
	benchmarkRead(b, tree, groups)
	start := time.Now()
	tree.walk()
	b.ReportMetric(float64(time.Since(start).Microseconds()), "µs/walk")
}
