package whisper

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// MemoryConfig of the MemoryEngine. Shares are of the window's time, 0 to 1.
type MemoryConfig struct {
	// Threshold: a container whose tasks were stalled for memory this share of the time whispers.
	Threshold float64
	// Bands above Threshold, rising; entering a higher one is an event.
	Bands []float64
	// Window that the share is measured over, and the least of it that is enough.
	Window, MinWindow time.Duration
	// Hold is how long a container must be under half the threshold, or gone, to be told so.
	Hold time.Duration
	// KillHold is how long a kill is worth a whisper of its own.
	KillHold time.Duration
	// Resend is after how long the standing event is sent again; 0: never.
	Resend time.Duration
	// GrowthWindow is how long a working set must have grown without rest to be told as growing.
	GrowthWindow time.Duration
	// Node is the events' node_name; may be empty.
	Node string
}

// DefaultMemoryConfig is stalled 10, 30 and 60 % of a minute, told calm below 5 % for
// 10 s; a kill is told at once and for five minutes.
func DefaultMemoryConfig() MemoryConfig {
	return MemoryConfig{
		Threshold: 0.10, Bands: []float64{0.30, 0.60},
		Window: time.Minute, MinWindow: 10 * time.Second,
		Hold: 10 * time.Second, KillHold: 5 * time.Minute, Resend: 5 * time.Minute,
		GrowthWindow: 5 * time.Minute,
	}
}

func (c MemoryConfig) validate() error {
	if !(c.Threshold > 0 && c.Threshold <= 1) {
		return fmt.Errorf("memory whisper threshold %g must be above 0 and at most 1", c.Threshold)
	}
	for i, b := range c.Bands {
		if !(b > c.Threshold && b <= 1) || i > 0 && b <= c.Bands[i-1] {
			return fmt.Errorf("memory whisper bands %v must rise from above the threshold, %g, to at most 1", c.Bands, c.Threshold)
		}
	}
	if c.MinWindow <= 0 || c.Window < c.MinWindow {
		return fmt.Errorf("memory whisper window %s must be at least %s, which must be positive", c.Window, c.MinWindow)
	}
	return nil
}

// MemoryObservation is one container at one sample; times and counts are cumulative.
// Nil is "not measured".
type MemoryObservation struct {
	Target Target

	Some, Full *time.Duration // memory.pressure
	Reclaim    *time.Duration // stalls of all threads, which may add up to more than the time

	Kills *uint64
	// KillsSinceStart tells that Kills began at 0 with this exporter, and not with the cgroup.
	KillsSinceStart bool
	LastKill        *Kill

	WorkingSetBytes, ReportedBytes, LimitBytes *float64
	RefaultedBytes                             *float64
}

// Kill is the last one, as the kernel told it.
type Kill struct {
	VictimPID, TriggerPID uint64
	RSSBytes, LimitBytes  float64 // a limit of 0 is none
	Node                  bool    // the node was out of memory
}

// MemoryEngine decides which containers lack memory. It is pure and not safe for
// concurrent use, but for Active.
//
// Where the kernel keeps memory.pressure, its "some" is the share; on cgroup v1, which
// has none, the threads' reclaim stalls stand for it, at most the whole time.
type MemoryEngine struct {
	cfg    MemoryConfig
	bounds []float64
	states map[Target]*memoryState
	active atomic.Int64
}

type memoryPoint struct {
	at                           time.Time
	some, full, reclaim          time.Duration
	hasSome, hasFull, hasReclaim bool
	workingSet, refaulted        float64
	hasWorkingSet, hasRefaulted  bool
}

type memoryState struct {
	trail  []memoryPoint
	growth []memoryPoint // since the working set last fell, every few seconds
	kills  uint64
	known  bool // kills is a count to compare with
	killed time.Time
	recent uint64 // kills told in the present whisper

	band int // 0: it does not whisper for being stalled
	told bool
	calm time.Time
	seen time.Time
	sent time.Time
	last MemoryObservation
}

// NewMemoryEngine returns an engine without memory of its own, or what is wrong with cfg.
func NewMemoryEngine(cfg MemoryConfig) (*MemoryEngine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &MemoryEngine{cfg: cfg, bounds: append([]float64{cfg.Threshold}, cfg.Bands...), states: map[Target]*memoryState{}}, nil
}

// Active is the number of containers that whisper.
func (e *MemoryEngine) Active() int { return int(e.active.Load()) }

