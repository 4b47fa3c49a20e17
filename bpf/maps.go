package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// readMap calls visit for each entry with one value, or for a per-CPU map with one
// of each CPU. Values are valid during the call only. Entries may come and go
// meanwhile; each that stays is visited exactly once.
func readMap[V any](m *ebpf.Map, visit func(id uint64, values []V)) error {
	per := 1
	if m.Type() == ebpf.PerCPUHash {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return err
		}
		per = cpus
	}
	err := readBatches(m, per, visit)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return readEach(m, per, visit)
	}
	return err
}

// readBatches takes one system call for many entries (5.6).
func readBatches[V any](m *ebpf.Map, per int, visit func(uint64, []V)) error {
	const usual = 32 // entries at a time: a map has as many buckets as it may have entries
	size := min(int(m.MaxEntries()), usual)
	keys, values := make([]uint64, size), make([]V, size*per)
	seen := make(map[uint64]bool) // a bucket may be read again after its entries moved
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, unix.ENOSPC) && size < int(m.MaxEntries()) {
			// A batch must take a whole bucket, and this one is larger.
			size = min(int(m.MaxEntries()), 2*size)
			keys, values, cursor = make([]uint64, size), make([]V, size*per), ebpf.MapBatchCursor{}
			continue
		}
		done := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !done {
			return err
		}
		for i, id := range keys[:n] {
			if !seen[id] {
				seen[id] = true
				visit(id, values[i*per:(i+1)*per])
			}
		}
		if done {
			return nil
		}
	}
}

func readEach[V any](m *ebpf.Map, per int, visit func(uint64, []V)) error {
	ids, err := keys(m)
	if err != nil {
		return err
	}
	values := make([]V, per)
	for _, id := range ids {
		if m.Type() == ebpf.PerCPUHash {
			err = m.Lookup(id, values)
		} else {
			err = m.Lookup(id, &values[0])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue // gone since
		}
		if err != nil {
			return err
		}
		visit(id, values)
	}
	return nil
}

// keys lists a map. When the key it stands on is deleted the kernel starts over, so
// the walk is bounded and duplicates are dropped.
func keys(m *ebpf.Map) ([]uint64, error) {
	var ids []uint64
	var previous any
	for range 4 * m.MaxEntries() {
		var id uint64
		err := m.NextKey(previous, &id)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		previous = id
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Forget deletes the entries of cgroups that are gone. An id that comes back starts
// at zero.
func (t *Tracer) Forget(ids ...uint64) {
	t.mu.Lock()
	for _, id := range ids {
		delete(t.series, id)
	}
	t.mu.Unlock()
	for _, p := range t.probes {
		if p.coll == nil {
			continue
		}
		m := p.coll.Maps[groupMap(p.status.Probe)]
		if m == nil {
			continue
		}
		for _, id := range ids {
			var err error
			if values := indexedMap(p.status.Probe); values != "" {
				err = forgetIndex(p.coll, p.coll.Maps[values], id)
			} else {
				err = m.Delete(id)
			}
			if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				t.log.Warn("forgetting a cgroup", "probe", p.status.Probe, "cgroup_id", id, "err", err)
			}
			if p.status.Probe == ProbeSecurity {
				if err := forgetEvidence(p.coll, id); err != nil {
					t.log.Warn("forgetting the evidence of a cgroup", "cgroup_id", id, "err", err)
				}
			}
		}
	}
}

// ThrottleDurations returns how long each throttling of a cgroup on a CPU lasted.
// The sums are those of cpu.stat's throttled_usec (throttled_time on v1) since attach.
func (t *Tracer) ThrottleDurations() (map[uint64]Histogram, error) {
	coll, err := t.attached(ProbeThrottle)
	if err != nil {
		return nil, err
	}
	all := make(map[uint64]Histogram)
	err = readMap(coll.Maps[throttleMapThrottles], func(id uint64, v []throttleDurations) {
		all[id] = Histogram{Buckets: v[0].Buckets, Sum: time.Duration(v[0].Sum)}
	})
	if err != nil {
		return nil, fmt.Errorf("reading throttle durations: %w", err)
	}
	return all, nil
}

// RunqueueWait returns the waits that ended since attach; their sums are those of
// /proc/PID/schedstat's second field over a cgroup's threads. What is uncertain in
// the throttled part is said in runqueue.bpf.c.
func (t *Tracer) RunqueueWait() (map[uint64]RunqueueWait, error) {
	coll, err := t.attached(ProbeRunqueue)
	if err != nil {
		return nil, err
	}
	all := make(map[uint64]RunqueueWait)
	err = readIndexed(coll, coll.Maps[runqueueMapWaits], func(id uint64, cpus []runqueueWaits) {
		var w RunqueueWait
		for _, cpu := range cpus {
			for i, n := range cpu.Buckets {
				w.Buckets[i] += n
			}
			w.Sum += time.Duration(cpu.Sum)
			w.Throttled += time.Duration(cpu.Throttled)
		}
		w.Throttled = min(w.Throttled, w.Sum) // the CPUs were not read at one instant
		all[id] = w
	})
	if err != nil {
		return nil, fmt.Errorf("reading run queue waits: %w", err)
	}
	return all, nil
}

// Programs returns the kernel's account of each attached program; run times need
// 5.8. A program whose account can't be read is left out.
func (t *Tracer) Programs() []ProgramStats {
	var all []ProgramStats
	for _, p := range t.probes {
		if p.coll == nil {
			continue
		}
		programs := maps.Clone(p.coll.Programs)
		if p.birth != nil {
			maps.Copy(programs, p.birth.calls.Programs)
		}
		for name, prog := range programs {
			s, err := prog.Stats()
			if err != nil {
				continue
			}
			stats := ProgramStats{Probe: p.status.Probe, Program: name, Runs: s.RunCount, RunTime: s.Runtime}
			if !countsNothing(name) {
				stats.Missed = s.RecursionMisses
			}
			all = append(all, stats)
		}
	}
	slices.SortFunc(all, func(a, b ProgramStats) int {
		return strings.Compare(string(a.Probe)+a.Program, string(b.Probe)+b.Program)
	})
	return all
}

// Maps returns the occupancy of each attached probe's map of cgroups, and of what
// the birth and the security probe keep. A map that can't be read is left out.
func (t *Tracer) Maps() []MapStats {
	var all []MapStats
	for _, p := range t.probes {
		if p.coll == nil {
			continue
		}
		if p.birth != nil {
			all = append(all, p.birthMaps()...)
			continue
		}
		var cpus []uint64
		if err := p.coll.Maps[throttleMapLost].Lookup(uint32(0), &cpus); err != nil && !errors.Is(err, unix.ENOENT) {
			continue
		}
		var lost uint64
		for _, n := range cpus {
			lost += n
		}
		names := []string{groupMap(p.status.Probe)}
		if p.status.Probe == ProbeSecurity {
			names = append(names, securityMapEvidences, securityMapRuntimes)
		}
		for i, name := range names {
			m := p.coll.Maps[name]
			ids, err := keys(m)
			if err != nil {
				continue
			}
			if values := indexedMap(p.status.Probe); values != "" {
				name = values
			}
			s := MapStats{Probe: p.status.Probe, Map: name, Entries: len(ids), Capacity: int(m.MaxEntries())}
			if i == 0 { // of all of them: it is told once
				s.Lost = lost
			}
			all = append(all, s)
		}
	}
	return all
}
