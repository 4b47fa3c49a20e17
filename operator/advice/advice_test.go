package advice

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func cpu(c signal.CPU) signal.Signal {
	if c.PeriodSeconds == 0 {
		c.PeriodSeconds = 60
	}
	return signal.Signal{Type: signal.CPUThrottle, CPU: &c}
}

// find returns the recommendation of that action, or nil.
func find(a Advice, action string) *Recommendation {
	for i := range a.Recommendations {
		if a.Recommendations[i].Action == action {
			return &a.Recommendations[i]
		}
	}
	return nil
}

func TestTheTalksExample(t *testing.T) {
	a := For(cpu(signal.CPU{ThrottlePercent: 92.3, ReportedCores: ptr(0.48)}))
	assert.Equal(t, []string{
		"CPU throttling detected: 92.3% throttled",
		"Metrics show 48% usage, kernel shows 92% throttled",
		"Application experiencing severe resource starvation",
	}, a.Insights)
	assert.Equal(t, Critical, a.Severity)
	assert.InDelta(t, 48, *a.ReportedPercent, 1e-9)
	assert.Nil(t, a.ReportedPercentOfLimit, "no limit was told")
	require.NotNil(t, find(a, IncreaseCPULimits))
	assert.Empty(t, find(a, IncreaseCPULimits).SuggestedValue, "neither limit nor use is known: no number")
}

func TestTheTalksCurl(t *testing.T) {
	a := For(cpu(signal.CPU{ThrottlePercent: 78.5, ActualCores: ptr(1.5), ReportedCores: ptr(0.6)}))
	assert.Equal(t, []string{
		"CPU throttling detected: 78.5% throttled",
		"Metrics show 60% usage, kernel shows 78% throttled",
	}, a.Insights)
	assert.Equal(t, Warning, a.Severity)
	assert.Equal(t, []Recommendation{
		{Action: IncreaseCPULimits, SuggestedValue: "1950m", Confidence: Low,
			Reason: "The limit is not known. If it ran all the time, using 1.50 cores with 78.5% of periods at the limit, that limit is at most 1.91 cores: set at least that. Raise, then measure again."},
		{Action: ReviewResourceRequests, SuggestedValue: "1500m", Confidence: Medium,
			Reason: "Requests decide where the pod is scheduled and its share of a contended node: ask for at least the 1.50 cores that it uses while throttled."},
	}, a.Recommendations)
}

func TestReported(t *testing.T) {
	for name, c := range map[string]struct {
		cpu              signal.CPU
		reported, limit  *float64
		insight          string
		withoutTheMetric bool
	}{
		"of the limit":           {cpu: signal.CPU{ReportedCores: ptr(0.96), LimitCores: ptr(2)}, reported: ptr(48), limit: ptr(48), insight: "Metrics show 48% usage, kernel shows 30% throttled"},
		"as the sender told":     {cpu: signal.CPU{ReportedPercent: ptr(33)}, reported: ptr(33), limit: ptr(33), insight: "Metrics show 33% usage, kernel shows 30% throttled"},
		"of one core":            {cpu: signal.CPU{ReportedCores: ptr(0.2)}, reported: ptr(20), insight: "Metrics show 20% usage, kernel shows 30% throttled"},
		"cores, without a limit": {cpu: signal.CPU{ReportedCores: ptr(2.5)}, reported: ptr(250), insight: "Metrics show 2.50 cores in use, kernel shows 30% throttled"},
		"zero is a figure":       {cpu: signal.CPU{ReportedCores: ptr(0), LimitCores: ptr(2)}, reported: ptr(0), limit: ptr(0), insight: "Metrics show 0% usage, kernel shows 30% throttled"},
		"metrics show it":        {cpu: signal.CPU{ReportedCores: ptr(1.9), LimitCores: ptr(2)}, reported: ptr(95), limit: ptr(95), withoutTheMetric: true},
		"not measured":           {cpu: signal.CPU{LimitCores: ptr(2)}, withoutTheMetric: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.cpu.ThrottlePercent = 30
			a := For(cpu(c.cpu))
			assertNear(t, c.reported, a.ReportedPercent)
			assertNear(t, c.limit, a.ReportedPercentOfLimit)
			want := []string{"CPU throttling detected: 30.0% throttled"}
			if !c.withoutTheMetric {
				want = append(want, c.insight)
			}
			assert.Equal(t, want, a.Insights)
		})
	}
}

