package sampler

import (
	"time"

	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
)

// history is the bounded trail of one cgroup's samples, oldest first.
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
	drop := 0
	for drop < len(h.Points) && h.Points[drop].At < p.At-keep {
		drop++
	}
	if drop > 0 {
		// Move down in place: the arrays stay as large as the trail is long.
		h.Points = h.Points[:copy(h.Points, h.Points[drop:])]
		h.bandwidth = h.bandwidth[:copy(h.bandwidth, h.bandwidth[drop:])]
	}
	h.Points = append(h.Points, p)
	h.bandwidth = append(h.bandwidth, b)
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

// trailing returns the index of the sample that begins the trailing window: the
// oldest that is at most length (and half a sampling interval) before the newest.
func (h *history) trailing(length, interval time.Duration) int {
	newest := h.Points[len(h.Points)-1].At
	for i := range h.Points {
		if h.Points[i].At >= newest-length-interval/2 {
			return i
		}
	}
	return len(h.Points) - 1
}

// ratio is the throttling over the trailing window; nil before two samples and
// where the kernel keeps no periods.
func (h *history) ratio(length, interval time.Duration) *Throttling {
	n := len(h.Points) - 1
	if n < 1 || !h.HasThrottled {
		return nil
	}
	i := h.trailing(length, interval)
	return &Throttling{
		Window:        h.Points[n].At - h.Points[i].At,
		Periods:       h.bandwidth[n].periods - h.bandwidth[i].periods,
		Throttled:     h.bandwidth[n].throttled - h.bandwidth[i].throttled,
		ThrottledTime: h.Points[n].Throttled - h.Points[i].Throttled,
		Used:          h.Points[n].Used - h.Points[i].Used,
	}
}
