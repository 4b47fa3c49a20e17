package sampler

import (
	"iter"
	"math"
	"slices"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
)

// idleReads is after how many unchanged readings the kernel's entry of a cgroup
// that nothing owns is given up: the cgroup is gone, or of no interest.
const idleReads = 300

// totals folds the kernel's cumulative readings per cgroup id to the groups that
// own the ids. A total only grows: it survives nested cgroups that come and go. One
// that grows is replaced, so that Snapshots may share what stands still.
type totals struct {
	read  map[uint64]*reading
	owned map[cgroup.ID][]uint64
}

type reading struct {
	owner   cgroup.ID // 0: none yet
	counted []uint64  // what of it is already in the owner's total
	sum     uint64
	idle    int // readings since sum changed
}

func newTotals() *totals {
	return &totals{read: map[uint64]*reading{}, owned: map[cgroup.ID][]uint64{}}
}

// add takes one reading of the whole map, whose values it does not keep, and returns the ids to forget and how
// many ids nothing owns. An id without an owner keeps its counts until one is
// found: what a container did before its cgroup was discovered is not lost.
func (t *totals) add(raw iter.Seq2[uint64, []uint64], owner func(cgroup.ID) (cgroup.ID, bool)) (forget []uint64, unowned int) {
	for id, values := range raw {
		r := t.read[id]
		if r == nil {
			r = &reading{}
			t.read[id] = r
		}
		now := sum(values)
		if r.idle++; now != r.sum {
			r.sum, r.idle = now, 0
		}
		found, alive := owner(cgroup.ID(id))
		if alive {
			r.owner = found
		}
		if r.owner != 0 {
			t.owned[r.owner] = r.count(t.owned[r.owner], values)
		} else {
			unowned++
		}
		if !alive && r.idle > idleReads {
			forget = append(forget, id)
			delete(t.read, id)
		}
	}
	return forget, unowned
}

// count returns total with what values have grown since the last reading.
func (r *reading) count(total, values []uint64) []uint64 {
	if len(r.counted) < len(values) {
		r.counted = append(r.counted, make([]uint64, len(values)-len(r.counted))...)
	}
	shared := true
	if len(total) < len(values) {
		total, shared = append(make([]uint64, 0, len(values)), total...)[:len(values)], false
	}
	for i, v := range values {
		if v > r.counted[i] {
			if shared {
				total, shared = slices.Clone(total), false
			}
			total[i] += v - r.counted[i]
			r.counted[i] = v
		}
	}
	return total
}

// figure is what was last made of a total.
type figure[T any] struct {
	of []uint64
	is *T
}

// from returns what read makes of a total, made anew only where the total was replaced.
func (f *figure[T]) from(total []uint64, read func([]uint64) T) *T {
	if f.is == nil || len(f.of) != len(total) || len(total) > 0 && &f.of[0] != &total[0] {
		made := read(total)
		f.of, f.is = total, &made
	}
	return f.is
}

// drop removes a group and returns the ids that were its own.
func (t *totals) drop(group cgroup.ID) (forget []uint64) {
	delete(t.owned, group)
	for id, r := range t.read {
		if r.owner == group {
			forget = append(forget, id)
			delete(t.read, id)
		}
	}
	return forget
}

func sum(values []uint64) (n uint64) {
	for _, v := range values {
		n += v
	}
	return n
}

// flat is a reading in the form in which totals folds it, one cgroup at a time.
func flat[T any](raw map[uint64]T, flatten func(into []uint64, v *T) []uint64) iter.Seq2[uint64, []uint64] {
	return func(yield func(uint64, []uint64) bool) {
		var values []uint64
		for id, v := range raw {
			if values = flatten(values[:0], &v); !yield(id, values) {
				return
			}
		}
	}
}

// The flat forms of histograms: buckets, then sums in ns.

func flattenHistogram(into []uint64, h *bpf.Histogram) []uint64 {
	return append(append(into, h.Buckets[:]...), uint64(h.Sum)) //nolint:gosec // never negative
}

func flattenWait(into []uint64, w *bpf.RunqueueWait) []uint64 {
	return append(flattenHistogram(into, &w.Histogram), uint64(w.Throttled)) //nolint:gosec // never negative
}

// histogram is the inverse; an empty total (nothing happened yet) is an empty histogram.
func histogram(total []uint64) (h bpf.Histogram) {
	if len(total) > bpf.HistogramBuckets {
		copy(h.Buckets[:], total)
		h.Sum = time.Duration(total[bpf.HistogramBuckets])
	}
	return h
}

func wait(total []uint64) (w bpf.RunqueueWait) {
	w.Histogram = histogram(total)
	if len(total) > bpf.HistogramBuckets+1 {
		w.Throttled = min(time.Duration(total[bpf.HistogramBuckets+1]), w.Sum)
	}
	return w
}

// observe adds a duration to a histogram.
func observe(h *bpf.Histogram, d time.Duration) {
	fraction, exp := math.Frexp(d.Seconds()) // d = fraction · 2^exp, fraction in [0.5, 1)
	switch fraction {
	case 0.5:
		exp-- // bounds are inclusive
	case 0:
		exp = bpf.HistogramMinExp
	}
	h.Buckets[min(max(exp-bpf.HistogramMinExp, 0), bpf.HistogramBuckets-1)]++
	h.Sum += d
}
