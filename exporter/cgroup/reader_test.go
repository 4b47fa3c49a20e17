package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func write(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func TestReaderFollowsTheFiles(t *testing.T) {
	tree, root := openFixture(t, "v2-cgroupfs-containerd")
	g := group(t, tree, "/batch")
	dir := filepath.Join(root, "batch")
	_, err := tree.CPU(g)
	require.NoError(t, err)
	open := tree.OpenFiles()

	// As the kernel does, in place: the descriptor stays good.
	write(t, filepath.Join(dir, "cpu.stat"), "usage_usec 5\nnr_periods 10\nnr_throttled 9\nthrottled_usec 8\n")
	s, err := tree.CPU(g)
	require.NoError(t, err)
	assert.Equal(t, CPUStat{At: s.At, Usage: 5 * time.Microsecond, HasUsage: true, Periods: 10, Throttled: 9, ThrottledTime: 8 * time.Microsecond, HasBandwidth: true}, s)
	write(t, filepath.Join(dir, "cpu.max"), "70000 100000\n")
	l, err := tree.Limit(g)
	require.NoError(t, err)
	assert.Equal(t, 70*time.Millisecond, l.Quota)
	assert.GreaterOrEqual(t, tree.OpenFiles(), open)
}

func TestReaderNamesFileAndField(t *testing.T) {
	tests := []struct {
		fixture, path, file, content, want string
		read                               func(*Tree, Group) error
	}{
		{"v2-cgroupfs-containerd", "/batch", "cpu.stat", "usage_usec x\n", `field usage_usec: "x" is not a number`, readCPU},
		{"v2-cgroupfs-containerd", "/batch", "cpu.stat", "", "field usage_usec is missing", readCPU},
		{"v2-cgroupfs-containerd", "/batch", "cpu.max", "lots 100000\n", `field quota: "lots" is not a number`, readLimit},
		{"v2-cgroupfs-containerd", "/batch", "cpu.max.burst", "max\n", `field burst: "max" is not a number`, readLimit},
		{"v2-systemd-docker", "/system.slice/docker.service", "cpu.stat.local", "throttled_usec\n", "field throttled_usec", readCPU},
		{"hybrid-cgroupfs-containerd", "/demo", "cpu.stat", "nr_periods 1\n", "field nr_throttled is missing", readCPU},
		{"hybrid-cgroupfs-containerd", "/demo", "cpu.cfs_quota_us", "-7\n", `field quota: "-7" is not a number`, readLimit},
		{"hybrid-cgroupfs-containerd", "/demo", "cpu.cfs_period_us", "0\n", `field period: "0" is not above 0`, readLimit},
	}
	for _, test := range tests {
		t.Run(test.file+" "+test.want, func(t *testing.T) {
			tree, _ := openFixture(t, test.fixture)
			g := group(t, tree, test.path)
			file := filepath.Join(tree.Mounts().CPU, test.path, test.file)
			write(t, file, test.content)
			err := test.read(tree, g)
			assert.ErrorContains(t, err, file)
			assert.ErrorContains(t, err, test.want)
			assert.NotErrorIs(t, err, ErrGone)
		})
	}
	t.Run("cpuacct.usage", func(t *testing.T) {
		tree, root := openFixture(t, "v1-cgroupfs-docker")
		g := group(t, tree, "/docker/"+cid("nginx"))
		file := filepath.Join(root, "cpuacct", g.Path, "cpuacct.usage")
		write(t, file, "-3\n")
		err := readCPU(tree, g)
		assert.ErrorContains(t, err, file+`: field usage: "-3" is not a number`)
	})
	t.Run("a v1 limit without its period", func(t *testing.T) {
		tree, root := openFixture(t, "hybrid-cgroupfs-containerd")
		require.NoError(t, os.Remove(filepath.Join(root, "cpu/demo/cpu.cfs_period_us")))
		g := group(t, tree, "/demo")
		tree.forget(g.Path)
		assert.ErrorContains(t, readLimit(tree, g), "cpu.cfs_period_us: no such control file")
	})
}

func readCPU(tree *Tree, g Group) error {
	_, err := tree.CPU(g)
	return err
}

func readLimit(tree *Tree, g Group) error {
	_, err := tree.Limit(g)
	return err
}

func TestReaderGone(t *testing.T) {
	gone := func(t *testing.T, tree *Tree, g Group) {
		t.Helper()
		for name, err := range map[string]error{"CPU": readCPU(tree, g), "Limit": readLimit(tree, g)} {
			assert.ErrorIs(t, err, ErrGone, name)
			assert.ErrorIs(t, err, fs.ErrNotExist, name)
			assert.ErrorContains(t, err, g.Path, name)
		}
		_, err := tree.EffectiveLimit(g)
		assert.ErrorIs(t, err, ErrGone)
	}
	t.Run("removed", func(t *testing.T) {
		tree, root := openFixture(t, "v2-cgroupfs-containerd")
		g := group(t, tree, "/batch/job")
		require.NoError(t, os.RemoveAll(filepath.Join(root, g.Path)))
		gone(t, tree, g)
	})
	t.Run("another directory in its place", func(t *testing.T) {
		tree, root := openFixture(t, "v2-cgroupfs-containerd")
		g := group(t, tree, "/batch/job")
		dir := filepath.Join(root, g.Path)
		require.NoError(t, os.Rename(dir, dir+".old"))
		require.NoError(t, os.Mkdir(dir, 0o755))
		write(t, filepath.Join(dir, "cpu.stat"), "usage_usec 1\n")
		gone(t, tree, g)
	})
	t.Run("closed", func(t *testing.T) {
		tree, _ := openFixture(t, "v2-cgroupfs-containerd")
		g := group(t, tree, "/batch")
		require.NoError(t, readCPU(tree, g))
		require.NoError(t, tree.Reader.Close())
		assert.Zero(t, tree.OpenFiles())
		assert.ErrorIs(t, readCPU(tree, g), fs.ErrClosed)
	})
}

func TestReaderBoundsDescriptors(t *testing.T) {
	root := fixture(t, "v2-systemd-containerd")
	tree, err := Open(Config{Root: root, Log: quiet(), MaxOpenFiles: 3})
	require.NoError(t, err)
	defer tree.Close()
	unbounded, _ := openFixture(t, "v2-systemd-containerd")
	for _, g := range tree.Groups() {
		got, err := tree.CPU(g)
		require.NoError(t, err)
		limit, err := tree.EffectiveLimit(g)
		require.NoError(t, err)
		assert.LessOrEqual(t, tree.OpenFiles(), 3)

		same := group(t, unbounded, g.Path)
		expected, err := unbounded.CPU(same)
		require.NoError(t, err)
		got.At, expected.At = time.Time{}, time.Time{}
		assert.Equal(t, expected, got, g.Path)
		expectedLimit, err := unbounded.EffectiveLimit(same)
		require.NoError(t, err)
		assert.Equal(t, expectedLimit, limit, g.Path)
	}
	assert.Equal(t, 3, tree.OpenFiles())
	assert.Greater(t, unbounded.OpenFiles(), 3)
}

func TestReaderSeesAControllerEnabledLater(t *testing.T) {
	tree, root := openFixture(t, "v2-systemd-containerd")
	g := group(t, tree, "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service")
	l, err := tree.Limit(g)
	require.NoError(t, err)
	assert.Equal(t, CPULimit{}, l)

	write(t, filepath.Join(root, g.Path, "cpu.max"), "30000 100000\n")
	s, err := tree.acquire(g.Path, g.ID)
	require.NoError(t, err)
	s.files[fileMax].absent = s.files[fileMax].absent.Add(-absentRetry) // half a minute later
	s.mu.Unlock()
	l, err = tree.Limit(g)
	require.NoError(t, err)
	assert.Equal(t, CPULimit{Quota: 30 * time.Millisecond, Period: 100 * time.Millisecond}, l)
}

func TestCPUsWithoutACpuset(t *testing.T) {
	sysfs := t.TempDir()
	m := Mounts{Version: 1, CPU: fixture(t, "hybrid-cgroupfs-containerd") + "/cpu"}
	r := NewReader(m, sysfs, 10)
	defer r.Close()
	_, err := r.CPUs(Group{Path: "/demo"})
	assert.ErrorContains(t, err, "counting the CPUs online")

	online := filepath.Join(sysfs, "devices/system/cpu/online")
	require.NoError(t, os.MkdirAll(filepath.Dir(online), 0o755))
	write(t, online, "0-3,6\n")
	n, err := r.CPUs(Group{Path: "/demo"})
	require.NoError(t, err)
	assert.Equal(t, 5, n)
	write(t, online, "\n")
	_, err = r.CPUs(Group{Path: "/demo"})
	assert.ErrorContains(t, err, online)
}

func TestReadGrowsItsBuffer(t *testing.T) {
	tree, root := openFixture(t, "v2-cgroupfs-containerd")
	g := group(t, tree, "/batch")
	write(t, filepath.Join(root, g.Path, "cpu.stat"), strings.Repeat("padding 0\n", 2000)+"usage_usec 5\n")
	s, err := tree.CPU(g)
	require.NoError(t, err)
	assert.Equal(t, 5*time.Microsecond, s.Usage)
}

func TestReaderDoesNotAllocate(t *testing.T) {
	for _, name := range []string{"v2-systemd-containerd", "v1-systemd-containerd"} {
		tree, _ := openFixture(t, name)
		groups := tree.Groups()
		all := func() {
			for _, g := range groups {
				if _, err := tree.CPU(g); err != nil {
					t.Error(err)
				}
				if _, err := tree.EffectiveLimit(g); err != nil {
					t.Error(err)
				}
				if _, err := tree.CPUs(g); err != nil {
					t.Error(err)
				}
			}
		}
		all() // opens the files
		// Under the race detector sync.Pool drops a part of what it is given.
		if allocs := testing.AllocsPerRun(20, all); !raceEnabled {
			assert.Zero(t, allocs, "%s: %d groups", name, len(groups))
		}
	}
}

// Several readers of the same cgroups while these are forgotten and closed.
func TestReaderConcurrency(t *testing.T) {
	tree, _ := openFixture(t, "v2-systemd-containerd")
	groups := tree.Groups()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 400 {
				g := groups[i%len(groups)]
				_, err := tree.CPU(g)
				if err == nil {
					_, err = tree.EffectiveLimit(g)
				}
				if err != nil && !errors.Is(err, fs.ErrClosed) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 400 {
		tree.forget(groups[i%len(groups)].Path)
	}
	require.NoError(t, tree.Reader.Close())
	wg.Wait()
	assert.Zero(t, tree.OpenFiles())
}

func BenchmarkIdentify(b *testing.B) {
	path := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + underscored("pod") + ".slice/cri-containerd-" + cid("app") + ".scope/init"
	b.ReportAllocs()
	for b.Loop() {
		Identify(path)
	}
}

// One sample of a thousand containers, files on an ordinary file system.
func BenchmarkReadThousand(b *testing.B) {
	root := b.TempDir()
	write(b, filepath.Join(root, "cgroup.controllers"), "cpuset cpu\n")
	for i := range 1000 {
		dir := filepath.Join(root, "docker", cid(fmt.Sprint(i)))
		require.NoError(b, os.MkdirAll(dir, 0o755))
		write(b, filepath.Join(dir, "cpu.stat"), statV2)
		write(b, filepath.Join(dir, "cpu.stat.local"), "throttled_usec 12\n")
		write(b, filepath.Join(dir, "cpu.max"), "20000 100000\n")
		write(b, filepath.Join(dir, "cpu.max.burst"), "0\n")
	}
	tree, err := Open(Config{Root: root, Log: quiet()})
	require.NoError(b, err)
	defer tree.Close()
	benchmarkRead(b, tree, tree.Groups())
}

func benchmarkRead(b *testing.B, tree *Tree, groups []Group) {
	require.Len(b, groups, 1000)
	b.ReportAllocs()
	for b.Loop() {
		for _, g := range groups {
			if _, err := tree.CPU(g); err != nil {
				b.Fatal(err)
			}
			if _, err := tree.Limit(g); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// What stands still is not read again, for a while; what used CPU is, and so are the periods
// that end after its last use.
func TestIdleCPU(t *testing.T) {
	for _, c := range []struct{ fixture, stat, used, other string }{
		{"v1-systemd-containerd", "cpu.stat", "cpuacct.usage", "nr_periods 8\nnr_throttled 6\nthrottled_time 5\n"},
		{"v2-systemd-containerd", "cpu.stat.local", "cpu.stat", "throttled_usec 77\n"},
	} {
		t.Run(c.fixture, func(t *testing.T) {
			tree, _ := openFixture(t, c.fixture)
			var g Group
			for _, g = range tree.Groups() {
				if g.Kind == KindContainer {
					break
				}
			}
			first, err := tree.CPU(g)
			require.NoError(t, err)
			tree.sets[g.Path].moved = time.Time{} // long ago
			write(t, filepath.Join(tree.mounts.CPU, g.Path, c.stat), c.other)
			idle, err := tree.CPU(g)
			require.NoError(t, err)
			assert.True(t, idle.At.After(first.At))
			idle.At = first.At
			assert.Equal(t, first, idle, "no CPU was used since")

			if c.used == "cpuacct.usage" {
				write(t, filepath.Join(tree.mounts.CPUAcct, g.Path, c.used), fmt.Sprintln(first.Usage.Nanoseconds()+1))
			} else {
				file := filepath.Join(tree.mounts.CPU, g.Path, c.used)
				content, err := os.ReadFile(file)
				require.NoError(t, err)
				write(t, file, strings.Replace(string(content), fmt.Sprintf("usage_usec %d", first.Usage.Microseconds()), fmt.Sprintf("usage_usec %d", first.Usage.Microseconds()+1), 1))
			}
			busy, err := tree.CPU(g)
			require.NoError(t, err)
			assert.Greater(t, busy.Usage, first.Usage)
			if c.used == "cpuacct.usage" {
				assert.EqualValues(t, 6, busy.Throttled)
				// A throttle outlasts what caused it: periods end without use.
				for _, periods := range []uint64{9, 10} {
					write(t, filepath.Join(tree.mounts.CPU, g.Path, c.stat), fmt.Sprintf("nr_periods %d\nnr_throttled %d\nthrottled_time 5\n", periods, periods))
					after, err := tree.CPU(g)
					require.NoError(t, err)
					assert.Equal(t, periods, after.Periods)
				}
			} else {
				require.NotNil(t, busy.HierarchicalThrottledTime)
				assert.Equal(t, 77*time.Microsecond, *busy.HierarchicalThrottledTime)
			}
		})
	}
}