// Observe takes one sample of all containers and returns the events that are due: a
// threshold crossed, a higher band, a kill, still so after Resend, or resolved.
func (e *MemoryEngine) Observe(now time.Time, observations []MemoryObservation) []wire.MemoryPressure {
	var events []wire.MemoryPressure
	for i := range observations {
		o := &observations[i]
		if o.Target.Namespace == "" || o.Target.Pod == "" {
			continue
		}
		s := e.states[o.Target]
		if s == nil {
			s = &memoryState{}
			e.states[o.Target] = s
		}
		killed := s.take(now, o, e.cfg)
		if resolved, due := e.judge(now, s, killed); due {
			events = append(events, e.event(now, s, resolved))
		}
	}
	active := 0
	for target, s := range e.states {
		gone := now.Sub(s.seen)
		switch {
		case gone < e.cfg.Hold, s.told && !s.killed.IsZero() && now.Sub(s.killed) < e.cfg.KillHold:
			// Present, or killed and perhaps about to be restarted.
		case s.told:
			s.band = 0
			events = append(events, e.event(now, s, true))
			delete(e.states, target)
			continue
		default:
			delete(e.states, target)
			continue
		}
		if s.told {
			active++
		}
	}
	e.active.Store(int64(active))
	return events
}

// take adds the observation to the trail and tells whether there was a kill.
func (s *memoryState) take(now time.Time, o *MemoryObservation, cfg MemoryConfig) (killed bool) {
	p := memoryPoint{at: now}
	p.some, p.hasSome = value(o.Some)
	p.full, p.hasFull = value(o.Full)
	p.reclaim, p.hasReclaim = value(o.Reclaim)
	p.workingSet, p.hasWorkingSet = value(o.WorkingSetBytes)
	p.refaulted, p.hasRefaulted = value(o.RefaultedBytes)
	if n := len(s.trail); n > 0 {
		last := s.trail[n-1]
		// Counters that went back, or came or went, are another life.
		if p.some < last.some || p.full < last.full || p.reclaim < last.reclaim || p.refaulted < last.refaulted ||
			p.hasSome != last.hasSome || p.hasFull != last.hasFull || p.hasReclaim != last.hasReclaim || p.hasRefaulted != last.hasRefaulted {
			s.trail = s.trail[:0]
		}
	}
	s.trail = append(s.trail, p)
	s.trail = slices.Delete(s.trail, 0, slices.IndexFunc(s.trail, func(p memoryPoint) bool { return now.Sub(p.at) <= cfg.Window }))
	s.grow(p, cfg)

	if o.Kills != nil {
		if !s.known && o.KillsSinceStart {
			s.known = true
		}
		if s.known && *o.Kills > s.kills {
			killed = true
			s.recent += *o.Kills - s.kills
			s.killed = now
		}
		s.kills, s.known = *o.Kills, true
	}
	s.seen, s.last = now, *o
	return killed
}

func value[T any](p *T) (v T, ok bool) {
	if p == nil {
		return v, false
	}
	return *p, true
}

const (
	growthEvery = 10 * time.Second
	// noise is how far a growing working set may fall back.
	noise = 0.02
	// material is the least that it must have grown by to count, of what it was.
	material = 0.05
)

// grow keeps the working set for as long as it only grows.
func (s *memoryState) grow(p memoryPoint, cfg MemoryConfig) {
	if !p.hasWorkingSet {
		return
	}
	if n := len(s.growth); n > 0 {
		last := s.growth[n-1]
		if p.workingSet < last.workingSet*(1-noise) {
			s.growth = s.growth[:0]
		} else if p.at.Sub(last.at) < growthEvery {
			return
		}
	}
	s.growth = append(s.growth, p)
	if keep := int(2*cfg.GrowthWindow/growthEvery) + 1; len(s.growth) > keep {
		s.growth = slices.Delete(s.growth, 0, len(s.growth)-keep)
	}
}

// growing is in bytes an hour; nil unless the working set grew for the whole window.
func (s *memoryState) growing(cfg MemoryConfig) *float64 {
	if len(s.growth) == 0 {
		return nil
	}
	first, last := s.growth[0], s.growth[len(s.growth)-1]
	took := last.at.Sub(first.at)
	if took < cfg.GrowthWindow || last.workingSet < first.workingSet*(1+material) {
		return nil
	}
	// One step at the end, or at the start, is not growth without rest.
	middle := s.growth[len(s.growth)/2].workingSet
	if done := (middle - first.workingSet) / (last.workingSet - first.workingSet); done < 0.2 || done > 0.8 {
		return nil
	}
	rate := (last.workingSet - first.workingSet) / took.Hours()
	return &rate
}

