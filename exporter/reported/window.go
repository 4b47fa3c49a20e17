package reported

import "time"

// target names a container as the kubelet's labels do.
type target struct{ namespace, pod, container string }

// sample is one cumulative point as the kubelet tells it.
type sample struct {
	at     time.Time
	cpu    float64   // core-seconds since start
	memory *float64  // working set in bytes; nil: not told
	start  time.Time // zero: not told
}

// windows keeps the last two points of each container and differences them by
// metrics-server's rules (pkg/storage/pod.go).
type windows struct {
	resolution time.Duration
	last, prev map[target]sample
}

func newWindows(resolution time.Duration) *windows {
	return &windows{resolution: resolution, last: map[target]sample{}, prev: map[target]sample{}}
}

// store takes one answer, which is all there is: who is not in it is forgotten.
func (w *windows) store(points map[target]sample) {
	prev := make(map[target]sample, len(points))
	for t, p := range points {
		age := p.at.Sub(p.start)
		last, known := w.last[t]
		switch {
		case !p.start.IsZero() && age >= MinWindow && age < w.resolution:
			// Young: its own start is the first point.
			prev[t] = sample{at: p.start, start: p.start}
		case !known, !p.start.Before(last.at), p.cpu < last.cpu:
			// New or restarted: one point is no figure.
		case p.at.After(last.at):
			prev[t] = last
		default:
			// The kubelet has read nothing new since: the figure stays.
			if before, ok := w.prev[t]; ok && before.at.Before(p.at) {
				prev[t] = before
			}
		}
	}
	w.last, w.prev = points, prev
}

func (w *windows) usage(t target) (Usage, bool) {
	last, ok := w.last[t]
	if !ok {
		return Usage{}, false
	}
	prev, ok := w.prev[t]
	if !ok || !last.at.After(prev.at) {
		return Usage{}, false
	}
	window := last.at.Sub(prev.at)
	return Usage{Cores: (last.cpu - prev.cpu) / window.Seconds(), MemoryBytes: last.memory, At: last.at, Window: window}, true
}
