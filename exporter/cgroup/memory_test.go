package cgroup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func events(high, maxed, oom, kill uint64) MemoryEvents {
	return MemoryEvents{Count: [MemoryEventKinds]uint64{high, maxed, oom, kill}, Told: [MemoryEventKinds]bool{true, true, true, true}}
}

func TestMemoryOfCgroupV2(t *testing.T) {
	tree, _ := openFixture(t, "v2-cgroupfs-containerd")
	g := group(t, tree, "/batch")
	_, ok, err := tree.Memory(g)
	require.NoError(t, err)
	assert.False(t, ok, "the memory controller is not enabled: absent, not 0")
	p, err := tree.Pressure(g)
	require.NoError(t, err)
	assert.Equal(t, Pressure{}, p)
	c, err := tree.MemoryCounts(g)
	require.NoError(t, err)
	assert.Equal(t, MemoryCounts{}, c)

	tree, root := openFixture(t, "v2-cgroupfs-containerd")
	dir := filepath.Join(root, "batch")
	g = group(t, tree, "/batch")
	for file, text := range map[string]string{
		"memory.current":      "1000000\n",
		"memory.max":          "4000000\n",
		"memory.stat":         "anon 600000\nfile 400000\ninactive_file 300000\nworkingset_refault_anon 3\nworkingset_refault_file 4\npgfault 90\npgmajfault 5\n",
		"memory.events":       "low 0\nhigh 1\nmax 22\noom 3\noom_kill 4\noom_group_kill 0\nsock_throttled 0\n",
		"memory.events.local": "low 0\nhigh 1\nmax 20\noom 3\noom_kill 2\n",
		"cpu.pressure":        "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
		"memory.pressure":     "some avg10=1.00 avg60=0.00 avg300=0.00 total=2000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n",
	} {
		write(t, filepath.Join(dir, file), text)
	}
	m, ok, err := tree.Memory(g)
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, MemoryStat{
		At: m.At, Usage: 1000000, WorkingSet: 700000, Anon: 600000, Limit: 4000000,
		Faults: 90, Major: 5, Refaults: 7, HasRefaults: true,
	}, m)
	c, err = tree.MemoryCounts(g)
	require.NoError(t, err)
	assert.Equal(t, MemoryCounts{Group: events(1, 22, 3, 4), Own: events(1, 20, 3, 2)}, c)
	p, err = tree.Pressure(g)
	require.NoError(t, err)
	assert.Equal(t, Pressure{
		CPU:    Stall{Some: 7 * time.Microsecond, HasSome: true},
		Memory: Stall{Some: 2 * time.Second, Full: time.Second, HasSome: true, HasFull: true},
	}, p, "what has no file is not told")

	write(t, filepath.Join(dir, "memory.max"), "max\n")
	m, _, err = tree.Memory(g)
	require.NoError(t, err)
	assert.Zero(t, m.Limit)

	for file, text := range map[string]string{
		"memory.current": "x\n", "memory.max": "\n", "memory.stat": "anon 1\n",
		"memory.events": "max -1\n", "memory.pressure": "some avg10=0.00\n",
	} {
		good, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		write(t, filepath.Join(dir, file), text)
		_, _, memory := tree.Memory(g)
		_, counts := tree.MemoryCounts(g)
		_, pressure := tree.Pressure(g)
		var all []string
		for _, err := range []error{memory, counts, pressure} {
			if err != nil {
				all = append(all, err.Error())
			}
		}
		if assert.Len(t, all, 1, file) {
			assert.Contains(t, all[0], filepath.Join(dir, file)+":")
		}
		write(t, filepath.Join(dir, file), string(good))
	}
}

func TestMemoryOfCgroupV1(t *testing.T) {
	root := fixture(t, "hybrid-cgroupfs-containerd")
	dir := filepath.Join(root, "memory", "demo")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for file, text := range map[string]string{
		"memory.usage_in_bytes": "1000000\n",
		"memory.limit_in_bytes": "9223372036854771712\n",
		"memory.stat":           "inactive_file 1\npgfault 1\nhierarchical_memory_limit 9223372036854771712\ntotal_rss 500\ntotal_pgfault 10\ntotal_pgmajfault 2\ntotal_inactive_file 400000\n",
		"memory.oom_control":    "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
		"memory.failcnt":        "17\n",
	} {
		write(t, filepath.Join(dir, file), text)
	}
	tree, err := Open(Config{Root: root, Log: quiet()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tree.Close()) })
	g := group(t, tree, "/demo")
	m, ok, err := tree.Memory(g)
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, MemoryStat{At: m.At, Usage: 1000000, WorkingSet: 600000, Anon: 500, Faults: 10, Major: 2}, m)
	c, err := tree.MemoryCounts(g)
	require.NoError(t, err)
	want := MemoryEvents{}
	want.Count[EventOOMKill], want.Told[EventOOMKill] = 3, true
	want.Count[EventFailcnt], want.Told[EventFailcnt] = 17, true
	assert.Equal(t, MemoryCounts{Group: want}, c)
	p, err := tree.Pressure(g)
	require.NoError(t, err)
	assert.Equal(t, Pressure{}, p, "cgroup v1 has no pressure of its own")
}

// Where both are there, the totals are the kernel's.
func TestMemoryOfThisMachine(t *testing.T) {
	tree, err := Open(Config{Log: quiet()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tree.Close()) })
	for _, g := range tree.Groups() {
		m, ok, err := tree.Memory(g)
		if err == nil && ok {
			assert.LessOrEqual(t, m.WorkingSet, m.Usage)
			assert.LessOrEqual(t, m.Major, m.Faults, g.Path)
		}
	}
}

func FuzzMemoryFiles(f *testing.F) {
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"))
	f.Add([]byte("low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"))
	f.Add([]byte("inactive_file 1\npgfault 2\nworkingset_refault_file 18446744073709551615\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Stall
		if parsePressure(b, &s) == nil {
			assert.GreaterOrEqual(t, s.Some, time.Duration(0))
			assert.GreaterOrEqual(t, s.Full, time.Duration(0))
		}
		var e MemoryEvents
		if parseMemoryEvents(b, &e) != nil {
			return
		}
		for kind, told := range e.Told {
			assert.True(t, told || e.Count[kind] == 0)
		}
		for version := 1; version <= 2; version++ {
			var m MemoryStat
			_, _ = parseMemoryStat(b, version, &m)
		}
	})
}
