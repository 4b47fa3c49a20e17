package collector

import (
	"strconv"

	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

type whatIf struct {
	ratio, low, high, recommended, periods, outcome *Family
	checks, errors                                  *Family
}

func newWhatIf() Collector {
	return &whatIf{
		ratio: perContainer(gauge, "cpu_whatif_throttle_ratio",
			"Predicted share of throttled periods, 0 to 1, if the CPU limit were this multiple of what it is. Absent where it can't be told.", "limit_multiple"),
		low: perContainer(gauge, "cpu_whatif_throttle_ratio_low",
			"Low end of the likely interval of cpu_whatif_throttle_ratio.", "limit_multiple"),
		high: perContainer(gauge, "cpu_whatif_throttle_ratio_high",
			"High end of the likely interval of cpu_whatif_throttle_ratio.", "limit_multiple"),
		recommended: perContainer(gauge, "cpu_recommended_limit_cores",
			"Smallest CPU limit in cores that is expected to throttle at most 1 % of periods, rare spikes of the last hours included. Absent where it can't be told."),
		periods: perContainer(gauge, "cpu_whatif_periods",
			"Bandwidth periods at the present CPU limit that the what-if model rests on."),
		outcome: perContainer(gauge, "cpu_whatif_outcome",
			"Always 1; outcome tells whether the what-if model has an answer: predicted, too_short (observe longer) or saturated (raise the limit, then look again). confidence is high, medium or low, and empty without an answer.", "outcome", "confidence"),
		checks: newFamily(counter, "exporter_whatif_checks_total",
			"What-if predictions that a change of a CPU limit let be checked."),
		errors: newFamily(gauge, "exporter_whatif_error_ratio",
			"Mean absolute error of the checked what-if predictions: predicted minus measured throttle ratio. Absent before the first check."),
	}
}

func (c *whatIf) Families() []*Family {
	return []*Family{c.ratio, c.low, c.high, c.recommended, c.periods, c.outcome, c.checks, c.errors}
}

func (c *whatIf) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		w := g.WhatIf
		if w == nil {
			continue
		}
		out.of(g, c.periods, float64(w.Periods))
		out.of(g, c.outcome, 1, string(w.Outcome), string(w.Confidence))
		for _, p := range w.At {
			if p.Outcome != whatif.Predicted {
				continue
			}
			multiple := strconv.FormatFloat(p.Multiple, 'g', -1, 64)
			out.of(g, c.ratio, p.Ratio, multiple)
			out.of(g, c.low, p.Low, multiple)
			out.of(g, c.high, p.High, multiple)
		}
		if w.Recommended > 0 {
			out.of(g, c.recommended, w.Recommended)
		}
	}
	if p := out.Snapshot.Predictions; p != nil {
		out.node(c.checks, float64(p.Checked))
		if p.Checked > 0 {
			out.node(c.errors, p.AbsError/float64(p.Checked))
		}
	}
}
