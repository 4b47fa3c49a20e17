// Package liars ranks containers by how far the usual view is from the kernel's.
// Pure.
package liars

import (
	"cmp"
	"math"
	"slices"

	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// Row is one container in the ranking. CPU is in cores; nil is "not measured".
type Row struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container"` // the cgroup's path outside Kubernetes

	Reported *float64 `json:"reported_cores"`
	Source   string   `json:"reported_source,omitempty"`
	// ReportedShare is reported over limit, which is what a dashboard shows.
	ReportedShare *float64 `json:"reported_ratio_of_limit"`
	Limit         *float64 `json:"limit_cores"`
	Used          *float64 `json:"used_cores"`
	// ThrottleRatio is throttled periods per period over WindowSeconds.
	ThrottleRatio *float64 `json:"throttle_ratio"`
	Periods       uint64   `json:"periods"`
	Throttled     uint64   `json:"throttled_periods"`
	WindowSeconds float64  `json:"window_seconds"`
	Demand        *float64 `json:"demand_cores"`
	// Gap is demand minus reported.
	Gap *float64 `json:"gap_cores"`
	// Lie is the throttle ratio times the share of the limit that looks free: 0 when
	// the usual view tells as much as the kernel, 1 when it shows an idle container
	// that is throttled in each period.
	Lie float64 `json:"lie"`
}

// Rank returns at most limit living containers, the biggest liar first, then by gap.
func Rank(snap *sampler.Snapshot, limit int) []Row {
	if snap == nil {
		return nil
	}
	rows := make([]Row, 0, len(snap.Containers))
	for i := range snap.Containers {
		if c := &snap.Containers[i]; c.Group.Gone.IsZero() {
			rows = append(rows, row(c))
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Lie, a.Lie), cmp.Compare(or0(b.Gap), or0(a.Gap)))
	})
	return rows[:min(limit, len(rows))]
}

func row(c *sampler.Container) Row {
	r := Row{Namespace: c.Namespace, Pod: c.Pod, Container: c.Container}
	if cores, ok := c.Cores(); ok {
		r.Limit = &cores
	}
	if len(c.Reported) > 0 {
		r.Reported, r.Source = &c.Reported[0].Cores, c.Reported[0].Source
		if r.Limit != nil {
			share := *r.Reported / *r.Limit
			r.ReportedShare = &share
		}
	}
	if c.Gap != nil {
		r.Used, r.Demand = c.Gap.Used, c.Gap.Demand
	}
	if r.Demand != nil && r.Reported != nil {
		gap := *r.Demand - *r.Reported
		r.Gap = &gap
	}
	if t := c.Throttling; t != nil {
		r.Periods, r.Throttled, r.WindowSeconds = t.Periods, t.Throttled, t.Window.Seconds()
		if ratio, ok := t.Ratio(); ok {
			r.ThrottleRatio = &ratio
			r.Lie = ratio * (1 - math.Min(1, math.Max(0, or0(r.ReportedShare))))
		}
	}
	return r
}

func or0(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}