// share of the trail's time that was lost; false before MinWindow.
func (s *memoryState) share(cfg MemoryConfig) (share float64, ok bool) {
	first, last := s.trail[0], s.trail[len(s.trail)-1]
	took := last.at.Sub(first.at)
	if took < cfg.MinWindow {
		return 0, false
	}
	switch {
	case last.hasSome:
		share = (last.some - first.some).Seconds() / took.Seconds()
	case last.hasReclaim:
		share = (last.reclaim - first.reclaim).Seconds() / took.Seconds()
	default:
		return 0, false
	}
	return min(share, 1), true
}

// judge updates the state and tells whether an event is due.
func (e *MemoryEngine) judge(now time.Time, s *memoryState, killed bool) (resolved, due bool) {
	share, ok := s.share(e.cfg)
	band := 0
	if ok {
		i, found := slices.BinarySearch(e.bounds, share)
		if band = i; found {
			band++
		}
	}
	higher := band > s.band
	s.band = max(s.band, band)
	fresh := !s.killed.IsZero() && now.Sub(s.killed) < e.cfg.KillHold
	switch {
	case share >= e.cfg.Threshold/2 || fresh:
		s.calm = time.Time{}
	case s.calm.IsZero():
		s.calm = now
	}
	switch {
	case !s.told && band == 0 && !killed:
		s.band = 0
		return false, false
	case s.told && !s.calm.IsZero() && now.Sub(s.calm) >= e.cfg.Hold:
		s.band, s.told, s.recent, s.killed = 0, false, 0, time.Time{}
		return true, true
	case killed, higher, !s.told:
	case e.cfg.Resend > 0 && s.calm.IsZero() && now.Sub(s.sent) >= e.cfg.Resend:
		s.band = max(band, 1) // it may have become better meanwhile
	default:
		return false, false
	}
	s.told, s.sent = true, now
	return false, true
}

func (e *MemoryEngine) event(now time.Time, s *memoryState, resolved bool) wire.MemoryPressure {
	o := &s.last
	first, last := s.trail[0], s.trail[len(s.trail)-1]
	window := last.at.Sub(first.at).Seconds()
	out := wire.MemoryPressure{
		Head: wire.Head{
			Type: wire.TypeMemoryPressure, PodName: o.Target.Pod, Namespace: o.Target.Namespace,
			ContainerName: o.Target.Container, PodUID: o.Target.PodUID, NodeName: e.cfg.Node,
			Timestamp: now.UTC(), Resolved: resolved,
		},
		ReportedMemoryBytes: o.ReportedBytes, MemoryLimitBytes: o.LimitBytes,
		GrowthBytesPerHour: s.growing(e.cfg),
	}
	if window > 0 {
		out.PeriodSeconds = &window
		percent := func(has bool, from, to time.Duration) *float64 {
			if !has {
				return nil
			}
			v := 100 * (to - from).Seconds() / window
			return &v
		}
		out.SomePressurePercent = percent(last.hasSome, first.some, last.some)
		out.FullPressurePercent = percent(last.hasFull, first.full, last.full)
		if out.ReclaimStallPercent = percent(last.hasReclaim, first.reclaim, last.reclaim); last.hasReclaim {
			stalled := (last.reclaim - first.reclaim).Seconds()
			out.ReclaimStallSeconds = &stalled
		}
		if last.hasRefaulted {
			refaulted := last.refaulted - first.refaulted
			out.RefaultedBytes = &refaulted
		}
	}
	for _, p := range s.trail {
		if p.hasWorkingSet && (out.WorkingSetBytes == nil || p.workingSet > *out.WorkingSetBytes) {
			peak := p.workingSet
			out.WorkingSetBytes = &peak
		}
	}
	if o.Kills != nil {
		kills := s.recent
		out.OOMKills = &kills
	}
	if k := o.LastKill; k != nil && s.recent > 0 {
		out.OOMVictimPID, out.OOMTriggerPID = &k.VictimPID, &k.TriggerPID
		out.OOMVictimRSSBytes = &k.RSSBytes
		if k.LimitBytes > 0 {
			out.OOMLimitBytes = &k.LimitBytes
		}
		if k.Node {
			one := uint64(1)
			out.OOMNode = &one
		}
	}
	return out
}
