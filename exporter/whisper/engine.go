package whisper

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	// followUp is how long after a container was told calm a change of its limit may
	// be judged: the model takes a minute at the new one.
	followUp = 10 * time.Minute
	// answerAgain is how soon another answer of the what-if model is told.
	answerAgain = time.Minute
)

// Config of the Engine. Ratios are 0 to 1.
type Config struct {
	// Threshold: a container whose throttle ratio is at least this whispers.
	Threshold float64
	// ResolveBelow: one that whispers is calm while its ratio is below this.
	ResolveBelow float64
	// Bands above Threshold, rising; entering another band is an event.
	Bands []float64
	// BandMargin: to fall into a lower band the ratio must be this far below the bound.
	BandMargin float64
	// MinPeriods the window must hold for its ratio to count.
	MinPeriods uint64
	// Hold is how long a container must be calm, or below its band, or gone, to be told so.
	Hold time.Duration
	// Resend is after how long the standing event of a container that still whispers
	// is sent again, so that an operator that lost its state recovers; 0: never.
	Resend time.Duration
	// Node is the events' node_name; may be empty.
	Node string
}

// DefaultConfig is the thresholds of the product: 50, 75 and 90 %, told calm below
// 25 % for 10 s, each judged on at least 20 periods, told again each 5 minutes.
func DefaultConfig() Config {
	return Config{
		Threshold:    0.50,
		ResolveBelow: 0.25,
		Bands:        []float64{0.75, 0.90},
		BandMargin:   0.05,
		MinPeriods:   20,
		Hold:         10 * time.Second,
		Resend:       5 * time.Minute,
	}
}

func (c Config) validate() error {
	switch {
	case !(c.Threshold > 0 && c.Threshold <= 1):
		return fmt.Errorf("whisper threshold %g must be above 0 and at most 1", c.Threshold)
	case !(c.ResolveBelow > 0 && c.ResolveBelow <= c.Threshold):
		return fmt.Errorf("whisper threshold to resolve below, %g, must be above 0 and at most the threshold, %g", c.ResolveBelow, c.Threshold)
	case !(c.BandMargin >= 0 && c.BandMargin < 1):
		return fmt.Errorf("whisper band margin %g must be from 0 to below 1", c.BandMargin)
	case c.Hold < 0 || c.Resend < 0:
		return fmt.Errorf("whisper hold %s and resend %s must not be negative", c.Hold, c.Resend)
	}
	for i, b := range c.Bands {
		if !(b > c.Threshold && b <= 1) || i > 0 && b <= c.Bands[i-1] {
			return fmt.Errorf("whisper bands %v must rise from above the threshold, %g, to at most 1", c.Bands, c.Threshold)
		}
	}
	return nil
}

// Target is whom a whisper is about: names as the operator validates them.
// Container is empty for a pod's own cgroup and outside Kubernetes (see wire.HostPod).
type Target struct {
	Namespace string
	Pod       string
	Container string
	PodUID    string
}

// Observation is one container at one sample. Nil is "not measured".
type Observation struct {
	Target Target

	// Window, Periods, Throttled and ThrottledTime are the growth of cpu.stat over the
	// trailing window, or over the container's life while that is shorter; then the
	// counters began at 0 with the cgroup.
	Window        time.Duration
	Periods       uint64        // Δnr_periods
	Throttled     uint64        // Δnr_throttled
	ThrottledTime time.Duration // Δthrottled_usec, summed over CPUs

	UsedCores        *float64 // over the same window
	ReportedCores    *float64 // what kubectl top shows
	LimitCores       *float64
	RecommendedCores *float64
	WhatIf           []wire.WhatIf
	// Prediction is the what-if model's; nil where it does not run.
	Prediction *wire.Prediction
	// QOSClass of the pod; empty where it is not known.
	QOSClass string
	// EBPF tells that BPF programs measured the container, beside cpu.stat.
	EBPF bool
}

// ratio is false when the window holds no period.
func (o *Observation) ratio() (float64, bool) {
	if o.Periods == 0 {
		return 0, false
	}
	// A sample between the kernel's two increments may see one throttled period more.
	return min(float64(o.Throttled)/float64(o.Periods), 1), true
}

// answer is what the what-if model says in kind, of which limit; empty while it can't
// tell.
func (o *Observation) answer() string {
	p := o.Prediction
	if p == nil || p.Outcome == "too_short" || o.LimitCores == nil {
		return ""
	}
	return fmt.Sprintf("%s at %.3f", p.Outcome, *o.LimitCores)
}

// checked is when the last change of the limit could be judged; zero: there is none.
func (o *Observation) checked() time.Time {
	if o.Prediction == nil || o.Prediction.Check == nil {
		return time.Time{}
	}
	return o.Prediction.Check.Timestamp
}

// Engine decides. It is not safe for concurrent use, but for Active.
type Engine struct {
	cfg    Config
	bounds []float64 // of the bands, rising; band b begins at bounds[b-1]
	states map[Target]*state
	over   map[Target]over
	active atomic.Int64
}

// state is a container that whispers.
type state struct {
	band  int       // 1..len(bounds)
	below time.Time // since when it is below its band or calm; zero: it is not
	calm  time.Time // since when it is calm; zero: it is not
	seen  time.Time
	sent  time.Time
	whole bool        // what is reported was known when it was last told
	last  Observation // the newest in which its band was judged

	answer  string    // of the what-if model, when it was last told
	checked time.Time // likewise
}

