package sampler

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
)

// node is a sampler over a cgroup v2 tree of so many containers, with every file that
// is read each second, on an ordinary file system; the maps' figures are in memory.
func node(t testing.TB, containers int) (s *Sampler, pass func()) {
	t.Helper()
	root := t.TempDir()
	write := func(dir string, files map[string]string) {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		for name, content := range files {
			require.NoError(t, os.WriteFile(filepath.Join(root, dir, name), []byte(content), 0o600))
		}
	}
	// One file by a name in each cgroup: a single write has all of them use CPU.
	const used = "usage_usec %020d\n"
	write("", map[string]string{"cgroup.controllers": "cpuset cpu memory io\n", "used": fmt.Sprintf(used, 1000) +
		"user_usec 600\nsystem_usec 400\nnr_periods 10\nnr_throttled 5\nthrottled_usec 500\nnr_bursts 0\nburst_usec 0\n"})
	shared, err := os.OpenFile(filepath.Join(root, "used"), os.O_WRONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shared.Close()) })
	for i := range containers {
		const pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"
		write(fmt.Sprintf("docker/%064x", i), map[string]string{
			"cpu.stat.local": "throttled_usec 500\n", "cpu.max": "20000 100000\n", "cpu.max.burst": "0\n", "cpuset.cpus.effective": "0-3\n",
			"memory.stat":   "anon 1000\nfile 2000\ninactive_file 10\npgfault 5\npgmajfault 1\nworkingset_refault_anon 0\nworkingset_refault_file 0\n",
			"memory.events": "low 0\nhigh 1\nmax 2\noom 0\noom_kill 0\n", "memory.events.local": "low 0\nhigh 1\nmax 2\noom 0\noom_kill 0\n",
			"memory.current": "4000\n", "memory.max": "8000\n",
			"cpu.pressure": pressure, "memory.pressure": pressure, "io.pressure": pressure,
		})
		require.NoError(t, os.Link(shared.Name(), filepath.Join(root, fmt.Sprintf("docker/%064x", i), "cpu.stat")))
	}
	log := slog.New(slog.DiscardHandler)
	tree, err := cgroup.Open(cgroup.Config{Root: root, Log: log})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tree.Close()) })
	require.Len(t, tree.Groups(), containers)
	m := newMachine()
	m.wall = time.Now().Add(2 * newborn)
	h := bpf.Histogram{Sum: time.Second}
	h.Buckets[10] = 5
	for _, g := range tree.Groups() {
		id := uint64(g.ID)
		m.syscalls[id], m.waits[id] = []uint64{3, 4}, bpf.RunqueueWait{Histogram: h}
		m.durations[id], m.reclaims[id], m.network[id] = h, bpf.ReclaimStalls{}, bpf.Network{SegmentsSent: 3}
	}
	s = New(Config{
		Tree: tree, Tracer: m, Clock: m, Log: log, Window: time.Minute, Memory: true, Pressure: true, Emulation: reported.NewEmulation(),
	})
	return s, func() {
		m.pass(time.Second)
		_, err := fmt.Fprintf(io.NewOffsetWriter(shared, 0), used, 1000+m.wall.Unix())
		require.NoError(t, err)
	}
}

func BenchmarkSample(b *testing.B) {
	for _, n := range []int{20, 250, 1000} {
		b.Run(fmt.Sprintf("containers=%d", n), func(b *testing.B) {
			s, pass := node(b, n)
			b.ReportAllocs()
			for b.Loop() {
				pass()
				s.Sample()
			}
		})
	}
}

// What a sample allocates grows with containers no faster than they do.
func TestSampleAllocations(t *testing.T) {
	const most = 16
	for _, n := range []int{20, 250} {
		s, pass := node(t, n)
		one := func() { pass(); s.Sample() }
		for range 70 { // a full window
			one()
		}
		each := testing.AllocsPerRun(20, one) / float64(n)
		t.Logf("%d containers: %.1f allocations each", n, each)
		assert.Less(t, each, float64(most), "%d containers", n)
	}
}
