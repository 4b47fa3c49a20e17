// Package gap takes apart the difference between the CPU a container is said to
// use and the CPU it wanted. Pure: figures in, figures out.
//
// The parts are kept apart because they have different causes and cures:
//
//   - accounting: what the kernel counted minus what was reported, over the very
//     same window. The kernel's counter is interpolated at the ends of the
//     reporter's window, so that two clocks that tick apart are not mistaken for
//     CPU. It may be negative and is close to 0 when the reporter is honest.
//   - averaging: the busiest second of the window minus its mean. A mean of 15 s
//     hides a burst that hit the quota.
//   - throttled: throttled CPU time per second, as cpu.stat has it: summed over
//     CPUs, so more than a second in a second is possible and is not clamped.
//   - contended: time on a run queue that throttling does not explain.
//   - demand: used + throttled + contended, at most the CPUs the group may run on.
//
// What is uncertain, and on which side the figures err:
//
//   - N threads waiting for one CPU are not N CPUs denied. Run-queue wait counts
//     threads, so contended is bound by the CPUs that the group left unused; below
//     that bound it is still too high when threads wait for each other.
//   - Throttled CPU time counts a CPU as denied from its throttle to its
//     unthrottle, whatever the threads there would have needed. Work that would
//     have been done in a tenth of the interval counts whole: an upper bound too.
//   - Throttling by an ancestor is not in throttled (see cpu.stat.local), nor is
//     work that was never started because earlier work was late. Demand of a group
//     that is throttled in nearly every period is a lower bound.
//   - Between two samples (about 1 s) the counters are taken to grow evenly. The
//     busiest second is therefore smoothed by up to half a second at its ends.
package gap

import (
	"math"
	"sort"
	"time"
)

// maxSpacing is how far apart two samples may be before the second between them
// can no longer be called observed.
const maxSpacing = 2 * time.Second

// Point is the cumulative CPU figures of one cgroup at one instant.
type Point struct {
	At        time.Duration // a monotonic clock, any fixed origin
	Used      time.Duration // CPU time
	Throttled time.Duration // cpu.stat's throttled time, summed over CPUs
	Waited    time.Duration // run-queue wait, summed over threads
	// WaitedThrottled is the part of Waited in which the group was throttled there.
	WaitedThrottled time.Duration
}

// Series is points in order of time, and which of their fields were measured.
type Series struct {
	Points       []Point
	HasUsed      bool
	HasThrottled bool
	HasWaited    bool
}

// Window is a stretch of the monotonic clock of the points.
type Window struct{ From, To time.Duration }

// Length of the window; 0 when it is empty or reversed.
func (w Window) Length() time.Duration { return max(0, w.To-w.From) }

// Parts are in cores: seconds of CPU per second. Nil is "not measured".
type Parts struct {
	Window     Window
	Used       *float64 // the kernel's mean over the window
	Accounting *float64
	Averaging  *float64
	Throttled  *float64
	Contended  *float64
	Demand     *float64
}

// At interpolates every counter at t; false when the points do not cover t.
func (s Series) At(t time.Duration) (Point, bool) {
	p := s.Points
	i := sort.Search(len(p), func(i int) bool { return p[i].At >= t })
	switch {
	case i == len(p):
		return Point{}, false
	case p[i].At == t:
		return p[i], true
	case i == 0:
		return Point{}, false
	}
	a, b := p[i-1], p[i]
	f := float64(t-a.At) / float64(b.At-a.At)
	mix := func(x, y time.Duration) time.Duration { return x + time.Duration(f*float64(y-x)) }
	return Point{
		At:              t,
		Used:            mix(a.Used, b.Used),
		Throttled:       mix(a.Throttled, b.Throttled),
		Waited:          mix(a.Waited, b.Waited),
		WaitedThrottled: mix(a.WaitedThrottled, b.WaitedThrottled),
	}, true
}

// Parts takes the window apart. cpus is how many CPUs the group may run on;
// reported, in cores, is what was reported for this very window, nil when nothing
// was. False when the points do not cover the window.
func (s Series) Parts(w Window, cpus float64, reported *float64) (Parts, bool) {
	length := w.Length().Seconds()
	if length <= 0 {
		return Parts{}, false
	}
	first, ok := s.At(w.From)
	if !ok {
		return Parts{}, false
	}
	last, ok := s.At(w.To)
	if !ok {
		return Parts{}, false
	}
	rate := func(d time.Duration) float64 { return d.Seconds() / length }

	out := Parts{Window: w}
	if s.HasThrottled {
		out.Throttled = ptr(rate(last.Throttled - first.Throttled))
	}
	if !s.HasUsed {
		return out, true
	}
	used := rate(last.Used - first.Used)
	out.Used = &used
	if reported != nil {
		out.Accounting = ptr(used - *reported)
	}
	if peak, ok := s.busiestSecond(w, last.Used-first.Used); ok {
		// A window that is no whole number of seconds can have a mean slightly
		// above each of its full seconds.
		out.Averaging = ptr(math.Max(0, peak-used))
	}
	if s.HasWaited {
		wait := rate((last.Waited - first.Waited) - (last.WaitedThrottled - first.WaitedThrottled))
		out.Contended = ptr(clamp(wait, 0, math.Max(0, cpus-used)))
	}
	if out.Throttled != nil {
		want := used + *out.Throttled
		if out.Contended != nil {
			want += *out.Contended
		}
		// Interpolation can put used a hair above cpus; demand is never below use.
		out.Demand = ptr(math.Max(used, math.Min(want, cpus)))
	}
	return out, true
}

// busiestSecond is the highest mean, in cores, of one second within the window.
// The counter is linear between points, so the maximum has an end on a point or
// on an end of the window. Where nothing was used in it, no second was busier.
func (s Series) busiestSecond(w Window, used time.Duration) (float64, bool) {
	const second = time.Second
	switch {
	case w.Length() < second:
		return 0, false
	case used == 0:
		return 0, true
	case s.spacing(w) > maxSpacing:
		return 0, false
	}
	var peak time.Duration
	try := func(from time.Duration) {
		from = min(max(from, w.From), w.To-second)
		a, okA := s.At(from)
		b, okB := s.At(from + second)
		if okA && okB {
			peak = max(peak, b.Used-a.Used)
		}
	}
	try(w.From)
	try(w.To)
	for _, p := range s.Points {
		if p.At >= w.From && p.At <= w.To {
			try(p.At)
			try(p.At - second)
		}
	}
	return peak.Seconds(), true
}

// spacing is the longest distance between neighbouring points that touch the window.
// Between two that are alike nothing was used, however far apart they are.
func (s Series) spacing(w Window) time.Duration {
	var widest time.Duration
	for i := 1; i < len(s.Points); i++ {
		if s.Points[i].At > w.From && s.Points[i-1].At < w.To && s.Points[i].Used != s.Points[i-1].Used {
			widest = max(widest, s.Points[i].At-s.Points[i-1].At)
		}
	}
	return widest
}

func clamp(x, low, high float64) float64 { return math.Min(math.Max(x, low), high) }

func ptr(x float64) *float64 { return &x }