// over is a container that was told calm. When a higher limit made it so, the model
// knows only later what the limit did.
type over struct {
	since   time.Time
	checked time.Time
}

// NewEngine returns an Engine without memory, or what is wrong with cfg.
func NewEngine(cfg Config) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Engine{
		cfg:    cfg,
		bounds: append([]float64{cfg.Threshold}, cfg.Bands...),
		states: map[Target]*state{},
		over:   map[Target]over{},
	}, nil
}

// Active is the number of containers that whisper.
func (e *Engine) Active() int { return int(e.active.Load()) }

// Observe takes one sample of all containers and returns the events that are due:
// a threshold crossed, another band, what is reported known at last, the what-if
// model's answer or what a changed limit did, still whispering after Resend, or
// resolved.
// A container that has no name yet is left for later. One that is not among
// observations is gone once that lasted for Hold.
func (e *Engine) Observe(now time.Time, observations []Observation) []wire.CPUThrottle {
	var events []wire.CPUThrottle
	for i := range observations {
		o := &observations[i]
		if o.Target.Namespace == "" || o.Target.Pod == "" {
			continue
		}
		if resolved, due := e.judge(now, o); due {
			events = append(events, e.event(now, o, resolved))
		}
	}
	for t, s := range e.over {
		if now.Sub(s.since) > followUp {
			delete(e.over, t)
		}
	}
	for t, s := range e.states {
		if !s.seen.Equal(now) && now.Sub(s.seen) >= e.cfg.Hold {
			delete(e.states, t)
			events = append(events, e.event(now, &s.last, true))
		}
	}
	e.active.Store(int64(len(e.states)))
	return events
}

// judge updates the state of o's container and tells whether an event is due.
func (e *Engine) judge(now time.Time, o *Observation) (resolved, due bool) {
	ratio, ok := o.ratio()
	s := e.states[o.Target]
	if s == nil {
		band := e.band(ratio)
		if !ok || band == 0 || o.Periods < e.cfg.MinPeriods {
			past, is := e.over[o.Target]
			due = is && o.checked().After(past.checked)
			if due {
				delete(e.over, o.Target)
			}
			return true, due
		}
		delete(e.over, o.Target)
		s = &state{band: band, seen: now, last: *o}
		s.told(now, o)
		e.states[o.Target] = s
		return false, true
	}
	s.seen = now
	// Half of the periods will do to go on: a window at the edge must not flap.
	if !ok || o.Periods < e.cfg.MinPeriods/2 {
		ratio = 0
	} else {
		s.last = *o
	}

	if ratio >= e.cfg.ResolveBelow {
		s.calm = time.Time{}
	} else if s.calm.IsZero() {
		s.calm = now
	}
	if !s.calm.IsZero() && now.Sub(s.calm) >= e.cfg.Hold {
		delete(e.states, o.Target)
		if o.Prediction != nil {
			e.over[o.Target] = over{now, o.checked()}
		}
		return true, true
	}

	band := e.band(ratio)
	lower := s.band > 1 && ratio < e.bounds[s.band-1]-e.cfg.BandMargin
	switch {
	case !lower:
		s.below = time.Time{}
	case s.below.IsZero():
		s.below = now
	}
	switch {
	case band > s.band:
		s.band = band
	case lower && s.calm.IsZero() && now.Sub(s.below) >= e.cfg.Hold:
		// Below the threshold, yet not calm: the lowest band.
		s.band = max(band, 1)
		s.below = time.Time{}
	case !s.whole && o.ReportedCores != nil: // the other half of the evidence came in
	case o.checked().After(s.checked): // what a changed limit did
	case o.answer() != "" && o.answer() != s.answer && (s.answer == "" || now.Sub(s.sent) >= answerAgain):
	case e.cfg.Resend > 0 && now.Sub(s.sent) >= e.cfg.Resend:
	default:
		return false, false
	}
	s.told(now, o)
	return false, true
}

// told keeps what an event that is sent now says.
func (s *state) told(now time.Time, o *Observation) {
	s.sent, s.whole, s.checked = now, o.ReportedCores != nil, o.checked()
	if a := o.answer(); a != "" {
		s.answer = a
	}
}

// band is 0 below the threshold.
func (e *Engine) band(ratio float64) int {
	i, found := slices.BinarySearch(e.bounds, ratio)
	if found {
		return i + 1
	}
	return i
}

func (e *Engine) event(now time.Time, o *Observation, resolved bool) wire.CPUThrottle {
	ratio, _ := o.ratio()
	throttled := uint64(max(o.ThrottledTime, 0))
	return wire.CPUThrottle{
		Head: wire.Head{
			Type:          wire.TypeCPUThrottle,
			PodName:       o.Target.Pod,
			Namespace:     o.Target.Namespace,
			ContainerName: o.Target.Container,
			PodUID:        o.Target.PodUID,
			NodeName:      e.cfg.Node,
			Timestamp:     now.UTC(),
			Resolved:      resolved,
		},
		ThrottlePercentage:  100 * ratio,
		ActualCPUUsage:      o.UsedCores,
		ReportedCPUUsage:    o.ReportedCores,
		PeriodSeconds:       o.Window.Seconds(),
		ThrottleNs:          &throttled,
		EBPFDetection:       o.EBPF,
		CPULimit:            o.LimitCores,
		RecommendedCPULimit: o.RecommendedCores,
		WhatIf:              o.WhatIf,
		Prediction:          o.Prediction,
		QOSClass:            o.QOSClass,
	}
}
