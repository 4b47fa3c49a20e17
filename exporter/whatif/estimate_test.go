package whatif

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func measured(ps []Period) float64 {
	n := 0
	for _, p := range ps {
		if p.Throttled {
			n++
		}
	}
	return ratio(n, len(ps))
}

// The simulator itself, on loads whose answer is plain.
func TestSimulator(t *testing.T) {
	every := func(interval, work float64) (jobs []simJob) {
		for at := 1.0; at < 60_000; at += interval {
			jobs = append(jobs, simJob{at, work})
		}
		return jobs
	}
	for name, c := range map[string]struct {
		jobs     []simJob
		quota    float64
		want     float64
		min, max int // periods
	}{
		"below the limit":             {every(100, 30), 40, 0, 599, 600},
		"one period in two":           {every(200, 60), 40, 0.5, 599, 600},
		"more than the limit":         {every(100, 50), 40, 1, 599, 600},
		"idle in between: two of ten": {every(1000, 20), 40, 0, 119, 121},
	} {
		t.Run(name, func(t *testing.T) {
			ps := simulate(c.jobs, 1, c.quota, 0, 60_000)
			assert.InDelta(t, c.want, measured(ps), 0.01)
			assert.GreaterOrEqual(t, len(ps), c.min)
			assert.LessOrEqual(t, len(ps), c.max)
		})
	}
}

// What the estimator says from one limit, against a simulation at another. Each
// load is its own subtest's cause: the mean error has to hold, single ones may not.
func TestAgainstTheSimulator(t *testing.T) {
	const until = 70_000
	cfg := DefaultConfig()
	var up, down, covered, n float64
	var ups, downs int
	saturated, wide := 0, 0
	for seed := range uint64(60) {
		jobs := randomJobs(rand.New(rand.NewPCG(seed, 7)), until)
		limits := []float64{15, 30, 60, 90, 140}
		runs := map[float64][]Period{}
		for _, l := range limits {
			runs[l] = simulate(jobs, 2, l, 0, until)
		}
		for _, from := range limits {
			ps := runs[from]
			if len(ps) < cfg.MinPeriods {
				continue
			}
			e := newEstimator(cfg, ps, Bounds{CPUs: 2})
			r := Estimate(cfg, ps, Bounds{CPUs: 2})
			for _, to := range limits {
				if from == to {
					continue
				}
				truth := measured(runs[to])
				raw := ratio(replay(e.best, 1, to*1e6, 0, e.most))
				at := e.at(to * 1e6)
				if r.Outcome == Saturated || at.Outcome == KnifeEdge {
					if math.Abs(raw-truth) > 0.15 {
						wide++
						saturated++
					}
					continue
				}
				if math.Abs(raw-truth) > 0.15 {
					wide++
				}
				miss := 100 * math.Abs(at.Ratio-truth)
				switch {
				case to > from:
					up += miss
					ups++
				case to*1e6 >= 1.1*e.mean:
					down += miss
					downs++
				default:
					continue
				}
				n++
				if truth >= at.Low-1e-9 && truth <= at.High+1e-9 {
					covered++
				}
			}
		}
	}
	t.Logf("mean error: up %.2f points of %d, down %.2f of %d; interval holds in %.1f%%; %d of %d errors over 15 points were declined",
		up/float64(ups), ups, down/float64(downs), downs, 100*covered/n, saturated, wide)
	require.Greater(t, ups, 200)
	require.Greater(t, downs, 100)
	assert.LessOrEqual(t, up/float64(ups), 2.0)
	assert.LessOrEqual(t, down/float64(downs), 2.0)
	assert.GreaterOrEqual(t, covered/n, 0.9)
}

