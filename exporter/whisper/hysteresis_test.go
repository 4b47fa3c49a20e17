package whisper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A lower band is told after it lasted, and not for what lies within the margin.
func TestEngineFallsToALowerBandSlowly(t *testing.T) {
	at := func(ratio func(s int) uint64) []string {
		return run(t, DefaultConfig(), func(s int) []Observation { return []Observation{seen(100, ratio(s))} }, 60)
	}
	step := func(from, to uint64) func(int) uint64 {
		return func(s int) uint64 {
			if s < 5 {
				return from
			}
			return to
		}
	}
	assert.Equal(t, []string{"0s active", "15s active"}, at(step(95, 80)))
	assert.Equal(t, []string{"0s active"}, at(step(95, 86)), "within 5 points of the bound")
	assert.Equal(t, []string{"0s active", "15s active"}, at(step(95, 60)), "two bands at once are one event")
	assert.Equal(t, []string{"0s active", "15s active"}, at(step(95, 30)), "under the threshold but not calm")
	assert.Equal(t, []string{"0s active", "15s resolved"}, at(step(95, 10)), "calm needs no bands in between")
	assert.Equal(t, []string{"0s active"}, at(func(s int) uint64 {
		if s%8 == 0 {
			return 95
		}
		return 80
	}), "below for less than the hold")
	assert.Equal(t, []string{"0s active"}, at(func(s int) uint64 {
		if s%8 == 0 {
			return 60
		}
		return 10
	}), "calm for less than the hold")
}

func TestEngineWithFewPeriods(t *testing.T) {
	// 12 periods would not begin a whisper, and do not end one.
	told := run(t, DefaultConfig(), func(s int) []Observation {
		if s < 2 {
			return []Observation{seen(20, 20)}
		}
		return []Observation{seen(12, 12)}
	}, 40)
	assert.Equal(t, []string{"0s active"}, told)

	// An idle container's window runs empty: that is calm.
	told = run(t, DefaultConfig(), func(s int) []Observation {
		if s < 2 {
			return []Observation{seen(20, 20)}
		}
		return []Observation{seen(0, 0)}
	}, 40)
	assert.Equal(t, []string{"0s active", "12s resolved"}, told)
}

// The arithmetic of the package's doc: a trailing window of 60 s at 10 periods a second.
func TestEngineReactsAsFastAsTheWindowAllows(t *testing.T) {
	trailing := func(throttled, elapsed func(s int) bool) func(int) []Observation {
		return func(s int) []Observation {
			o := seen(0, 0)
			for i := max(0, s-59); i <= s; i++ {
				if elapsed(i) {
					o.Periods += 10
				}
				if throttled(i) {
					o.Throttled += 10
				}
			}
			return []Observation{o}
		}
	}
	const from = 100
	after := func(s int) bool { return s > from }
	always := func(int) bool { return true }
	assert.Equal(t, []string{"1m42s active"}, run(t, DefaultConfig(), trailing(after, after), 140),
		"idle until 100 s, then throttled in every period: 2 s")
	assert.Equal(t, []string{"2m10s active", "2m25s active", "2m34s active"}, run(t, DefaultConfig(), trailing(after, always), 200),
		"busy and free until 100 s: half of the window, then each band")
	assert.Equal(t, []string{"1s active"}, run(t, DefaultConfig(), trailing(always, always), 20),
		"throttled from birth: 20 periods")
}

func TestEngineTellsWhatItSaw(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Node = "worker-1"
	e, err := NewEngine(cfg)
	require.NoError(t, err)
	used, reported, limit := 0.24, 0.24, 0.5
	o := Observation{
		Target: Target{Namespace: "shop", Pod: "web", Container: "app", PodUID: "uid"},
		Window: time.Minute, Periods: 600, Throttled: 552, ThrottledTime: 90 * time.Second,
		UsedCores: &used, ReportedCores: &reported, LimitCores: &limit, EBPF: true,
	}
	now := time.Unix(1795132800, 0)
	events := e.Observe(now, []Observation{o})
	require.Len(t, events, 1)
	assert.Equal(t, 1, e.Active())
	got := events[0]
	assert.Equal(t, o.Target, subjectOf(got).Target)
	assert.InDelta(t, 92, got.ThrottlePercentage, 1e-9)
	assert.Equal(t, "worker-1", got.NodeName)
	assert.InDelta(t, 60, got.PeriodSeconds, 0)
	assert.EqualValues(t, 90e9, *got.ThrottleNs, "summed over CPUs: may exceed the window")
	assert.Equal(t, &used, got.ActualCPUUsage)
	assert.Equal(t, &limit, got.CPULimit)
	assert.Nil(t, got.RecommendedCPULimit, "not measured is absent")
	assert.True(t, got.EBPFDetection)
	assert.False(t, got.Resolved)

	// Gone: resolved with the last that was known, at the time it is told.
	assert.Empty(t, e.Observe(now.Add(5*time.Second), nil))
	events = e.Observe(now.Add(10*time.Second), nil)
	require.Len(t, events, 1)
	assert.True(t, events[0].Resolved)
	assert.InDelta(t, 92, events[0].ThrottlePercentage, 1e-9)
	assert.True(t, events[0].Timestamp.Equal(now.Add(10*time.Second)))
	assert.Zero(t, e.Active())
}

// A restart has the old container's name within the hold: nothing is resolved in between.
func TestEngineRestartWithinTheHold(t *testing.T) {
	told := run(t, DefaultConfig(), func(s int) []Observation {
		if s >= 5 && s < 12 {
			return nil
		}
		return []Observation{seen(100, 60)}
	}, 40)
	assert.Equal(t, []string{"0s active"}, told)
}

func TestEngineNeverTellsMoreThanAllPeriods(t *testing.T) {
	e, err := NewEngine(DefaultConfig())
	require.NoError(t, err)
	events := e.Observe(time.Unix(1, 0), []Observation{seen(30, 31)})
	require.Len(t, events, 1)
	assert.InDelta(t, 100, events[0].ThrottlePercentage, 0)
}

func TestNewEngineRefuses(t *testing.T) {
	for _, tc := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Threshold = 0 }, "threshold 0"},
		{func(c *Config) { c.Threshold = 50 }, "threshold 50"},
		{func(c *Config) { c.ResolveBelow = 0.6 }, "resolve below, 0.6"},
		{func(c *Config) { c.Bands = []float64{0.9, 0.75} }, "must rise"},
		{func(c *Config) { c.Bands = []float64{0.5} }, "must rise"},
		{func(c *Config) { c.Bands = []float64{1.1} }, "at most 1"},
		{func(c *Config) { c.BandMargin = 1 }, "margin"},
		{func(c *Config) { c.Hold = -1 }, "negative"},
	} {
		cfg := DefaultConfig()
		tc.change(&cfg)
		_, err := NewEngine(cfg)
		require.ErrorContains(t, err, tc.want)
	}
}