func assertNear(t *testing.T, want, got *float64) {
	t.Helper()
	if want == nil {
		assert.Nil(t, got)
		return
	}
	require.NotNil(t, got)
	assert.InDelta(t, *want, *got, 1e-9)
}

func TestSeverity(t *testing.T) {
	for _, c := range []struct {
		throttled float64
		reported  *float64
		want      Severity
	}{
		{24.9, ptr(0.1), Info}, {25, ptr(0.1), Warning}, {25, ptr(0.6), Info}, {25, ptr(0.59), Warning}, {25, nil, Info},
		{49.9, ptr(0.9), Info}, {50, ptr(0.9), Warning}, {50, nil, Warning}, {79.9, nil, Warning}, {80, nil, Critical}, {100, ptr(1), Critical},
	} {
		a := For(cpu(signal.CPU{ThrottlePercent: c.throttled, ReportedCores: c.reported, LimitCores: ptr(1)}))
		assert.Equal(t, c.want, a.Severity, "%+v", c)
		assert.Equal(t, c.want == Critical, contains(a.Insights, starvation))
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func TestIncrease(t *testing.T) {
	for name, c := range map[string]struct {
		cpu        signal.CPU
		value      string
		confidence Confidence
		says       string
	}{
		"the model, sure": {
			cpu: signal.CPU{ThrottlePercent: 60, LimitCores: ptr(1), RecommendedCores: ptr(1.5),
				WhatIf: []signal.WhatIf{{LimitCores: 1.2, ThrottleRatio: 0.3, High: ptr(0.5)}, {LimitCores: 1.5, ThrottleRatio: 0.004, High: ptr(0.02)}}},
			value: "1500m", confidence: High, says: "Predicted there: 0.4% of periods throttled, at most 2.0%"},
		"the model, wide interval": {
			cpu: signal.CPU{ThrottlePercent: 60, LimitCores: ptr(1), RecommendedCores: ptr(1.5),
				WhatIf: []signal.WhatIf{{LimitCores: 1.5, ThrottleRatio: 0.01, High: ptr(0.4)}}},
			value: "1500m", confidence: Medium, says: "at most 40.0%"},
		"the model, saturated": {
			cpu: signal.CPU{ThrottlePercent: 92.3, LimitCores: ptr(1), RecommendedCores: ptr(1.5),
				WhatIf: []signal.WhatIf{{LimitCores: 1.5, High: ptr(0)}}},
			value: "1500m", confidence: Medium, says: "demand may be higher still"},
		"the model, limit unknown": {
			cpu: signal.CPU{ThrottlePercent: 60, RecommendedCores: ptr(0.042)}, value: "50m", confidence: Medium, says: "what-if model"},
		"sustained demand": {
			cpu:   signal.CPU{ThrottlePercent: 90, LimitCores: ptr(1), ActualCores: ptr(0.95), ThrottledSeconds: ptr(30)},
			value: "1450m", confidence: Low, says: "used 0.95 cores and was denied about 0.50 more"},
		"demand without bound": {
			cpu:   signal.CPU{ThrottlePercent: 90, LimitCores: ptr(1), ActualCores: ptr(1), ThrottledSeconds: ptr(600)},
			value: "2000m", confidence: Low, says: "the limit is doubled"},
		"bursts under the average": {
			cpu:   signal.CPU{ThrottlePercent: 50, LimitCores: ptr(2), ActualCores: ptr(1.1), ThrottledSeconds: ptr(12)},
			value: "2400m", confidence: Low, says: "denied about 0.40 cores on top of its limit of 2.00"},
		"use unknown: at least the quota of the throttled periods": {
			cpu:   signal.CPU{ThrottlePercent: 90, LimitCores: ptr(1), ThrottledSeconds: ptr(30)},
			value: "1400m", confidence: Low, says: "used 0.90 cores"},
		"throttled time unknown": {
			cpu:   signal.CPU{ThrottlePercent: 40, LimitCores: ptr(0.5)},
			value: "700m", confidence: Low, says: "by the share of periods that exhausted it, 40.0%"},
		"limit by the reported percentage": {
			cpu:   signal.CPU{ThrottlePercent: 40, ReportedCores: ptr(0.25), ReportedPercent: ptr(50)},
			value: "700m", confidence: Low, says: "limit of 0.50 cores"},
		"limit unknown, seldom throttled": {
			cpu:   signal.CPU{ThrottlePercent: 10, ActualCores: ptr(1)},
			value: "2000m", confidence: Low, says: "double what it uses"},
		"limit unknown, denied time known": {
			cpu:   signal.CPU{ThrottlePercent: 90, ActualCores: ptr(1), ThrottledSeconds: ptr(30)},
			value: "1500m", confidence: Low, says: "denied about 0.50 more"},
		"nothing known": {
			cpu: signal.CPU{ThrottlePercent: 90}, value: "", confidence: Low, says: "can't be told"},
	} {
		t.Run(name, func(t *testing.T) {
			r := find(For(cpu(c.cpu)), IncreaseCPULimits)
			require.NotNil(t, r)
			assert.Equal(t, c.value, r.SuggestedValue, r.Reason)
			assert.Equal(t, c.confidence, r.Confidence)
			assert.Contains(t, r.Reason, c.says)
		})
	}
}

func TestNoIncreaseThatTheModelHoldsForNeedless(t *testing.T) {
	a := For(cpu(signal.CPU{ThrottlePercent: 30, LimitCores: ptr(2), RecommendedCores: ptr(1.8)}))
	assert.Nil(t, find(a, IncreaseCPULimits))
	assert.NotNil(t, find(a, ReviewResourceRequests))
}

func TestBursts(t *testing.T) {
	a := For(cpu(signal.CPU{ThrottlePercent: 92, LimitCores: ptr(2.5), ActualCores: ptr(1.2)}))
	var actions []string
	for _, r := range a.Recommendations {
		actions = append(actions, r.Action)
		assert.NotEmpty(t, r.Reason)
	}
	assert.Equal(t, []string{IncreaseCPULimits, ReduceParallelism, AllowBurst, RemoveCPULimit, ReviewResourceRequests}, actions)
	assert.Equal(t, "GOMAXPROCS=2", find(a, ReduceParallelism).SuggestedValue)
	assert.Equal(t, Medium, find(a, ReduceParallelism).Confidence)

	small := find(For(cpu(signal.CPU{ThrottlePercent: 92, LimitCores: ptr(0.2), ReportedCores: ptr(0.1)})), ReduceParallelism)
	require.NotNil(t, small)
	assert.Equal(t, "GOMAXPROCS=1", small.SuggestedValue)
	assert.Equal(t, Low, small.Confidence, "one thread exhausts a fifth of a core")

	assert.Nil(t, find(For(cpu(signal.CPU{ThrottlePercent: 92, LimitCores: ptr(2), ActualCores: ptr(1.2)})), RemoveCPULimit), "use is not far below the limit")
	assert.Nil(t, find(For(cpu(signal.CPU{ThrottlePercent: 92, ActualCores: ptr(0.1)})), RemoveCPULimit), "the limit is not known")
}

func TestDeniedTimeIsTold(t *testing.T) {
	a := For(cpu(signal.CPU{ThrottlePercent: 30, ThrottledSeconds: ptr(84)}))
	assert.Contains(t, a.Insights, "Threads were held back for 84.0 s in 60 s, summed over CPUs")
}

func TestStarvation(t *testing.T) {
	for wait, want := range map[float64]Severity{49: Info, 50: Warning, 79: Warning, 80: Critical} {
		a := For(signal.Signal{Type: signal.CPUStarvation, Values: map[string]float64{"runqueue_wait_percent": wait}})
		assert.Equal(t, want, a.Severity, wait)
		assert.Equal(t, want == Critical, contains(a.Insights, starvation))
		assert.Nil(t, find(a, IncreaseCPULimits), "a higher limit does not help")
		assert.NotNil(t, find(a, ReviewResourceRequests))
		assert.NotNil(t, find(a, SpreadLoad))
	}
	a := For(signal.Signal{Type: signal.CPUStarvation, Values: map[string]float64{"runqueue_wait_percent": 63.04}})
	assert.Equal(t, []string{"CPU starvation: threads waited for a CPU 63.0% of the time they wanted one"}, a.Insights)

	assert.NotNil(t, find(For(cpu(signal.CPU{ThrottlePercent: 24, RunqueueWaitPercent: ptr(60)})), SpreadLoad))
	assert.Nil(t, find(For(cpu(signal.CPU{ThrottlePercent: 60, RunqueueWaitPercent: ptr(60)})), SpreadLoad), "the waiting may be the limit's doing")
}

func TestResolved(t *testing.T) {
	s := cpu(signal.CPU{ThrottlePercent: 3.14, LimitCores: ptr(1)})
	s.Resolved = true
	assert.Equal(t, Advice{Severity: Info, Insights: []string{"CPU throttling is over: 3.1% throttled"}}, For(s))
	assert.Equal(t, Advice{Severity: Info, Insights: []string{"CPU throttling is over: 0.0% throttled"}}, For(cpu(signal.CPU{})))
}

func TestTheOthersTellTheirEvidence(t *testing.T) {
	birth := For(signal.Signal{Type: signal.PodCreation, Creation: &signal.Creation{TotalSyscalls: 847, NamespaceOps: 15, CgroupWrites: 23, Duration: 1500 * time.Millisecond}})
	assert.Equal(t, Advice{Severity: Info, Insights: []string{"Pod birth took 1.5s: 847 syscalls, 15 namespace operations, 23 cgroup writes"}}, birth)

	memory := signal.Signal{Type: signal.MemoryPressure, Values: map[string]float64{"major_faults": 812, "rss_bytes": 9e6}}
	assert.Equal(t, Advice{Severity: Warning, Insights: []string{"Memory pressure: major faults 812, rss bytes 9e+06"}}, For(memory))

	assert.Equal(t, []string{"Network issue: tcp retransmits 120"}, For(signal.Signal{Type: signal.NetworkIssue, Values: map[string]float64{"tcp_retransmits": 120}}).Insights)
	assert.Equal(t, []string{"It enters a namespace: setns, 1 times or attempts"}, For(signal.Signal{Type: signal.SecurityEvent, Values: map[string]float64{"setns": 1}}).Insights)
}

func TestMuchEvidenceStaysOneLine(t *testing.T) {
	values := map[string]float64{}
	for i := range signal.MaxValues {
		values[strings.Repeat("x", signal.MaxNameBytes-2)+string(rune('a'+i/10))+string(rune('0'+i%10))] = -1.23456789e-300
	}
	insight := For(signal.Signal{Type: signal.NetworkIssue, Values: values}).Insights[0]
	assert.Less(t, len(insight), 1024, "what the resource takes")
	assert.Contains(t, insight, "and 24 more")
}

func TestLittleGivesLittle(t *testing.T) {
	for _, s := range []signal.Signal{{}, {Type: signal.CPUThrottle}, {Type: signal.PodCreation}, {Type: "other"}} {
		assert.Equal(t, Advice{Severity: Info}, For(s))
	}
	assert.Equal(t, []string{"The condition is over"}, For(signal.Signal{Type: signal.CPUThrottle, Resolved: true}).Insights)
}

func TestQuantity(t *testing.T) {
	for cores, want := range map[float64]string{1.5: "1500m", 1.4999: "1500m", 1.501: "1550m", 0.042: "50m", 0.1: "100m", 0.101: "150m", 2: "2000m", 0.1 + 0.2: "300m"} {
		assert.Equal(t, want, quantity(cores), cores)
	}
}