// Properties that hold for any observation.
func TestProperties(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			quota := 10 + rnd.Float64()*100
			ps := simulate(randomJobs(rnd, 30_000), 2, quota, 0, 30_000)
			require.NotEmpty(t, ps)
			e := newEstimator(DefaultConfig(), ps, Bounds{CPUs: 2})
			used := 0.0
			for _, s := range e.slots {
				used += s.used
			}
			for name, d := range map[string][]float64{"low": e.low, "best": e.best, "high": e.high, "wide": e.wide} {
				sum := 0.0
				for _, v := range d {
					require.GreaterOrEqual(t, v, -1e-3, name)
					sum += v
				}
				assert.InDelta(t, used, sum, 1, "%s: work is moved, not made", name)
			}
			throttled, _ := replay(e.best, 1, e.most, 0, e.most)
			assert.Zero(t, throttled, "with every CPU to itself nothing is throttled")
			last := math.MaxInt
			for _, l := range []float64{10, 20, 40, 80, 160} {
				k, n := replay(e.best, 1, l*1e6, 0, e.most)
				assert.LessOrEqual(t, k, last, "a higher limit never throttles more")
				assert.LessOrEqual(t, k, n+1)
				last = k
				with, _ := replay(e.best, 1, l*1e6, l*1e6, e.most)
				assert.LessOrEqual(t, with, k, "a burst never throttles more")
				if p := e.at(l * 1e6); p.Outcome == Predicted {
					assert.True(t, 0 <= p.Low && p.Low <= p.Ratio && p.Ratio <= p.High && p.High <= 1, "%+v", p)
				}
			}
		})
	}
}

func uniform(n int, quota, used, denied time.Duration, throttled bool) []Period {
	ps := make([]Period, n)
	for i := range ps {
		ps[i] = Period{Start: time.Duration(i) * ms100, Used: used, Denied: denied, Throttled: throttled, Quota: quota, Length: ms100}
	}
	return ps
}

const (
	ms    = time.Millisecond
	ms100 = 100 * ms
)

func TestOutcomes(t *testing.T) {
	cfg := DefaultConfig()
	t.Run("nothing observed", func(t *testing.T) {
		r := Estimate(cfg, nil, Bounds{CPUs: 2})
		assert.Equal(t, TooShort, r.Outcome)
		assert.Contains(t, r.Reason, "cannot tell yet")
	})
	t.Run("half a minute", func(t *testing.T) {
		r := Estimate(cfg, uniform(300, 20*ms, 10*ms, 0, false), Bounds{CPUs: 2})
		assert.Equal(t, TooShort, r.Outcome)
		assert.Equal(t, "cannot tell yet: 300 periods in 30s at this limit, at least 60 in 1m0s are needed", r.Reason)
		assert.Empty(t, r.At)
		assert.Zero(t, r.Recommended)
	})
	t.Run("always throttled", func(t *testing.T) {
		r := Estimate(cfg, uniform(600, 20*ms, 20*ms, 40*ms, true), Bounds{CPUs: 2})
		assert.Equal(t, Saturated, r.Outcome)
		assert.InDelta(t, 0.6, r.Next, 0.01, "used and denied")
		assert.Contains(t, r.Reason, "try 0.60 cores, then look again")
		assert.Zero(t, r.Recommended)
	})
	t.Run("never throttled", func(t *testing.T) {
		r := Estimate(cfg, uniform(600, 60*ms, 20*ms, 0, false), Bounds{CPUs: 2})
		require.Equal(t, Predicted, r.Outcome)
		assert.Equal(t, High, r.Confidence)
		assert.InDelta(t, 0.23, r.Recommended, 0.01)
		require.Len(t, r.At, 4)
		assert.Equal(t, Predicted, r.At[0].Outcome)
		assert.Zero(t, r.At[0].Ratio, "30 ms are enough for 20")
		assert.Less(t, r.At[0].High, 0.01)
		assert.Zero(t, r.AtRecommended.Ratio)
	})
	t.Run("at the edge", func(t *testing.T) {
		r := Estimate(cfg, uniform(600, 40*ms, 20*ms, 0, false), Bounds{CPUs: 2})
		assert.Equal(t, Prediction{Cores: 0.2, Multiple: 0.5, Outcome: KnifeEdge}, r.At[0], "no figure")
	})
	t.Run("short parallel bursts", func(t *testing.T) {
		// Two threads of 80 ms each second, at a limit of 120 ms: no average shows it.
		ps := simulate(pairs(1000, 80, 63_000), 2, 120, 0, 63_000)
		r := Estimate(cfg, ps, Bounds{CPUs: 2})
		require.Equal(t, Predicted, r.Outcome)
		assert.Greater(t, r.Measured, 0.3)
		assert.Equal(t, 1, r.Threads)
		assert.Zero(t, *r.Parallelism, "one thread can't use 1.2 CPUs")
		truth := simulate(pairs(1000, 80, 60_000), 2, 120, 120, 60_000)
		assert.InDelta(t, measured(truth), *r.Burst, 0.02)
	})
}

