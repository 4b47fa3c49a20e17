package advice

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// modelOf is a container at 200m that the what-if model has observed.
func modelOf(c signal.CPU, p signal.Prediction) signal.Signal {
	c.LimitCores, c.ThrottlePercent = ptr(0.2), 92.3
	if p.Outcome != signal.TooShort {
		p.Periods, p.WindowSeconds = 1200, 120
	}
	p.ThrottleRatio, c.Prediction = 0.923, &p
	s := cpu(c)
	s.Namespace, s.Pod, s.Container = "shop", "web-0", "app"
	return s
}

func TestIncreaseByTheModel(t *testing.T) {
	enough := []signal.WhatIf{{LimitCores: 0.75, ThrottleRatio: 0.008, Low: ptr(0.001), High: ptr(0.024)}}
	raised := `kubectl patch pod web-0 --namespace shop --subresource resize --patch '{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"750m"}}}]}}'`
	for name, c := range map[string]struct {
		signal signal.Signal
		want   Recommendation
	}{
		"predicted": {
			modelOf(signal.CPU{RecommendedCores: ptr(0.75), WhatIf: enough}, signal.Prediction{Outcome: signal.Predicted, Confidence: "medium"}),
			Recommendation{
				Action: IncreaseCPULimits, SuggestedValue: "750m", Confidence: Medium,
				Reason:    "Throttled in 92.3% of 1200 periods at the present limit of 0.20 cores; 0.8% are predicted at 750m (likely 0.1% to 2.4%).",
				Predicted: &Predicted{Before: 0.923, After: 0.008, Low: ptr(0.001), High: ptr(0.024)},
				Command:   raised,
			},
		},
		"predicted, of a Guaranteed pod": {
			modelOf(signal.CPU{RecommendedCores: ptr(0.75), QOSClass: "Guaranteed"}, signal.Prediction{Outcome: signal.Predicted, Confidence: "low"}),
			Recommendation{
				Action: IncreaseCPULimits, SuggestedValue: "750m", Confidence: Low,
				Reason:  "Throttled in 92.3% of 1200 periods at the present limit of 0.20 cores; 750m is the smallest limit that the what-if model expects to be enough.",
				Command: `kubectl patch pod web-0 --namespace shop --subresource resize --patch '{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"750m"},"requests":{"cpu":"750m"}}}]}}'`,
			},
		},
		"saturated": {
			modelOf(signal.CPU{}, signal.Prediction{Outcome: signal.Saturated, NextCores: ptr(0.71)}),
			Recommendation{
				Action: RaiseAndRemeasure, SuggestedValue: "750m", Confidence: Medium,
				Reason:  "Cannot tell yet which limit is enough: throttled in 92.3% of periods, it is hardly ever free of backlog, so what it wants is not known. Used and denied time together bound it: raise to 750m, then look again.",
				Command: raised,
			},
		},
		"too short: what the throttle data bounds": {
			modelOf(signal.CPU{}, signal.Prediction{Outcome: signal.TooShort, WindowSeconds: 12}),
			Recommendation{
				Action: IncreaseCPULimits, SuggestedValue: "400m", Confidence: Low,
				Reason:  "Throttled time is not known, so the limit of 0.20 cores is raised by the share of periods that exhausted it, 92.3%. Raise, then measure again. The what-if model can tell more when it has observed this limit for longer than 12 s.",
				Command: `kubectl patch pod web-0 --namespace shop --subresource resize --patch '{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"400m"}}}]}}'`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := For(c.signal)
			require.NotEmpty(t, a.Recommendations)
			assert.Equal(t, c.want, a.Recommendations[0])
		})
	}
	whole := modelOf(signal.CPU{}, signal.Prediction{Outcome: signal.Saturated, NextCores: ptr(0.71)})
	whole.Container = ""
	assert.Empty(t, For(whole).Recommendations[0].Command, "a pod's own cgroup, or none of a pod's: nothing to patch")
}

func TestBurstsByTheModel(t *testing.T) {
	two := uint64(2)
	s := modelOf(signal.CPU{ActualCores: ptr(0.05), RecommendedCores: ptr(1)}, signal.Prediction{
		Outcome: signal.Predicted, Confidence: "medium", Threads: &two, ThreadsRatio: ptr(0.3), BurstRatio: ptr(0.01), PeakCores: ptr(1.8),
	})
	a := For(s)
	fewer := find(a, ReduceParallelism)
	require.NotNil(t, fewer)
	assert.Equal(t, "GOMAXPROCS=2", fewer.SuggestedValue)
	assert.Equal(t, &Predicted{Before: 0.923, After: 0.3}, fewer.Predicted)
	assert.Contains(t, fewer.Reason, "Predicted: 30.0% of periods throttled instead of 92.3%.")
	burst := find(a, AllowBurst)
	require.NotNil(t, burst)
	assert.Equal(t, &Predicted{Before: 0.923, After: 0.01}, burst.Predicted)
	assert.Equal(t, "cpu.max.burst of one quota, 20.0% of a period", burst.SuggestedValue)
	assert.Contains(t, find(a, RemoveCPULimit).Reason, "may take about 1.80 cores instead of 0.20")

	s.CPU.Prediction.ThreadsRatio, s.CPU.Prediction.BurstRatio = ptr(0.9), ptr(0.5)
	a = For(s)
	assert.Nil(t, find(a, ReduceParallelism), "the replay says that it does not help")
	assert.Nil(t, find(a, AllowBurst))
	assert.NotNil(t, find(a, RemoveCPULimit))
}

func TestAfterTheLimitChanged(t *testing.T) {
	check := &signal.LimitCheck{Observed: time.Unix(1_800_000_000, 0), FromCores: 0.1, Cores: 2, Before: 0.95, Measured: 0.004, Predicted: ptr(0.01), Low: ptr(0), High: ptr(0.03)}
	s := modelOf(signal.CPU{
		RecommendedCores: ptr(0.7), WhatIf: []signal.WhatIf{{LimitCores: 0.7, ThrottleRatio: 0.008, Low: ptr(0), High: ptr(0.02)}},
	}, signal.Prediction{Outcome: signal.Predicted, Confidence: "high", Check: check})
	s.CPU.LimitCores, s.CPU.ThrottlePercent, s.CPU.Prediction.ThrottleRatio, s.Resolved = ptr(2), 0.4, 0.004, true
	a := For(s)
	assert.Equal(t, []string{
		"CPU throttling is over: 0.4% throttled",
		"The limit went from 0.10 to 2.00 cores: 95.0% of periods throttled before, 0.4% after; 1.0% were predicted, likely 0.0% to 3.0%",
	}, a.Insights)
	assert.Equal(t, []Recommendation{{
		Action: DecreaseCPULimits, SuggestedValue: "700m", Confidence: High,
		Reason:    "Throttled in 0.4% of 1200 periods at the present limit of 2.00 cores; 0.8% are predicted at 700m (likely 0.0% to 2.0%).",
		Predicted: &Predicted{Before: 0.004, After: 0.008, Low: ptr(0), High: ptr(0.02)},
		Command:   `kubectl patch pod web-0 --namespace shop --subresource resize --patch '{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"700m"}}}]}}'`,
	}}, a.Recommendations)

	s.CPU.LimitCores = ptr(1)
	assert.Empty(t, For(s).Recommendations, "a limit with a little room is left alone")

	check.Predicted = nil
	s.CPU.ThrottlePercent, s.Resolved = 60, false
	assert.Contains(t, For(s).Insights, "The limit went from 0.10 to 2.00 cores: 95.0% of periods throttled before, 0.4% after", "nothing could be predicted")
}
