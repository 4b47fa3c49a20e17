package whisper

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// NetworkConfig of the NetworkEngine. Shares are 0 to 1.
type NetworkConfig struct {
	// Threshold: a container whispers in which this share of its traffic goes wrong.
	Threshold float64
	// Bands above Threshold, rising; entering a higher one is an event.
	Bands []float64
	// MinEvents is how often something must go wrong in the window to count: of three
	// segments one is a third, and nothing.
	MinEvents uint64
	// Window that the shares are measured over, and the least of it that is enough.
	Window, MinWindow time.Duration
	// Hold is how long a container must be under half the threshold, or gone, to be told so.
	Hold time.Duration
	// Resend is after how long the standing event is sent again; 0: never.
	Resend time.Duration
	// Node is the events' node_name; may be empty.
	Node string
}

// DefaultNetworkConfig is 5 and 25 % of a minute's traffic, and ten events at least,
// told calm below 2.5 % for 10 s.
func DefaultNetworkConfig() NetworkConfig {
	return NetworkConfig{
		Threshold: 0.05, Bands: []float64{0.25}, MinEvents: 10,
		Window: time.Minute, MinWindow: 10 * time.Second,
		Hold: 10 * time.Second, Resend: 5 * time.Minute,
	}
}

func (c NetworkConfig) validate() error {
	if !(c.Threshold > 0 && c.Threshold <= 1) {
		return fmt.Errorf("network whisper threshold %g must be above 0 and at most 1", c.Threshold)
	}
	for i, b := range c.Bands {
		if !(b > c.Threshold && b <= 1) || i > 0 && b <= c.Bands[i-1] {
			return fmt.Errorf("network whisper bands %v must rise from above the threshold, %g, to at most 1", c.Bands, c.Threshold)
		}
	}
	if c.MinWindow <= 0 || c.Window < c.MinWindow {
		return fmt.Errorf("network whisper window %s must be at least %s, which must be positive", c.Window, c.MinWindow)
	}
	return nil
}

// NetworkObservation is one container at one sample; counts are cumulative.
type NetworkObservation struct {
	Target Target

	Sent, Received  uint64 // TCP segments
	Retransmits     uint64
	Connections     uint64  // established
	AcceptOverflows *uint64 // nil: not measured
	Refused         uint64
	ResetsReceived  uint64
	// Drops that are a loss, by the kernel's reason. It must not change afterwards.
	Drops map[string]uint64
}

// NetworkEngine decides whose traffic goes wrong, by its share of the traffic and never
// by a count alone. It is pure and not safe for concurrent use, but for Active.
type NetworkEngine struct {
	cfg    NetworkConfig
	bounds []float64
	states map[Target]*networkState
	active atomic.Int64
}

type networkPoint struct {
	at time.Time
	NetworkObservation
}

type networkState struct {
	trail []networkPoint
	band  int
	told  bool
	calm  time.Time
	seen  time.Time
	sent  time.Time
}

// NewNetworkEngine returns an engine that has seen nothing yet, or what is wrong with cfg.
func NewNetworkEngine(cfg NetworkConfig) (*NetworkEngine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &NetworkEngine{cfg: cfg, bounds: append([]float64{cfg.Threshold}, cfg.Bands...), states: map[Target]*networkState{}}, nil
}

// Active is the number of containers that whisper.
func (e *NetworkEngine) Active() int { return int(e.active.Load()) }

// Observe takes one sample of all containers and returns the events that are due: the
// threshold crossed, a higher band, still so after Resend, or resolved.
func (e *NetworkEngine) Observe(now time.Time, observations []NetworkObservation) []wire.NetworkIssue {
	var events []wire.NetworkIssue
	for i := range observations {
		o := &observations[i]
		if o.Target.Namespace == "" || o.Target.Pod == "" {
			continue
		}
		s := e.states[o.Target]
		if s == nil {
			s = &networkState{}
			e.states[o.Target] = s
		}
		s.take(now, o, e.cfg.Window)
		if resolved, due := e.judge(now, s); due {
			events = append(events, e.event(now, s, resolved))
		}
	}
	active := 0
	for target, s := range e.states {
		switch {
		case now.Sub(s.seen) < e.cfg.Hold:
			if s.told {
				active++
			}
			continue
		case s.told:
			events = append(events, e.event(now, s, true))
		}
		delete(e.states, target)
	}
	e.active.Store(int64(active))
	return events
}

func (s *networkState) take(now time.Time, o *NetworkObservation, window time.Duration) {
	if n := len(s.trail); n > 0 && o.before(&s.trail[n-1].NetworkObservation) {
		s.trail = s.trail[:0] // another life
	}
	s.trail = append(s.trail, networkPoint{now, *o})
	s.trail = slices.Delete(s.trail, 0, slices.IndexFunc(s.trail, func(p networkPoint) bool { return now.Sub(p.at) <= window }))
	s.seen = now
}

