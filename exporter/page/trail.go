package page

import (
	"maps"
	"math"
	"slices"
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
	tracks map[cgroup.ID]*track
	// changed is closed at the next sample.
	changed chan struct{}
}

// track is one container's.
type track struct {
	points [trailLength]point // a ring
	count  int                // of all points there ever were
	last   cgroup.CPUStat
	at     *sampler.Snapshot // that it was last in
}

func newTrail() *trail {
	return &trail{tracks: map[cgroup.ID]*track{}, changed: make(chan struct{})}
}

func (t *trail) observe(snap *sampler.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range snap.Containers {
		c := &snap.Containers[i]
		if !c.Group.Gone.IsZero() || c.CPU == nil {
			continue
		}
		tr := t.tracks[c.Group.ID]
		if tr == nil { // a rate takes two
			tr = &track{}
			t.tracks[c.Group.ID] = tr
		} else {
			tr.points[tr.count%trailLength] = between(tr.last, *c.CPU, c)
			tr.count++
		}
		tr.last, tr.at = *c.CPU, snap
	}
	maps.DeleteFunc(t.tracks, func(_ cgroup.ID, tr *track) bool { return tr.at != snap })
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

// of returns the last minute, oldest first.
func (t *trail) of(id cgroup.ID) []point {
	t.mu.RLock()
	defer t.mu.RUnlock()
	tr := t.tracks[id]
	switch {
	case tr == nil:
		return nil
	case tr.count < trailLength:
		return slices.Clone(tr.points[:tr.count])
	}
	oldest := tr.count % trailLength
	return append(slices.Clone(tr.points[oldest:]), tr.points[:oldest]...)
}

// next is closed when the next sample has been observed.
func (t *trail) next() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}
