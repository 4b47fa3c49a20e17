package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func TestPredict(t *testing.T) {
	p := func(v float64) *float64 { return &v }
	one := uint64(1)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		in   sampler.Container
		want whisper.Observation
	}{
		"the model does not run": {},
		"too short": {
			sampler.Container{WhatIf: &whatif.Result{Outcome: whatif.TooShort, Cores: 0.2, Periods: 20, Window: 2 * time.Second, Measured: 0.9}},
			whisper.Observation{Prediction: &wire.Prediction{Outcome: "too_short", Periods: 20, WindowSeconds: 2, ThrottleRatio: 0.9}},
		},
		"saturated": {
			sampler.Container{WhatIf: &whatif.Result{Outcome: whatif.Saturated, Periods: 600, Window: time.Minute, Measured: 1, Next: 0.6, Peak: 0.9}},
			whisper.Observation{Prediction: &wire.Prediction{
				Outcome: "saturated", Periods: 600, WindowSeconds: 60, ThrottleRatio: 1, NextCPULimit: p(0.6), PeakCores: p(0.9),
			}},
		},
		"predicted, after a change": {
			sampler.Container{
				Group: cgroup.Group{Identity: cgroup.Identity{QoS: cgroup.QoSGuaranteed}}, LimitCheckedAt: at,
				WhatIf: &whatif.Result{
					Outcome: whatif.Predicted, Confidence: whatif.Medium, Periods: 600, Window: time.Minute, Measured: 0.3,
					At: []whatif.Prediction{
						{Cores: 0.2, Outcome: whatif.KnifeEdge},
						{Cores: 0.8, Ratio: 0, Low: 0, High: 0.01, Outcome: whatif.Predicted},
					},
					Recommended: 0.5, AtRecommended: whatif.Prediction{Cores: 0.5, Ratio: 0.008, Low: 0.001, High: 0.02, Outcome: whatif.Predicted},
					Burst: p(0.1), Threads: 1, Parallelism: p(0.2),
					Check: &whatif.Check{From: 0.2, Before: 0.9, Measured: 0.3, Prediction: whatif.Prediction{Cores: 0.4, Ratio: 0.25, Low: 0.2, High: 0.4, Outcome: whatif.Predicted}},
				},
			},
			whisper.Observation{
				QOSClass: "Guaranteed", RecommendedCores: p(0.5),
				WhatIf: []wire.WhatIf{
					{LimitCores: 0.5, ThrottleRatio: 0.008, Low: p(0.001), High: p(0.02)},
					{LimitCores: 0.8, Low: p(0), High: p(0.01)},
				},
				Prediction: &wire.Prediction{
					Outcome: "predicted", Confidence: "medium", Periods: 600, WindowSeconds: 60, ThrottleRatio: 0.3,
					BurstRatio: p(0.1), Threads: &one, ThreadsRatio: p(0.2),
					Check: &wire.LimitCheck{Timestamp: at, FromCPULimit: 0.2, CPULimit: 0.4, BeforeRatio: 0.9, Measured: 0.3, Predicted: p(0.25), Low: p(0.2), High: p(0.4)},
				},
			},
		},
		"a change from a limit that told nothing": {
			sampler.Container{LimitCheckedAt: at, WhatIf: &whatif.Result{
				Outcome: whatif.Saturated, Measured: 1, Check: &whatif.Check{From: 0.1, Before: 1, Measured: 0.4, Prediction: whatif.Prediction{Cores: 0.4, Outcome: whatif.Saturated}},
			}},
			whisper.Observation{Prediction: &wire.Prediction{
				Outcome: "saturated", ThrottleRatio: 1, Check: &wire.LimitCheck{Timestamp: at, FromCPULimit: 0.1, CPULimit: 0.4, BeforeRatio: 1, Measured: 0.4},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got whisper.Observation
			predict(&c.in, &got)
			assert.Equal(t, c.want, got)
		})
	}
}
