package page

import (
	"math"
	"sync"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// trailLength is how many samples a sparkline shows: a minute of seconds.
const trailLength = 60

// point is what one container did between two samples. NaN is "not measured".
type point struct {
	used      float64 // cores
	throttled float64 // throttled periods per period, 0 to 1
	reported  float64 // cores, as told at that time
}

// trail remembers the last minute of every living container. Observe is called by
// the sampler, the rest by anyone.
type trail struct {
	mu     sync.RWMutex
	points map[cgroup.ID][]point // oldest first
	last   map[cgroup.ID]cgroup.CPUStat
	// changed is closed at the next sample.
	changed chan struct{}
}

func newTrail() *trail {
	return &trail{points: map[cgroup.ID][]point{}, last: map[cgroup.ID]cgroup.CPUStat{}, changed: make(chan struct{})}
}

func (t *trail) observe(snap *sampler.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	points := make(map[cgroup.ID][]point, len(snap.Containers))
	last := make(map[cgroup.ID]cgroup.CPUStat, len(snap.Containers))
	for i := range snap.Containers {
		c := &snap.Containers[i]
		id := c.Group.ID
		if !c.Group.Gone.IsZero() || c.CPU == nil {
			continue
		}
		last[id] = *c.CPU
		before, ok := t.last[id]
		if !ok {
			continue // a rate takes two
		}
		ps := t.points[id]
		if len(ps) >= trailLength {
			ps = ps[len(ps)-trailLength+1:]
		}
		// Readers hold the old slice, so it is copied, never written in place.
		points[id] = append(ps[:len(ps):len(ps)], between(before, *c.CPU, c))
	}
	t.points, t.last = points, last
	close(t.changed)
	t.changed = make(chan struct{})
}

func between(a, b cgroup.CPUStat, c *sampler.Container) point {
	p := point{used: math.NaN(), throttled: math.NaN(), reported: math.NaN()}
	if len(c.Reported) > 0 {
		p.reported = c.Reported[0].Cores
	}
	seconds := b.At.Sub(a.At).Seconds()
	// A counter that went back is another life of the cgroup.
	if seconds > 0 && a.HasUsage && b.HasUsage && b.Usage >= a.Usage {
		p.used = (b.Usage - a.Usage).Seconds() / seconds
	}
	if a.HasBandwidth && b.HasBandwidth && b.Periods > a.Periods && b.Throttled >= a.Throttled {
		p.throttled = float64(b.Throttled-a.Throttled) / float64(b.Periods-a.Periods)
	}
	return p
}

// of returns the last minute, oldest first; it must not be changed.
func (t *trail) of(id cgroup.ID) []point {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.points[id]
}

// next is closed when the next sample has been observed.
func (t *trail) next() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}