func pairs(interval, work, until float64) (jobs []simJob) {
	for at := 3.0; at < until; at += interval {
		jobs = append(jobs, simJob{at, work}, simJob{at, work})
	}
	return jobs
}

// From a limit that throttles over half of the periods to one that does not, in at
// most three steps, and at most 1.3 times the smallest. Near 1 % the ratio of some
// loads hardly falls with the limit: one in twenty may end up to 1.5 times as high.
func TestConvergence(t *testing.T) {
	const until = 120_000
	cfg, tried, above, worst := DefaultConfig(), 0, 0, 0.0
	for seed := range uint64(40) {
		jobs := randomJobs(rand.New(rand.NewPCG(seed, 13)), until)
		throttledAt := func(l float64) float64 { return measured(simulate(jobs, 2, l, 0, until)) }
		least := 200.0 // from which on all hold: near the target the ratio is not monotone
		for l := least; l > 5 && throttledAt(l) <= cfg.Target; l /= 1.02 {
			least = l
		}
		limit := 0.0
		for l := least * 0.8; l > 2; l *= 0.85 {
			if throttledAt(l) > 0.5 {
				limit = l
				break
			}
		}
		if limit == 0 || least >= 150 {
			continue // nothing throttles it so, or nothing is enough
		}
		var path []string
		for range 3 {
			ps := simulate(jobs, 2, limit, 0, until)
			r := Estimate(cfg, ps, Bounds{CPUs: 2})
			path = append(path, fmt.Sprintf("%.0f (%.0f%%, %s)", limit, 100*r.Measured, r.Outcome))
			next := r.Next * 100
			if r.Outcome == Predicted {
				next = r.Recommended * 100
			}
			if math.Abs(next-limit) < 0.03*limit {
				break
			}
			limit = next
		}
		tried++
		reached := throttledAt(limit)
		assert.LessOrEqual(t, reached, 0.02, "seed %d: %v, then %.0f; %.0f is enough", seed, path, limit, least)
		worst = max(worst, limit/least)
		if limit > 1.3*least {
			above++
		}
		assert.LessOrEqual(t, limit, 1.5*least, "seed %d: %v, then %.0f; %.0f is enough", seed, path, limit, least)
	}
	t.Logf("%d loads, %d above 1.3 times the smallest limit, the highest %.2f times", tried, above, worst)
	assert.LessOrEqual(t, above, tried/20)
	require.Greater(t, tried, 15)
}

