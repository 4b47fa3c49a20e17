package signal

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ptr(f float64) *float64 { return &f }

func throttle() Signal {
	return Signal{
		Type: CPUThrottle, Source: SourceEBPF, Namespace: "kernel-gossip", Pod: "live-demo", Container: "app",
		Observed: time.Date(2025, 8, 25, 11, 0, 0, 0, time.UTC),
		CPU: &CPU{ThrottlePercent: 92.3, ActualCores: ptr(1.5), ReportedCores: ptr(0), LimitCores: ptr(1), PeriodSeconds: 60,
			WhatIf:     []WhatIf{{LimitCores: 2, ThrottleRatio: 0.01, Low: ptr(0), High: ptr(1)}},
			Prediction: &Prediction{Outcome: Predicted, Confidence: "high", Periods: 600, WindowSeconds: 60, ThrottleRatio: 1, Check: &LimitCheck{Observed: now, FromCores: 1, Cores: 2}}, QOSClass: "Burstable"},
	}
}

func birth() Signal {
	return Signal{
		Type: PodCreation, Source: SourcePixie, Namespace: "default", Pod: "web-0.a", Observed: now,
		Creation: &Creation{TotalSyscalls: 847, Duration: time.Second,
			Timeline: []Step{{Offset: time.Millisecond, Actor: "kubelet", Action: "create sandbox"}},
			Syscalls: []SyscallCount{{Name: "clone3", Count: 2}}},
	}
}

