package sampler

import (
	"slices"
	"time"

	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
)

// history is the bounded trail of one cgroup's samples, oldest first. Of a stretch in
// which nothing changed it has the two ends: most cgroups are idle most of the time.
type history struct {
	gap.Series
	bandwidth []bandwidth // one for each point
}

// bandwidth is cpu.stat's nr_periods and nr_throttled.
type bandwidth struct{ periods, throttled uint64 }

// add appends a sample and drops those older than keep. A counter that went back
// is another life of the cgroup: its past is forgotten.
func (h *history) add(p gap.Point, b bandwidth, keep time.Duration) {
	if n := len(h.Points); n > 0 {
		last, lastB := h.Points[n-1], h.bandwidth[n-1]
		if p.Used < last.Used || p.Throttled < last.Throttled ||
			b.periods < lastB.periods || b.throttled < lastB.throttled {
			h.clear()
		} else if p.At <= last.At {
			return
		}
	}
	drop := 0 // all but one of those that are older
	for drop+1 < len(h.Points) && h.Points[drop+1].At <= p.At-keep {
		drop++
	}
	if drop > 0 {
		// Move down in place: the arrays stay as large as the trail is long.
		h.Points = h.Points[:copy(h.Points, h.Points[drop:])]
		h.bandwidth = h.bandwidth[:copy(h.bandwidth, h.bandwidth[drop:])]
	}
	if n := len(h.Points); n > 1 && h.stood(n-2, p, b) && h.stood(n-1, p, b) {
		h.Points[n-1] = p
		return
	}
	h.Points = append(h.Points, p)
	h.bandwidth = append(h.bandwidth, b)
}

// stood tells whether nothing has changed from the i-th sample to this one.
func (h *history) stood(i int, p gap.Point, b bandwidth) bool {
	p.At = h.Points[i].At
	return h.Points[i] == p && h.bandwidth[i] == b
}

func (h *history) clear() {
	h.Points, h.bandwidth = h.Points[:0], h.bandwidth[:0]
}

// measures tells which fields the next points carry. When that changes, earlier
// points can't be compared with later ones.
func (h *history) measures(used, throttled, waited bool) {
	if h.HasUsed != used || h.HasThrottled != throttled || h.HasWaited != waited {
		h.clear()
	}
	h.HasUsed, h.HasThrottled, h.HasWaited = used, throttled, waited
}

// trailing is the begin of the trailing window: the oldest sample that is at most
// length (and half a sampling interval) before the newest, and where nothing had changed
// until then, the very begin.
func (h *history) trailing(length, interval time.Duration) (gap.Point, bandwidth) {
	newest := h.Points[len(h.Points)-1].At
	i := slices.IndexFunc(h.Points, func(p gap.Point) bool { return p.At >= newest-length-interval/2 })
	p, b := h.Points[i], h.bandwidth[i]
	if i > 0 && h.stood(i-1, p, b) {
		p.At = min(p.At, newest-length)
	}
	return p, b
}

// ratio is the throttling over the trailing window; nil before two samples and
// where the kernel keeps no periods.
func (h *history) ratio(length, interval time.Duration) *Throttling {
	n := len(h.Points) - 1
	if n < 1 || !h.HasThrottled {
		return nil
	}
	from, had := h.trailing(length, interval)
	last, has := h.Points[n], h.bandwidth[n]
	return &Throttling{
		Window:        last.At - from.At,
		Periods:       has.periods - had.periods,
		Throttled:     has.throttled - had.throttled,
		ThrottledTime: last.Throttled - from.Throttled,
		Used:          last.Used - from.Used,
	}
}
