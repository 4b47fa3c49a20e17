package whisper

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// SecurityConfig of the SecurityEngine.
type SecurityConfig struct {
	// Gap is the least time between two events of one container, so that whoever makes
	// many can't have many written.
	Gap time.Duration
	// Resend is after how long more of the same is told; 0: never.
	Resend time.Duration
	// Hold is how long nothing must happen for it to be told over.
	Hold time.Duration
	// Rank of an event by its name: of several the one with the highest speaks.
	Rank func(event string) int
	// Node is the events' node_name; may be empty.
	Node string
}

// DefaultSecurityConfig tells the first event of a kind at once, but no two within 10 s;
// more of the same each 5 minutes; and the end after 10 quiet minutes.
func DefaultSecurityConfig() SecurityConfig {
	return SecurityConfig{Gap: 10 * time.Second, Resend: 5 * time.Minute, Hold: 10 * time.Minute, Rank: func(string) int { return 0 }}
}

func (c SecurityConfig) validate() error {
	if c.Gap < 0 || c.Resend < c.Gap || c.Hold <= 0 || c.Rank == nil {
		return fmt.Errorf("security whispers: gap %s, resend %s and hold %s must rise, and the rank be known", c.Gap, c.Resend, c.Hold)
	}
	return nil
}

// SecurityObservation is one container at one sample. Counts are cumulative, by event.
type SecurityObservation struct {
	Target Target
	Counts map[string]uint64
	// Last is who last did each. It must not change afterwards.
	Last map[string]SecurityProcess
}

// SecurityProcess is who did it, and to what.
type SecurityProcess struct {
	Binary, Comm string
	PID, UID     uint64
	Ancestry     []string
	Detail       string
}

// SecurityEngine decides what of the security events is told, and how often. It is pure
// and not safe for concurrent use, but for Active.
type SecurityEngine struct {
	cfg    SecurityConfig
	states map[Target]*securityState
	active atomic.Int64
}

type securityState struct {
	counts map[string]uint64 // as last seen
	last   map[string]SecurityProcess
	// events of this episode that are seen, and that are told
	episode, told map[string]uint64
	began, at     time.Time // the episode's first and last event
	sent, seen    time.Time
	whispers      bool
}

// NewSecurityEngine returns an engine that has seen nothing yet, or what is wrong with cfg.
func NewSecurityEngine(cfg SecurityConfig) (*SecurityEngine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &SecurityEngine{cfg: cfg, states: map[Target]*securityState{}}, nil
}

// Active is the number of containers that whisper.
func (e *SecurityEngine) Active() int { return int(e.active.Load()) }

// Observe takes one sample of all containers and returns the events that are due: a kind
// that was not told yet, more of the same after Resend, or over.
func (e *SecurityEngine) Observe(now time.Time, observations []SecurityObservation) []wire.SecurityEvent {
	var events []wire.SecurityEvent
	for i := range observations {
		o := &observations[i]
		s := e.states[o.Target]
		if o.Target.Namespace == "" || o.Target.Pod == "" || s == nil && len(o.Counts) == 0 {
			continue
		}
		if s == nil {
			s = &securityState{episode: map[string]uint64{}, told: map[string]uint64{}}
			e.states[o.Target] = s
		}
		s.take(now, o)
	}
	active := 0
	for _, target := range slices.SortedFunc(maps.Keys(e.states), compareTargets) {
		s := e.states[target]
		switch {
		case s.whispers && now.Sub(s.at) >= e.cfg.Hold:
			events = append(events, e.event(now, target, s, true))
			s.episode, s.told, s.whispers = map[string]uint64{}, map[string]uint64{}, false
		case e.due(now, s):
			events = append(events, e.event(now, target, s, false))
			s.whispers, s.sent, s.told = true, now, maps.Clone(s.episode)
		}
		if s.whispers {
			active++
		} else if now.Sub(s.seen) >= e.cfg.Hold {
			delete(e.states, target)
		}
	}
	e.active.Store(int64(active))
	return events
}

func compareTargets(a, b Target) int {
	return slices.Compare([]string{a.Namespace, a.Pod, a.Container, a.PodUID}, []string{b.Namespace, b.Pod, b.Container, b.PodUID})
}

// take adds what is new. A count that went back is that of another life, which began at 0.
func (s *securityState) take(now time.Time, o *SecurityObservation) {
	s.seen, s.last = now, o.Last
	for _, event := range slices.Sorted(maps.Keys(o.Counts)) {
		n, before := o.Counts[event], s.counts[event]
		if n < before {
			before = 0
		}
		if n > before {
			if len(s.episode) == 0 {
				s.began = now
			}
			s.episode[event] += n - before
			s.at = now
		}
	}
	s.counts = o.Counts
}

func (e *SecurityEngine) due(now time.Time, s *securityState) bool {
	if len(s.episode) == 0 || s.whispers && now.Sub(s.sent) < e.cfg.Gap {
		return false
	}
	more := false
	for event, n := range s.episode {
		if s.told[event] == 0 {
			return true
		}
		more = more || n > s.told[event]
	}
	return more && e.cfg.Resend > 0 && now.Sub(s.sent) >= e.cfg.Resend
}

func (e *SecurityEngine) event(now time.Time, target Target, s *securityState, resolved bool) wire.SecurityEvent {
	gravest := slices.MinFunc(slices.Collect(maps.Keys(s.episode)), func(a, b string) int {
		if d := e.cfg.Rank(b) - e.cfg.Rank(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	n := s.episode[gravest]
	out := wire.SecurityEvent{
		Head: wire.Head{
			Type: wire.TypeSecurityEvent, PodName: target.Pod, Namespace: target.Namespace,
			ContainerName: target.Container, PodUID: target.PodUID, NodeName: e.cfg.Node,
			Timestamp: now.UTC(), Resolved: resolved,
		},
		Event: gravest, Count: &n, Events: maps.Clone(s.episode),
	}
	if seconds := s.at.Sub(s.began).Seconds(); seconds > 0 {
		out.PeriodSeconds = &seconds
	}
	if p, ok := s.last[gravest]; ok {
		out.Binary, out.Comm, out.PID, out.UID = p.Binary, p.Comm, &p.PID, &p.UID
		out.Ancestry, out.Detail = p.Ancestry, p.Detail
	}
	return out
}