func TestValidateAccepts(t *testing.T) {
	for name, s := range map[string]Signal{
		"throttle":                   throttle(),
		"birth":                      birth(),
		"resolved without evidence":  {Type: CPUThrottle, Source: SourceEBPF, Namespace: "a", Pod: "b", Observed: now, Resolved: true},
		"a clock a little ahead":     {Type: CPUThrottle, Source: SourceEBPF, Namespace: "a", Pod: "b", Observed: now.Add(MaxSkew), Resolved: true},
		"longest names":              {Type: CPUThrottle, Source: SourceManual, Namespace: strings.Repeat("a", 63), Pod: strings.Repeat("b", 253), Container: strings.Repeat("c", 63), Observed: now, Resolved: true},
		"static pod, its UID a hash": {Type: MemoryPressure, Source: SourceEBPF, Namespace: "kube-system", Pod: "etcd-node.example.com", PodUID: "9f3c0d4c5b8f4b0e9a7c", Node: "node.example.com", Observed: now, Values: map[string]float64{"oom_kills": 1}},
		"starvation":                 {Type: CPUStarvation, Source: SourceAlertmanager, Namespace: "a", Pod: "b", Observed: now, Values: map[string]float64{"runqueue_wait_percent": 100}},
	} {
		assert.NoError(t, s.Validate(now), name)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for _, c := range []struct {
		field string
		base  func() Signal
		spoil func(*Signal)
	}{
		{"type", throttle, func(s *Signal) { s.Type = "cpu" }},
		{"type", throttle, func(s *Signal) { s.Type = NetworkIssue }},
		{"type", birth, func(s *Signal) { s.Type = SecurityEvent }},
		{"source", throttle, func(s *Signal) { s.Source = "" }},
		{"namespace", throttle, func(s *Signal) { s.Namespace = "" }},
		{"namespace", throttle, func(s *Signal) { s.Namespace = "../../etc" }},
		{"namespace", throttle, func(s *Signal) { s.Namespace = "a.b" }},
		{"namespace", throttle, func(s *Signal) { s.Namespace = strings.Repeat("a", 64) }},
		{"pod_name", throttle, func(s *Signal) { s.Pod = "" }},
		{"pod_name", throttle, func(s *Signal) { s.Pod = "Live-Demo" }},
		{"pod_name", throttle, func(s *Signal) { s.Pod = ".." }},
		{"pod_name", throttle, func(s *Signal) { s.Pod = "a/b" }},
		{"pod_name", throttle, func(s *Signal) { s.Pod = "a\x00" }},
		{"pod_name", throttle, func(s *Signal) { s.Pod = strings.Repeat("a", 254) }},
		{"container_name", throttle, func(s *Signal) { s.Container = "app.sidecar" }},
		{"container_name", throttle, func(s *Signal) { s.Container = "app\n" }},
		{"pod_uid", throttle, func(s *Signal) { s.PodUID = "../x" }},
		{"node_name", throttle, func(s *Signal) { s.Node = "node:9955" }},
		{"timestamp", throttle, func(s *Signal) { s.Observed = time.Time{} }},
		{"timestamp", throttle, func(s *Signal) { s.Observed = time.Unix(0, 0) }},
		{"timestamp", throttle, func(s *Signal) { s.Observed = now.Add(MaxSkew + time.Second) }},
		{"throttle_percentage", throttle, func(s *Signal) { s.CPU = nil }},
		{"throttle_percentage", throttle, func(s *Signal) { s.CPU.ThrottlePercent = 100.1 }},
		{"throttle_percentage", throttle, func(s *Signal) { s.CPU.ThrottlePercent = math.NaN() }},
		{"actual_cpu_usage", throttle, func(s *Signal) { s.CPU.ActualCores = ptr(-0.1) }},
		{"reported_cpu_usage", throttle, func(s *Signal) { s.CPU.ReportedCores = ptr(math.Inf(1)) }},
		{"cpu_limit", throttle, func(s *Signal) { s.CPU.LimitCores = ptr(0) }},
		{"recommended_cpu_limit", throttle, func(s *Signal) { s.CPU.RecommendedCores = ptr(MaxCores + 1) }},
		{"period_seconds", throttle, func(s *Signal) { s.CPU.PeriodSeconds = -1 }},
		{"throttle_ns", throttle, func(s *Signal) { s.CPU.ThrottledSeconds = ptr(1e300) }},
		{"whatif", throttle, func(s *Signal) { s.CPU.WhatIf = make([]WhatIf, MaxWhatIf+1) }},
		{"whatif[0].high", throttle, func(s *Signal) { s.CPU.WhatIf[0].High = ptr(1.01) }},
		{"prediction.outcome", throttle, func(s *Signal) { s.CPU.Prediction.Outcome = "knife_edge" }},
		{"prediction.confidence", throttle, func(s *Signal) { s.CPU.Prediction.Confidence = "sure" }},
		{"prediction", throttle, func(s *Signal) { s.CPU.Prediction.Periods = math.MaxUint64 }},
		{"prediction.throttle_ratio", throttle, func(s *Signal) { s.CPU.Prediction.ThrottleRatio = 1.1 }},
		{"prediction.next_cpu_limit", throttle, func(s *Signal) { s.CPU.Prediction.NextCores = ptr(0) }},
		{"prediction.burst_throttle_ratio", throttle, func(s *Signal) { s.CPU.Prediction.BurstRatio = ptr(math.NaN()) }},
		{"prediction.check.timestamp", throttle, func(s *Signal) { s.CPU.Prediction.Check.Observed = time.Time{} }},
		{"prediction.check.cpu_limit", throttle, func(s *Signal) { s.CPU.Prediction.Check.Cores = 0 }},
		{"prediction.check.high", throttle, func(s *Signal) { s.CPU.Prediction.Check.High = ptr(-1) }},
		{"qos_class", throttle, func(s *Signal) { s.CPU.QOSClass = "best" }},
		{"total_syscalls", birth, func(s *Signal) { s.Creation.TotalSyscalls = math.MaxUint64 }},
		{"total_syscalls", birth, func(s *Signal) { s.Creation = nil }},
		{"duration_ns", birth, func(s *Signal) { s.Creation.Duration = MaxPeriod + 1 }},
		{"timeline", birth, func(s *Signal) { s.Creation.Timeline = make([]Step, MaxTimeline+1) }},
		{"timeline[0].timestamp_ms", birth, func(s *Signal) { s.Creation.Timeline[0].Offset = -MaxPeriod - 1 }},
		{"timeline[0].actor", birth, func(s *Signal) { s.Creation.Timeline[0].Actor = "" }},
		{"timeline[0].action", birth, func(s *Signal) { s.Creation.Timeline[0].Action = "\x1b[2J" }},
		{"timeline[0].details", birth, func(s *Signal) { s.Creation.Timeline[0].Details = strings.Repeat("x", MaxDetailsBytes+1) }},
		{"timeline[0].details", birth, func(s *Signal) { s.Creation.Timeline[0].Details = "\xff" }},
		{"syscalls", birth, func(s *Signal) { s.Creation.Syscalls = make([]SyscallCount, MaxSyscalls+1) }},
		{"syscalls[0].name", birth, func(s *Signal) { s.Creation.Syscalls[0].Name = "rm -rf" }},
		{"syscalls[0].timestamp", birth, func(s *Signal) { s.Creation.Syscalls[0].First = time.Unix(1, 0) }},
		{"runqueue_wait_percent", birth, func(s *Signal) { s.Type, s.Creation = CPUStarvation, nil }},
		{"runqueue_wait_percent", birth, func(s *Signal) {
			s.Type, s.Creation, s.Values = CPUStarvation, nil, map[string]float64{"runqueue_wait_percent": 101}
		}},
		{"", birth, func(s *Signal) { s.Type, s.Creation = NetworkIssue, nil }},
		{"drops", birth, func(s *Signal) {
			s.Type, s.Creation, s.Values = NetworkIssue, nil, map[string]float64{"drops": math.NaN()}
		}},
		{`"a b"`, birth, func(s *Signal) { s.Values = map[string]float64{"a b": 1} }},
	} {
		s := c.base()
		c.spoil(&s)
		err := s.Validate(now)
		var invalid *InvalidError
		require.ErrorAs(t, err, &invalid, c.field)
		assert.Equal(t, c.field, invalid.Field, err)
		assert.NotEmpty(t, invalid.Problem)
		assert.Less(t, len(err.Error()), 400)
	}
}

func TestIsIdentifier(t *testing.T) {
	for s, want := range map[string]bool{
		"read": true, "_newselect": true, "clone3": true, strings.Repeat("a", MaxNameBytes): true,
		"": false, "3clone": false, "Read": false, "a-b": false, "é": false, strings.Repeat("a", MaxNameBytes+1): false,
	} {
		assert.Equal(t, want, IsIdentifier(s), s)
	}
}
