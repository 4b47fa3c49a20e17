package sampler

import (
	"errors"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
)

// Memory is what was read of a cgroup's memory and pressure.
type Memory struct {
	Stat     *cgroup.MemoryStat // a few seconds old at most
	Counts   *cgroup.MemoryCounts
	Pressure *cgroup.Pressure
	Reclaim  *bpf.ReclaimStalls
	// OOM is of all cgroups that had the container's name, so that it outlives a restart.
	OOM *bpf.OOMKills
}

const (
	readerMemory   = "memory.stat"
	readerEvents   = "memory.events"
	readerPressure = "pressure"
	readerReclaim  = "bpf_reclaim"
	readerOOM      = "bpf_oom"

	// statEvery is how many samples pass between readings of memory.stat, which makes
	// the kernel flush its statistics.
	statEvery = 5
	// oomMemory is for how long the kills of a name are kept that no cgroup has: longer
	// than the longest back-off of a crashing container (5 min).
	oomMemory = 15 * time.Minute
)

// oomTotal is what the cgroups that are gone leave to the next of the same name.
type oomTotal struct {
	bpf.OOMKills
	seen time.Duration // Elapsed when a cgroup last had the name
}

// memory keeps what the instruments told of memory.
type memory struct {
	reclaims, kills *totals
	last            map[cgroup.ID]bpf.OOMKill
	left            map[reported.Key]oomTotal
}

func newMemory() memory {
	return memory{reclaims: newTotals(), kills: newTotals(), last: map[cgroup.ID]bpf.OOMKill{}, left: map[reported.Key]oomTotal{}}
}

// readMemory takes one sample of a living group. An error costs this group this figure.
func (s *Sampler) readMemory(st *state, now time.Time) {
	g, m := st.out.Group, &st.out.Memory
	if s.Memory {
		counts, err := s.Tree.MemoryCounts(g)
		m.Counts = kept(s, st, readerEvents, m.Counts, counts, err)
		if m.Stat == nil || now.Sub(g.Seen) <= newborn || (s.ticks+uint64(g.ID))%statEvery == 0 {
			stat, ok, err := s.Tree.Memory(g)
			m.Stat = kept(s, st, readerMemory, m.Stat, stat, err)
			if err == nil && !ok {
				m.Stat = nil
			}
		}
	}
	if s.Pressure {
		p, err := s.Tree.Pressure(g)
		m.Pressure = kept(s, st, readerPressure, m.Pressure, p, err)
	}
}

// kept is the new figure (see shared), none after a failure, and the last one of a cgroup that is gone.
func kept[T comparable](s *Sampler, st *state, reader string, last *T, now T, err error) *T {
	switch {
	case !s.failed(st, reader, err):
		return shared(last, now)
	case errors.Is(err, cgroup.ErrGone):
		return last
	}
	return nil
}

// readMemoryInstruments folds the maps of reclaim and OOM kills into their owners.
func (s *Sampler) readMemoryInstruments(fold fold) {
	if raw, err := s.Tracer.ReclaimStalls(); s.readable(readerReclaim, err) {
		fold(s.memory.reclaims, flat(raw, flattenStalls))
	}
	if raw, err := s.Tracer.OOMKills(); s.readable(readerOOM, err) {
		for id, k := range raw {
			owner, ok := s.Tree.Owner(cgroup.ID(id))
			if ok && k.Last.At > s.memory.last[owner].At {
				s.memory.last[owner] = k.Last
				s.Log.Warn("The kernel killed a process for want of memory.", "cgroup_id", uint64(owner),
					"victim", k.Last.Comm, "pid", k.Last.PID, "rss_bytes", k.Last.RSSBytes, "limit_bytes", k.Last.LimitBytes,
					"scope", k.Last.Scope, "triggered_by", k.Last.TriggerComm, "trigger_pid", k.Last.TriggerPID)
			}
		}
		fold(s.memory.kills, flat(raw, func(into []uint64, k *bpf.OOMKills) []uint64 { return append(into, k.Count) }))
	}
}

// joinMemory adds the instruments' totals of memory to a group.
func (s *Sampler) joinMemory(st *state) {
	id := st.out.Group.ID
	st.out.Memory.Reclaim = nil
	if total := s.memory.reclaims.owned[id]; s.noted(bpf.ProbeReclaim, total) {
		st.out.Memory.Reclaim = st.reclaims.from(total, stalls)
	}
	if s.attached(bpf.ProbeOOM) {
		st.out.Memory.OOM = shared(st.out.Memory.OOM, bpf.OOMKills{Count: sum(s.memory.kills.owned[id]), Last: s.memory.last[id]})
	}
}

// leaveKills keeps a gone group's kills for its successor.
func (s *Sampler) leaveKills(st *state, elapsed time.Duration) {
	m := &s.memory
	delete(m.last, st.out.Group.ID)
	if k := st.out.Memory.OOM; k != nil && k.Count > 0 && st.named {
		m.left[st.out.key()] = oomTotal{addKills(m.left[st.out.key()].OOMKills, *k), elapsed}
	}
}

// sumKills are the kills of all cgroups that have a name or had it, for each that has any.
func (s *Sampler) sumKills(cs []*Container, elapsed time.Duration) map[reported.Key]bpf.OOMKills {
	sums := make(map[reported.Key]bpf.OOMKills)
	for _, c := range cs {
		if c.Pod != "" && c.Memory.OOM != nil {
			sums[c.key()] = addKills(sums[c.key()], *c.Memory.OOM)
		}
	}
	for k, sum := range sums {
		if left, ok := s.memory.left[k]; ok {
			sums[k] = addKills(sum, left.OOMKills)
			left.seen = elapsed
			s.memory.left[k] = left
		}
	}
	for k, left := range s.memory.left {
		if elapsed-left.seen > oomMemory {
			delete(s.memory.left, k)
		}
	}
	return sums
}

func addKills(a, b bpf.OOMKills) bpf.OOMKills {
	last := a.Last
	if b.Last.At > last.At {
		last = b.Last
	}
	return bpf.OOMKills{Count: a.Count + b.Count, Last: last}
}

// flattenStalls is both histograms, one after the other.
func flattenStalls(into []uint64, r *bpf.ReclaimStalls) []uint64 {
	return flattenHistogram(flattenHistogram(into, &r.Direct), &r.Memcg)
}

func stalls(total []uint64) (r bpf.ReclaimStalls) {
	const one = bpf.HistogramBuckets + 1
	if len(total) == 2*one {
		r.Direct, r.Memcg = histogram(total[:one]), histogram(total[one:])
	}
	return r
}
