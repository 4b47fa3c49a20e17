package whatif

import (
	"math"
	"slices"
	"time"
)

const (
	// window is what a Model looks back on: two minutes, so that one spike a minute
	// is in it.
	window = 2 * time.Minute
	// halfLife is how fast the need of a past spike fades.
	halfLife = time.Hour
)

// Model holds the recent periods of one container. It is not safe for concurrent use.
type Model struct {
	cfg     Config
	bounds  Bounds
	periods []Period
	coarse  bool

	need   float64       // recommended of past windows, faded; cores
	needAt time.Duration // when it was last looked at

	pending *Check // of the limit that is now in force, without what is measured
	check   *Check
	checked bool // since the last Checked
}

// NewModel returns a Model that has observed nothing.
func NewModel(cfg Config) (*Model, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Model{cfg: cfg, bounds: Bounds{CPUs: 1}}, nil
}

// SetBounds tells what the container could use at most. Another burst is another
// limit: what was observed under the old one is forgotten.
func (m *Model) SetBounds(b Bounds) {
	if b.Burst != m.bounds.Burst {
		m.periods, m.pending = nil, nil
	}
	m.bounds = b
}

// Add takes periods that closed, oldest first. A period of another limit than the
// one before begins a new observation; what the old one predicts for it is kept to
// be checked.
func (m *Model) Add(ps ...Period) {
	m.add(false, ps)
}

// AddSecond takes one-second figures of cpu.stat, for want of periods: throttled
// ones are taken to come first, to have used the quota and been denied the same.
func (m *Model) AddSecond(at time.Duration, quota, length, used, denied time.Duration, periods, throttled int) {
	throttled = min(throttled, periods)
	if periods <= 0 || length <= 0 {
		return
	}
	free := time.Duration(periods - throttled)
	cut := min(time.Duration(throttled)*quota, used)
	ps := make([]Period, periods)
	for i := range ps {
		ps[i] = Period{Start: at - time.Duration(periods-i)*length, Quota: quota, Length: length, Throttled: i < throttled}
		if i < throttled {
			ps[i].Used, ps[i].Denied = cut/time.Duration(throttled), denied/time.Duration(throttled)
		} else {
			ps[i].Used = (used - cut) / free
		}
	}
	if free == 0 { // what is over the quota is the last one's
		ps[periods-1].Used += used - cut
	}
	m.add(true, ps)
}

func (m *Model) add(coarse bool, ps []Period) {
	if coarse != m.coarse {
		m.periods, m.coarse = nil, coarse
	}
	for _, p := range ps {
		if p.Length <= 0 || p.Quota <= 0 {
			continue
		}
		if n := len(m.periods); n > 0 {
			last := m.periods[n-1]
			switch {
			case last.Quota != p.Quota || last.Length != p.Length:
				m.changed(p)
			case p.Start < last.Start+last.Length/2:
				continue // told twice
			case p.Start-last.Start > window:
				m.periods = nil
			}
		}
		m.periods = append(m.periods, p)
	}
	if n := len(m.periods); n > 0 {
		from := m.periods[n-1].Start - window
		if i := slices.IndexFunc(m.periods, func(p Period) bool { return p.Start > from }); i > 0 {
			m.periods = m.periods[:copy(m.periods, m.periods[i:])]
		}
	}
}

// changed keeps what the observation until now predicts for the limit of p. The
// first periods at the new limit still hold the old one's backlog and are short.
func (m *Model) changed(p Period) {
	r := Estimate(m.cfg, m.periods, m.bounds)
	m.pending = &Check{From: r.Cores, Before: r.Measured, Prediction: Prediction{Outcome: r.Outcome}}
	switch {
	case m.coarse || p.Length != m.periods[0].Length:
		m.pending.Outcome = ""
	case r.Outcome == Predicted:
		m.pending.Prediction = newEstimator(m.cfg, m.periods, m.bounds).at(float64(p.Quota))
	}
	m.pending.Cores = float64(p.Quota) / float64(p.Length)
	m.periods = m.periods[:0]
}

// Estimate answers from what was added.
func (m *Model) Estimate() Result {
	r := Estimate(m.cfg, m.periods, m.bounds)
	if r.Outcome != TooShort && m.pending != nil {
		m.pending.Measured = r.Measured
		m.check, m.pending, m.checked = m.pending, nil, true
	}
	r.Check = m.check
	if r.Outcome != Predicted {
		return r
	}
	if m.coarse {
		r.Confidence = Low
	}
	now := m.periods[len(m.periods)-1].Start
	if m.need > r.Recommended {
		faded := math.Exp2(-float64(now-m.needAt) / float64(halfLife))
		m.need = r.Recommended + (m.need-r.Recommended)*faded
	}
	m.need, m.needAt = max(m.need, r.Recommended), now
	if m.need > r.Recommended*1.01 {
		r.Recommended = m.need
		r.AtRecommended = newEstimator(m.cfg, m.periods, m.bounds).at(m.need * float64(m.periods[0].Length))
	}
	return r
}

// Checked returns the check that came of the last Estimate, once.
func (m *Model) Checked() (Check, bool) {
	if !m.checked {
		return Check{}, false
	}
	m.checked = false
	return *m.check, true
}
