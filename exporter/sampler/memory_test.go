package sampler

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
)

func TestMemoryIsReadAsAskedFor(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	m.memory[1] = cgroup.MemoryStat{Usage: 100, WorkingSet: 60}
	m.pressure[1] = cgroup.Pressure{Memory: cgroup.Stall{Some: time.Second, HasSome: true}}
	assert.Equal(t, Memory{}, find(t, m.sampler(Config{}).Sample(), "/a").Memory, "neither was asked for")

	s := m.sampler(Config{Memory: true, Pressure: true})
	got := find(t, s.Sample(), "/a").Memory
	require.NotNil(t, got.Stat)
	assert.EqualValues(t, 60, got.Stat.WorkingSet)
	assert.Equal(t, &cgroup.MemoryCounts{}, got.Counts)
	assert.Equal(t, time.Second, got.Pressure.Memory.Some)
	assert.Nil(t, got.Reclaim, "there is no tracer")

	m.pass(time.Second)
	m.memory[1] = cgroup.MemoryStat{Usage: 100, Limit: 300}
	assert.EqualValues(t, 300, find(t, s.Sample(), "/a").Memory.Stat.Limit, "its limit comes after it, and a kill may soon follow")

	m.pass(newborn)
	m.memory[1] = cgroup.MemoryStat{Usage: 200}
	fresh := 0
	for range 2 * statEvery {
		m.pass(time.Second)
		m.memory[1] = cgroup.MemoryStat{Usage: m.memory[1].Usage + 1}
		if find(t, s.Sample(), "/a").Memory.Stat.Usage == m.memory[1].Usage {
			fresh++
		}
	}
	assert.Equal(t, 2, fresh, "memory.stat is dear")

	m.fails[1] = errors.New("torn")
	m.pass(time.Second)
	got = find(t, s.Sample(), "/a").Memory
	assert.Nil(t, got.Counts, "absent, not stale")
	assert.Nil(t, got.Pressure)
	assert.NotZero(t, s.Snapshot().Errors[readerEvents])
	m.fails[1] = cgroup.ErrGone
	m.pass(time.Second)
	failed := s.Snapshot().Errors[readerEvents]
	assert.Equal(t, failed, s.Sample().Errors[readerEvents], "a cgroup that is gone is no error")
}

func TestReclaimOfNestedCgroupsIsTheOwners(t *testing.T) {
	m := newMachine()
	m.group(1, "/a")
	m.owners[11] = 1
	one := bpf.ReclaimStalls{Memcg: bpf.Histogram{Sum: time.Second}, Direct: bpf.Histogram{Sum: time.Millisecond}}
	one.Memcg.Buckets[20], one.Direct.Buckets[10] = 1, 2
	m.reclaims = map[uint64]bpf.ReclaimStalls{1: one, 11: one}
	got := find(t, m.sampler(Config{Tracer: m}).Sample(), "/a").Memory.Reclaim
	require.NotNil(t, got)
	assert.Equal(t, 2*time.Second, got.Memcg.Sum)
	assert.EqualValues(t, 2, got.Memcg.Buckets[20])
	assert.EqualValues(t, 4, got.Direct.Count())
}

// What is killed is restarted in another cgroup, and the kill must not be lost with
// the old one.
func TestKillsOutliveTheCgroup(t *testing.T) {
	m := newMachine()
	cart := pods.Container{Namespace: "shop", Pod: "cart-1", Container: "cart", PodUID: "uid-1"}
	for _, id := range []string{"first", "second", "third"} {
		m.containers[id] = cart
	}
	group := func(id cgroup.ID, container string) cgroup.Group {
		m.owners[id] = id
		return cgroup.Group{ID: id, Path: "/p/" + container, Seen: m.wall, Identity: cgroup.Identity{Kind: cgroup.KindContainer, PodUID: "uid-1", ContainerID: container}}
	}
	s := m.sampler(Config{Tracer: m, Pods: m})
	kills := func() bpf.OOMKills {
		t.Helper()
		snap := s.Sample()
		m.pass(time.Second)
		require.Len(t, snap.Containers, 1)
		require.NotNil(t, snap.Containers[0].Memory.OOM)
		return *snap.Containers[0].Memory.OOM
	}
	first := group(1, "first")
	m.groups = []cgroup.Group{first}
	assert.Equal(t, bpf.OOMKills{}, kills(), "none is a measurement")
	m.kills[1] = bpf.OOMKills{Count: 1, Last: bpf.OOMKill{At: 10, Comm: "java"}}
	assert.EqualValues(t, 1, kills().Count)

	first.Gone = m.wall
	m.groups = []cgroup.Group{first, group(2, "second")}
	assert.Equal(t, bpf.OOMKills{Count: 1, Last: bpf.OOMKill{At: 10, Comm: "java"}}, kills(), "the tombstone's")
	m.groups = m.groups[1:]
	delete(m.owners, 1)
	delete(m.kills, 1)
	assert.EqualValues(t, 1, kills().Count, "the tombstone is gone")
	m.kills[2] = bpf.OOMKills{Count: 1, Last: bpf.OOMKill{At: 20, Comm: "node"}}
	assert.Equal(t, bpf.OOMKills{Count: 2, Last: bpf.OOMKill{At: 20, Comm: "node"}}, kills())

	m.groups, m.owners, m.kills = nil, map[cgroup.ID]cgroup.ID{}, nil
	m.pass(5 * time.Minute) // backing off
	s.Sample()
	m.groups = []cgroup.Group{group(3, "third")}
	assert.EqualValues(t, 2, kills().Count)

	m.groups = nil
	s.Sample()
	m.pass(oomMemory + time.Second)
	s.Sample()
	assert.Empty(t, s.memory.left)
	assert.Empty(t, s.memory.last)
	assert.Empty(t, s.memory.kills.owned)
}