func TestModel(t *testing.T) {
	add := func(m *Model, from, n int, quota, used time.Duration) int {
		for i := range n {
			m.Add(Period{Start: time.Duration(from+i) * ms100, Used: used, Throttled: used >= quota, Quota: quota, Length: ms100})
		}
		return from + n
	}
	newModel := func(t *testing.T) *Model {
		m, err := NewModel(DefaultConfig())
		require.NoError(t, err)
		m.SetBounds(Bounds{CPUs: 2})
		return m
	}
	t.Run("a changed limit begins anew, and what was said of it is checked", func(t *testing.T) {
		m := newModel(t)
		at := add(m, 0, 700, 80*ms, 20*ms)
		require.Equal(t, Predicted, m.Estimate().Outcome)
		at = add(m, at, 100, 40*ms, 20*ms)
		assert.Equal(t, TooShort, m.Estimate().Outcome)
		_, checked := m.Checked()
		assert.False(t, checked, "not yet")
		add(m, at, 600, 40*ms, 20*ms)
		r := m.Estimate()
		require.Equal(t, Predicted, r.Outcome)
		require.NotNil(t, r.Check)
		assert.Equal(t, 0.4, r.Check.Cores)
		assert.Equal(t, 0.8, r.Check.From)
		assert.Equal(t, Predicted, r.Check.Outcome)
		assert.Equal(t, r.Check.Measured, r.Check.Ratio)
		_, checked = m.Checked()
		assert.True(t, checked)
		_, checked = m.Checked()
		assert.False(t, checked, "once")
		assert.NotNil(t, m.Estimate().Check, "still shown")
	})
	t.Run("a limit that was too low to predict from is checked, too", func(t *testing.T) {
		m := newModel(t)
		at := add(m, 0, 700, 20*ms, 20*ms)
		require.Equal(t, Saturated, m.Estimate().Outcome)
		add(m, at, 700, 80*ms, 30*ms)
		require.Equal(t, Predicted, m.Estimate().Outcome)
		c, checked := m.Checked()
		require.True(t, checked)
		assert.Equal(t, Check{Prediction: Prediction{Cores: 0.8, Outcome: Saturated}, From: 0.2, Before: 1}, c)
	})
	t.Run("a spike is remembered and fades", func(t *testing.T) {
		m := newModel(t)
		at := add(m, 0, 1200, 100*ms, 20*ms)
		quiet := m.Estimate().Recommended
		at = add(m, at, 60, 100*ms, 70*ms)
		spiky := m.Estimate().Recommended
		assert.Greater(t, spiky, 3*quiet)
		at = add(m, at, 1300, 100*ms, 20*ms)
		r := m.Estimate()
		assert.InDelta(t, spiky, r.Recommended, 0.05, "out of the window, yet minutes ago")
		assert.InDelta(t, r.Recommended, r.AtRecommended.Cores, 1e-9)
		for range 24 {
			at = add(m, at, 12_000, 100*ms, 20*ms)
			r = m.Estimate()
		}
		assert.Less(t, r.Recommended, quiet*1.3, "hours ago")
	})
	t.Run("what is told twice counts once, and the window is bounded", func(t *testing.T) {
		m := newModel(t)
		ps := uniform(5000, 40*ms, 10*ms, 0, false)
		m.Add(ps...)
		m.Add(ps[4900:]...)
		r := m.Estimate()
		assert.Equal(t, 1200, r.Periods)
		assert.Equal(t, 2*time.Minute, r.Window)
	})
	t.Run("another burst is another limit", func(t *testing.T) {
		m := newModel(t)
		add(m, 0, 700, 40*ms, 10*ms)
		m.SetBounds(Bounds{CPUs: 2, Burst: 10 * ms})
		assert.Equal(t, TooShort, m.Estimate().Outcome)
	})
	t.Run("seconds of cpu.stat give low confidence", func(t *testing.T) {
		m := newModel(t)
		for s := range 90 {
			m.AddSecond(time.Duration(s+1)*time.Second, 40*ms, ms100, 250*ms, 60*ms, 10, 2)
		}
		r := m.Estimate()
		require.Equal(t, Predicted, r.Outcome)
		assert.Equal(t, Low, r.Confidence)
		assert.InDelta(t, 0.2, r.Measured, 0.001)
		assert.InDelta(t, 0.25, r.Mean, 0.001)
		assert.Greater(t, r.Recommended, 0.4)
		add(m, 10_000, 700, 40*ms, 10*ms)
		assert.Equal(t, High, m.Estimate().Confidence, "periods replace seconds")
	})
	t.Run("nonsense is refused", func(t *testing.T) {
		m := newModel(t)
		m.Add(Period{Quota: ms}, Period{Length: ms})
		m.AddSecond(time.Second, ms, 0, ms, 0, 1, 1)
		m.AddSecond(time.Second, ms, ms, ms, 0, 0, 1)
		assert.Zero(t, m.Estimate().Periods)
		for _, bad := range []Config{{}, {Target: 1, MinWindow: 1, MinPeriods: 1}, {Target: 0.1}, {Target: 0.1, MinWindow: 1, MinPeriods: 1, Multiples: []float64{0}}} {
			_, err := NewModel(bad)
			assert.Error(t, err)
		}
	})
}
