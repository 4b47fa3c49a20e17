package reported

import (
	"context"
	"sync"
	"time"
)

const (
	// Resolution is metrics-server's --metric-resolution as its manifests set it.
	Resolution = 15 * time.Second
	// MinWindow is the shortest window that metrics-server publishes for a young
	// container (freshContainerMinMetricsResolution).
	MinWindow = 10 * time.Second
	// emulationKeep is how long a figure outlives the last Observe of its key.
	emulationKeep = 2 * time.Minute
)

// Emulation is what `kubectl top` would show if this machine were a node: two
// readings of the cumulative CPU counter, taken at 15 s steps of the wall clock,
// their difference over the time between them, and nothing new until the next
// step. It is fed by the sampler and calls nothing itself.
//
// What it leaves out makes it kinder than the real thing: the kubelet reads its
// counters about every 10 s and not at the step, so that a real figure is up to
// that much older.
type Emulation struct {
	mu    sync.RWMutex
	group map[Key]*emulated
	step  int64 // the newest step that was seen, for pruning
}

type emulated struct {
	latched  point // of the last step, or the first ever
	last     point
	usage    Usage
	has      bool
	lastStep int64
}

type point struct {
	at  time.Time
	cpu time.Duration
}

var _ Source = (*Emulation)(nil)

// NewEmulation returns an Emulation without figures.
func NewEmulation() *Emulation { return &Emulation{group: map[Key]*emulated{}} }

// Name is SourceEmulation.
func (e *Emulation) Name() string { return SourceEmulation }

// Run waits for ctx to end: Observe does the work.
func (e *Emulation) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Observe takes one reading of a container's cumulative CPU time; at is when the
// kernel was read. Call it once per sample.
func (e *Emulation) Observe(key Key, at time.Time, cumulative time.Duration) {
	step := at.UnixNano() / int64(Resolution)
	e.mu.Lock()
	defer e.mu.Unlock()
	if step != e.step {
		e.step = step
		e.prune(at)
	}
	now := point{at, cumulative}
	g, ok := e.group[key]
	if !ok || cumulative < g.last.cpu || at.Before(g.last.at) {
		// New, restarted, or the clock was set back: begin again.
		e.group[key] = &emulated{latched: now, last: now, lastStep: step}
		return
	}
	g.last = now
	if step == g.lastStep {
		return
	}
	// A window too short to publish still leaves its point for the next step, as in
	// metrics-server.
	if window := at.Sub(g.latched.at); window >= MinWindow {
		g.has = true
		g.usage = Usage{
			Source: SourceEmulation,
			Cores:  float64(cumulative-g.latched.cpu) / float64(window),
			At:     at,
			Window: window,
		}
	}
	g.lastStep, g.latched = step, now
}

// Usage is the figure of the last step.
func (e *Emulation) Usage(key Key) (Usage, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	g, ok := e.group[key]
	if !ok || !g.has {
		return Usage{}, false
	}
	return g.usage, true
}

// Forget drops a container that is gone.
func (e *Emulation) Forget(key Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.group, key)
}

func (e *Emulation) prune(now time.Time) {
	for key, g := range e.group {
		if now.Sub(g.last.at) > emulationKeep {
			delete(e.group, key)
		}
	}
}
