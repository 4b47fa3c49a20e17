package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// predict puts into a whisper what the what-if model says of a container.
func predict(c *sampler.Container, out *whisper.Observation) {
	out.QOSClass = qosClass(c.Group.QoS)
	r := c.WhatIf
	if r == nil {
		return
	}
	p := &wire.Prediction{
		Outcome: string(r.Outcome), Confidence: string(r.Confidence),
		Periods: uint64(r.Periods), WindowSeconds: r.Window.Seconds(), ThrottleRatio: r.Measured, //nolint:gosec // a length
		PeakCores: positive(r.Peak), NextCPULimit: positive(r.Next),
		BurstRatio: r.Burst, ThreadsRatio: r.Parallelism,
	}
	if r.Parallelism != nil {
		threads := uint64(r.Threads) //nolint:gosec // at least 1
		p.Threads = &threads
	}
	if r.Check != nil {
		p.Check = limitCheck(r.Check, c.LimitCheckedAt)
	}
	out.Prediction, out.RecommendedCores = p, positive(r.Recommended)
	at := slices.Clone(r.At)
	if r.Recommended > 0 {
		at = append(at, r.AtRecommended)
	}
	for _, a := range at {
		if a.Outcome == whatif.Predicted {
			out.WhatIf = append(out.WhatIf, wire.WhatIf{LimitCores: a.Cores, ThrottleRatio: a.Ratio, Low: &a.Low, High: &a.High})
		}
	}
	slices.SortFunc(out.WhatIf, func(a, b wire.WhatIf) int { return cmp.Compare(a.LimitCores, b.LimitCores) })
}

func limitCheck(c *whatif.Check, at time.Time) *wire.LimitCheck {
	out := &wire.LimitCheck{Timestamp: at.UTC(), FromCPULimit: c.From, CPULimit: c.Cores, BeforeRatio: c.Before, Measured: c.Measured}
	if c.Outcome == whatif.Predicted {
		out.Predicted, out.Low, out.High = &c.Ratio, &c.Low, &c.High
	}
	return out
}

// qosClass is the class as the API server spells it.
func qosClass(q cgroup.QoS) string {
	switch q {
	case cgroup.QoSGuaranteed:
		return "Guaranteed"
	case cgroup.QoSBurstable:
		return "Burstable"
	case cgroup.QoSBestEffort:
		return "BestEffort"
	}
	return ""
}

// positive is nil for what is not told.
func positive(v float64) *float64 {
	if v <= 0 {
		return nil
	}
	return &v
}
