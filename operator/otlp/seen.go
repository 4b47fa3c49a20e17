package otlp

import (
	"container/list"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Bounds of the memory of what came.
const (
	maxSubjects = 20_000
	maxTimes    = 64 // of one subject's numbers: far more than windows overlap by
	// fresh is how long a number stands beside newer ones of other scripts.
	fresh = 2 * time.Minute
)

// seen remembers what came, so that the same counts once, and what else was said
// of a subject lately: its numbers come from several scripts, one signal each.
//
// It is of this replica and of this run. What another replica took of the same
// source and time, the store takes as the same by signal.Signal.Once.
type seen struct {
	mu       sync.Mutex
	subjects map[seenKey]*list.Element
	recent   *list.List // of *memory, the latest first
}

type seenKey struct {
	kind    signal.Type
	subject subject
}

type memory struct {
	key    seenKey
	times  map[string][]uint64 // by row.what
	values map[string]remembered
}

type remembered struct {
	value float64
	nanos uint64
}

func newSeen() *seen { return &seen{subjects: map[seenKey]*list.Element{}, recent: list.New()} }

// claim tells whether the row is new, and takes it as seen.
func (s *seen) claim(r *row) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, what := s.get(r), r.what()
	times := m.times[what]
	if slices.Contains(times, r.nanos) {
		return false
	}
	if len(times) == maxTimes {
		times = times[1:]
	}
	m.times[what] = append(times, r.nanos)
	if len(m.times) > maxTimes { // names that a sender makes up without end
		m.times = map[string][]uint64{what: m.times[what]}
	}
	return true
}

// release takes a claim back: the row was not stored and will come again.
func (s *seen) release(r *row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, what := s.get(r), r.what()
	m.times[what] = slices.DeleteFunc(m.times[what], func(t uint64) bool { return t == r.nanos })
}

// beside returns the row's values with those that other rows of the subject gave
// in the time before it, and remembers the row's.
func (s *seen) beside(r *row) map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.get(r)
	all := maps.Clone(r.values)
	for name, old := range m.values {
		if old.nanos > r.nanos || r.nanos-old.nanos > uint64(fresh) {
			continue
		}
		if _, told := all[name]; !told && len(all) < signal.MaxValues {
			all[name] = old.value
		}
	}
	maps.DeleteFunc(m.values, func(_ string, old remembered) bool {
		return old.nanos < r.nanos && r.nanos-old.nanos > uint64(fresh)
	})
	for name, v := range r.values {
		if old, known := m.values[name]; (!known || old.nanos <= r.nanos) && len(m.values) < 2*signal.MaxValues {
			m.values[name] = remembered{v, r.nanos}
		}
	}
	return all
}

func (s *seen) get(r *row) *memory {
	k := seenKey{r.kind, r.subject}
	if e, known := s.subjects[k]; known {
		s.recent.MoveToFront(e)
		return e.Value.(*memory)
	}
	if s.recent.Len() >= maxSubjects {
		last := s.recent.Back()
		delete(s.subjects, last.Value.(*memory).key)
		s.recent.Remove(last)
	}
	m := &memory{key: k, times: map[string][]uint64{}, values: map[string]remembered{}}
	s.subjects[k] = s.recent.PushFront(m)
	return m
}
