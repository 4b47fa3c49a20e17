package whatif

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Config is what estimates are made with.
type Config struct {
	// Multiples of the present limit to predict for.
	Multiples []float64
	// Target is the share of throttled periods to stay at or below.
	Target float64
	// MinWindow and MinPeriods are the least to rest a prediction on.
	MinWindow  time.Duration
	MinPeriods int
	// MinClear is the share of periods outside of episodes below which demand can't be
	// told, and Edge how near to the mean demand a limit decides nothing. With 0 it is
	// told all the same: for looking at how far off that is.
	MinClear, Edge float64
}

// DefaultConfig rests on a minute at least: 1 % of fewer periods can't be told
// from chance.
func DefaultConfig() Config {
	return Config{
		Multiples:  []float64{0.5, 0.75, 1.5, 2},
		Target:     0.01,
		MinWindow:  time.Minute,
		MinPeriods: 60,
		MinClear:   0.25,
		Edge:       0.20,
	}
}

func (c Config) validate() error {
	if c.Target <= 0 || c.Target >= 1 {
		return fmt.Errorf("what-if target %g must be above 0 and below 1", c.Target)
	}
	if c.MinWindow <= 0 || c.MinPeriods <= 0 {
		return errors.New("what-if needs a window and a number of periods above 0 to rest on")
	}
	if c.MinClear < 0 || c.MinClear >= 1 || c.Edge < 0 || c.Edge >= 1 {
		return fmt.Errorf("what-if least clear share %g and edge %g must be from 0 to below 1", c.MinClear, c.Edge)
	}
	for _, m := range c.Multiples {
		if m <= 0 || math.IsInf(m, 1) {
			return fmt.Errorf("what-if multiple %g of the limit must be above 0 and finite", m)
		}
	}
	return nil
}

// Bounds are what the container could use at most.
type Bounds struct {
	CPUs  int           // it may run on; at least 1
	Burst time.Duration // cpu.max.burst at the present limit
}

const (
	// margin is by how much demand may be off: the next minute is not this one.
	margin = 0.05
	// headroom is how far above the mean use a recommended limit is at least.
	headroom = 0.15
	z        = 1.64 // standard errors of a 90 % interval
)

// estimator is a trace with the ways to place the work that was put off.
type estimator struct {
	trace
	cfg    Config
	length float64
	quota  float64
	burst  float64
	most   float64

	low, best, high, wide []float64 // demand per slot
}

// Estimate answers from periods of one limit, oldest first. It changes nothing.
func Estimate(cfg Config, ps []Period, b Bounds) Result {
	r := Result{Outcome: TooShort, Periods: len(ps), Window: span(ps)}
	if len(ps) == 0 {
		r.Reason = "cannot tell yet: no bandwidth period has been observed"
		return r
	}
	e := newEstimator(cfg, ps, b)
	r.Cores, r.Mean = e.quota/e.length, e.mean/e.length
	r.Measured = ratio(e.cut, e.counted)
	switch {
	case r.Window < cfg.MinWindow || r.Periods < cfg.MinPeriods:
		r.Reason = fmt.Sprintf("cannot tell yet: %d periods in %s at this limit, at least %d in %s are needed",
			r.Periods, r.Window.Round(time.Second), cfg.MinPeriods, cfg.MinWindow)
		return r
	case e.clear < cfg.MinClear:
		r.Peak = slices.Max(e.wide) / e.length
		r.Outcome, r.Next = Saturated, e.next()/e.length
		r.Reason = fmt.Sprintf("cannot tell yet: %.0f%% of periods are free of backlog, so what it wants is not known; try %.2f cores, then look again",
			100*e.clear, r.Next)
		return r
	}
	r.Outcome, r.Confidence, r.Peak = Predicted, High, slices.Max(e.wide)/e.length
	if r.Measured > cfg.Target {
		r.Confidence = Medium
	}
	for _, m := range cfg.Multiples {
		p := e.at(m * e.quota)
		p.Multiple = m // not what rounding makes of it
		r.At = append(r.At, p)
	}
	need := e.need()
	r.Recommended, r.AtRecommended = need/e.length, e.at(need)
	r.alternatives(e)
	return r
}

func newEstimator(cfg Config, ps []Period, b Bounds) *estimator {
	last := ps[len(ps)-1]
	e := &estimator{
		trace: grid(ps), cfg: cfg, length: float64(last.Length), quota: float64(last.Quota), burst: float64(b.Burst),
		most: float64(max(b.CPUs, 1)) * float64(last.Length),
	}
	e.low = e.demand(e.mean, e.most)
	e.best = e.demand(e.free, e.most)
	e.high = e.demand(e.free/2, e.most)
	e.wide = e.demand(0, e.most)
	return e
}

// at predicts for a limit in ns per period. A burst stays as it is.
func (e *estimator) at(quota float64) Prediction {
	p := Prediction{Cores: quota / e.length, Multiple: quota / e.quota, Outcome: KnifeEdge}
	if math.Abs(quota-e.mean) < e.cfg.Edge*e.mean {
		return p
	}
	p.Outcome = Predicted
	burst := min(e.burst, quota) // as the kernel demands
	p.Ratio = ratio(replay(e.best, 1, quota, burst, e.most))
	k, n := replay(e.low, 1-margin, quota, burst, e.most)
	p.Low, _ = wilson(k, n, z)
	k, n = replay(e.high, 1+margin, quota, burst, e.most)
	_, p.High = wilson(k, n, z)
	p.Low, p.High = min(p.Low, p.Ratio), max(p.High, p.Ratio)
	return p
}

// need is the smallest limit that holds the target, in ns per period: where
// throttling moved work about, with all of it placed as early as it can have come.
func (e *estimator) need() float64 {
	demand, least := e.best, max(e.mean*(1+headroom), e.length/100)
	if ratio(e.cut, e.counted) > e.cfg.Target {
		demand, least = e.wide, max(least, e.quota*(1+margin))
	}
	least = min(least, e.most)
	return smallest(least, e.most, func(quota float64) bool {
		return ratio(replay(demand, 1+margin, quota, min(e.burst, quota), e.most)) <= e.cfg.Target
	})
}

// next is where to look again when saturated: what was used and denied together
// bounds what the threads could have used in a period.
func (e *estimator) next() float64 {
	d := make([]float64, len(e.slots))
	for i, s := range e.slots {
		d[i] = min(s.used+s.denied, e.most)
	}
	return smallest(min(e.quota*1.1, e.most), e.most, func(quota float64) bool {
		over := 0
		for _, want := range d {
			if want > quota {
				over++
			}
		}
		return ratio(over, len(d)) <= 0.05
	})
}

// alternatives are the ratios at the present limit if something else changed.
func (r *Result) alternatives(e *estimator) {
	burst := ratio(replay(e.best, 1, e.quota, max(e.quota, e.burst), e.most))
	r.Burst = &burst
	r.Threads = max(1, int(e.quota/e.length))
	fewer := ratio(replay(e.best, 1, e.quota, e.burst, float64(r.Threads)*e.length))
	r.Parallelism = &fewer
}