// before tells of counters that went back, or came or went.
func (o *NetworkObservation) before(last *NetworkObservation) bool {
	if (o.AcceptOverflows == nil) != (last.AcceptOverflows == nil) {
		return true
	}
	return o.Sent < last.Sent || o.Received < last.Received || o.Retransmits < last.Retransmits ||
		o.Connections < last.Connections || o.Refused < last.Refused || o.ResetsReceived < last.ResetsReceived ||
		o.AcceptOverflows != nil && *o.AcceptOverflows < *last.AcceptOverflows || total(o.Drops) < total(last.Drops)
}

func total(drops map[string]uint64) (n uint64) {
	for _, d := range drops {
		n += d
	}
	return n
}

// growth is what the trail's last point has more than its first.
func (s *networkState) growth() (g NetworkObservation, took time.Duration) {
	first, last := s.trail[0], s.trail[len(s.trail)-1]
	g = NetworkObservation{
		Target: last.Target, Sent: last.Sent - first.Sent, Received: last.Received - first.Received,
		Retransmits: last.Retransmits - first.Retransmits, Connections: last.Connections - first.Connections,
		Refused: last.Refused - first.Refused, ResetsReceived: last.ResetsReceived - first.ResetsReceived,
	}
	if last.AcceptOverflows != nil {
		n := *last.AcceptOverflows - *first.AcceptOverflows
		g.AcceptOverflows = &n
	}
	for reason, n := range last.Drops {
		if n > first.Drops[reason] {
			if g.Drops == nil {
				g.Drops = map[string]uint64{}
			}
			g.Drops[reason] = n - first.Drops[reason]
		}
	}
	return g, last.at.Sub(first.at)
}

// share is bad of what there was; 0 while bad is too little to tell.
func (e *NetworkEngine) share(bad, all uint64) float64 {
	if bad < max(e.cfg.MinEvents, 1) || all == 0 {
		return 0
	}
	return min(float64(bad)/float64(all), 1)
}

// worst is the largest of the shares that go wrong: segments sent again, connections
// turned away, attempts refused, packets dropped of those that were seen.
func (e *NetworkEngine) worst(g *NetworkObservation) float64 {
	worst := e.share(g.Retransmits, g.Sent)
	if g.AcceptOverflows != nil {
		worst = max(worst, e.share(*g.AcceptOverflows, *g.AcceptOverflows+g.Connections))
	}
	worst = max(worst, e.share(g.Refused, g.Refused+g.Connections))
	drops := total(g.Drops)
	return max(worst, e.share(drops, drops+g.Sent+g.Received))
}

// judge updates the state and tells whether an event is due.
func (e *NetworkEngine) judge(now time.Time, s *networkState) (resolved, due bool) {
	worst, band := 0.0, 0
	if g, took := s.growth(); took >= e.cfg.MinWindow {
		worst = e.worst(&g)
		i, found := slices.BinarySearch(e.bounds, worst)
		if band = i; found {
			band++
		}
	}
	higher := band > s.band
	switch {
	case worst >= e.cfg.Threshold/2:
		s.calm = time.Time{}
	case s.calm.IsZero():
		s.calm = now
	}
	switch {
	case !s.told && band == 0:
		return false, false
	case s.told && !s.calm.IsZero() && now.Sub(s.calm) >= e.cfg.Hold:
		s.band, s.told = 0, false
		return true, true
	case higher, !s.told:
		s.band = band
	case e.cfg.Resend > 0 && s.calm.IsZero() && now.Sub(s.sent) >= e.cfg.Resend:
		s.band = max(band, 1) // it may have become better meanwhile
	default:
		return false, false
	}
	s.told, s.sent = true, now
	return false, true
}

func (e *NetworkEngine) event(now time.Time, s *networkState, resolved bool) wire.NetworkIssue {
	g, took := s.growth()
	drops := total(g.Drops)
	out := wire.NetworkIssue{
		Head: wire.Head{
			Type: wire.TypeNetworkIssue, PodName: g.Target.Pod, Namespace: g.Target.Namespace,
			ContainerName: g.Target.Container, PodUID: g.Target.PodUID, NodeName: e.cfg.Node,
			Timestamp: now.UTC(), Resolved: resolved,
		},
		SegmentsSent: &g.Sent, SegmentsReceived: &g.Received, TCPRetransmits: &g.Retransmits,
		Connections: &g.Connections, AcceptQueueOverflows: g.AcceptOverflows,
		ConnectionsRefused: &g.Refused, ResetsReceived: &g.ResetsReceived,
		Drops: &drops, DropReasons: g.Drops,
	}
	if seconds := took.Seconds(); seconds > 0 {
		out.PeriodSeconds = &seconds
	}
	return out
}
