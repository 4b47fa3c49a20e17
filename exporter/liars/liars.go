// Package liars ranks containers by how far the usual view is from the kernel's.
// Pure.
package liars

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/rules"
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
	Stopped       uint64   `json:"throttled_periods"`
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
		r.Periods, r.Stopped, r.WindowSeconds = t.Periods, t.Throttled, t.Window.Seconds()
		if ratio, ok := t.Ratio(); ok {
			r.ThrottleRatio = &ratio
			r.Lie = ratio * (1 - math.Min(1, math.Max(0, or0(r.ReportedShare))))
		}
	}
	return r
}

// Throttled tells whether the kernel stops it as often as the alerts speak of.
func (r *Row) Throttled() bool { return or0(r.ThrottleRatio) > rules.ThrottledRatio }

// Lying tells whether it is throttled while the usual view calls it healthy: the
// condition of the alert KernelGossipMetricsLie, over a Row's shorter window.
func (r *Row) Lying() bool {
	return r.Throttled() && r.ReportedShare != nil && *r.ReportedShare < rules.ReportedRatio
}

// Count is how many rows there are of a kind.
func Count(rows []Row, of func(*Row) bool) int {
	n := 0
	for i := range rows {
		if of(&rows[i]) {
			n++
		}
	}
	return n
}

func or0(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}

// Ranking is a sample as a person is shown it, and as the exporter's page gives it to
// who accepts application/json.
type Ranking struct {
	At         time.Time    `json:"at"`    // of the sample
	Total      int          `json:"total"` // containers alive
	Containers []Row        `json:"containers"`
	Missing    []Unmeasured `json:"not_measured"`
}

// Unmeasured is what a probe does not deliver on this machine.
type Unmeasured struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Of is the ranking of a sample, of all living containers; nil before the first sample.
func Of(snap *sampler.Snapshot) *Ranking {
	if snap == nil {
		return nil
	}
	r := &Ranking{At: snap.At, Containers: Rank(snap, math.MaxInt), Missing: []Unmeasured{}}
	r.Total = len(r.Containers)
	for _, p := range snap.Probes {
		if !p.Attached {
			r.Missing = append(r.Missing, Unmeasured{What: p.Lost, Why: p.Reason})
		}
	}
	return r
}

// Column is a figure of a Row by which rows can be sorted.
type Column struct {
	Key, Title, Hint string
	Value            func(*Row) *float64 // nil for the name
}

// The keys of the columns that are named in code.
const (
	ByName = "name"
	ByGap  = "gap"
)

// Columns are those of the page and of top, in their order.
func Columns() []Column {
	return []Column{
		{ByName, "Container", "namespace, pod and container; the cgroup's path outside Kubernetes", nil},
		{ByGap, "Gap", "cores that it wanted, less those reported", func(r *Row) *float64 { return r.Gap }},
		{"share", "Reported of limit", "what a dashboard shows", func(r *Row) *float64 { return r.ReportedShare }},
		{"throttled", "Periods throttled", "what the kernel did", func(r *Row) *float64 { return r.ThrottleRatio }},
		{"reported", "Reported", "cores, as kubectl top shows them", func(r *Row) *float64 { return r.Reported }},
		{"used", "Used", "cores, by the kernel's count", func(r *Row) *float64 { return r.Used }},
		{"limit", "Limit", "cores, as the kernel enforces it", func(r *Row) *float64 { return r.Limit }},
		{"wanted", "Wanted", "cores: used, throttled and waited for", func(r *Row) *float64 { return r.Demand }},
	}
}

// Sort sorts by the column of that key; rows that are equal in it keep their order, as
// do all when there is no such column. What was not measured stays last, either way.
func Sort(rows []Row, key string, ascending bool) {
	i := slices.IndexFunc(Columns(), func(c Column) bool { return c.Key == key })
	if i < 0 {
		return
	}
	value := Columns()[i].Value
	slices.SortStableFunc(rows, func(a, b Row) int {
		var c int
		if value == nil {
			c = cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Pod, b.Pod), strings.Compare(a.Container, b.Container))
		} else {
			x, y := value(&a), value(&b)
			switch {
			case x == nil && y == nil:
				return 0
			case x == nil:
				return 1
			case y == nil:
				return -1
			}
			c = cmp.Compare(*x, *y)
		}
		if !ascending {
			c = -c
		}
		return c
	})
}
