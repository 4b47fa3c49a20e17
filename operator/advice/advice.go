// Package advice says what a signal means and what to do about it. It is pure:
// the same signal gives the same words, and no number that the signal's own
// do not yield.
//
// Severity of throttling, by the share of CFS periods that were throttled:
//
//	critical  80 % and more; the application starves
//	warning   50 % and more, or 25 % while metrics report less than 60 %
//	info      less: by itself no incident
//
// Severity of run-queue waiting, by the share of the time that threads wanted
// a CPU and waited for it: critical from 80 %, warning from 50 %, else info.
//
// Severity of memory pressure, by the share of the time stalled for memory: critical
// from 60 % or after an OOM kill, warning from 10 %, else info.
//
// Severity of a birth: warning when a container never reached its entrypoint, or from
// 30 s on, else info.
package advice

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Severity is how bad it is; its values are those of spec.severity.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Confidence is how far a suggested value may be trusted.
type Confidence string

// The confidences.
const (
	High   Confidence = "high"
	Medium Confidence = "medium"
	Low    Confidence = "low"
)

// The actions.
const (
	IncreaseCPULimits      = "increase_cpu_limits"
	ReviewResourceRequests = "review_resource_requests"
	ReduceParallelism      = "reduce_parallelism"
	AllowBurst             = "allow_burst"
	RemoveCPULimit         = "remove_cpu_limit"
	RaiseAndRemeasure      = "raise_and_remeasure"
	DecreaseCPULimits      = "decrease_cpu_limits"
	SpreadLoad             = "spread_load"
)

// Bands, in percent.
const (
	starving = 80 // of periods throttled, or of the wanted time waited
	severe   = 50
	notable  = 25
	healthy  = 60 // what metrics report below this looks healthy
	busy     = 80 // what metrics report from this on hides nothing
	// saturated is where demand can't be told any more: hardly a period is free of backlog.
	saturated = 90
)

const starvation = "Application experiencing severe resource starvation"

// Recommendation is one thing that a person may do.
type Recommendation struct {
	Action string
	Reason string
	// SuggestedValue is a Kubernetes quantity, or a setting such as
	// GOMAXPROCS=2; empty when the evidence yields no number.
	SuggestedValue string
	Confidence     Confidence
	// Predicted is what the what-if model expects of it; nil where it does not tell.
	Predicted *Predicted
	// Command does it to the running pod; empty where nothing can.
	Command string
}

// Predicted is the share of throttled periods, 0 to 1: measured before, expected
// after, and the likely interval of the latter.
type Predicted struct {
	Before, After float64
	Low, High     *float64
}

// Advice is what a signal means.
type Advice struct {
	Insights        []string
	Severity        Severity
	Recommendations []Recommendation
	// ReportedPercent is what the cluster is told: in % of the limit where that
	// is known, else in % of one core. Nil when nothing is reported.
	ReportedPercent *float64
	// ReportedPercentOfLimit is nil where the limit is not known.
	ReportedPercentOfLimit *float64
}

// For never fails: a signal that says little gets little advice, a resolved
// one no recommendations.
func For(s signal.Signal) Advice {
	switch {
	case s.Type == signal.CPUThrottle && s.CPU != nil:
		return throttle(s)
	case s.Resolved:
		return Advice{Severity: Info, Insights: []string{"The condition is over"}}
	case s.Type == signal.CPUStarvation:
		return starved(s.Values)
	case s.Type == signal.PodCreation && s.Creation != nil:
		return birth(s.Creation)
	case s.Type == signal.MemoryPressure:
		return memory(s)
	case s.Type == signal.NetworkIssue:
		return network(s)
	case s.Type == signal.SecurityEvent:
		return security(s)
	}
	return Advice{Severity: Info}
}

func throttle(s signal.Signal) Advice {
	c := *s.CPU
	v := look(c)
	a := Advice{Severity: Info, ReportedPercent: v.reported, ReportedPercentOfLimit: v.reportedOfLimit}
	if s.Resolved || c.ThrottlePercent == 0 {
		a.Insights = append([]string{fmt.Sprintf("CPU throttling is over: %.1f%% throttled", c.ThrottlePercent)}, changed(c.Prediction)...)
		if r, ok := decrease(s, v); ok {
			a.Recommendations = append(a.Recommendations, r)
		}
		return a
	}
	a.Insights = append(a.Insights, fmt.Sprintf("CPU throttling detected: %.1f%% throttled", c.ThrottlePercent))
	switch {
	case v.reported == nil, v.reportedOfLimit != nil && *v.reportedOfLimit >= busy:
	case v.reportedOfLimit == nil && *v.reported > 100:
		a.Insights = append(a.Insights, fmt.Sprintf("Metrics show %.2f cores in use, kernel shows %.0f%% throttled", *c.ReportedCores, c.ThrottlePercent))
	default:
		a.Insights = append(a.Insights, fmt.Sprintf("Metrics show %.0f%% usage, kernel shows %.0f%% throttled", *v.reported, c.ThrottlePercent))
	}
	a.Insights = append(a.Insights, secondOpinions(c, v)...)
	a.Insights = append(a.Insights, changed(c.Prediction)...)
	switch {
	case c.ThrottlePercent >= starving:
		a.Severity = Critical
		a.Insights = append(a.Insights, starvation)
	case c.ThrottlePercent >= severe,
		c.ThrottlePercent >= notable && v.reported != nil && *v.reported < healthy:
		a.Severity = Warning
	}
	if v.denied != nil && *v.denied > 0 {
		a.Insights = append(a.Insights, fmt.Sprintf("Threads were held back for %.1f s in %.0f s, summed over CPUs", *c.ThrottledSeconds, c.PeriodSeconds))
	}
	if r, ok := raise(s, v); ok {
		a.Recommendations = append(a.Recommendations, r)
	}
	a.Recommendations = append(a.Recommendations, bursts(c, v)...)
	a.Recommendations = append(a.Recommendations, requests(c))

	// Under heavier throttling the waiting is the limit's own doing.
	if wait := c.RunqueueWaitPercent; wait != nil && *wait >= severe && c.ThrottlePercent < notable {
		a.Insights = append(a.Insights, waiting(*wait))
		a.Recommendations = append(a.Recommendations, spread())
	}
	return a
}

// secondOpinions tells of further observers whose average differs from the
// reported one by over a tenth, or where there is no reported one.
func secondOpinions(c signal.CPU, v view) []string {
	var lines []string
	for _, r := range c.Others {
		if c.ReportedCores != nil && math.Abs(r.Cores-*c.ReportedCores) <= 0.1*max(r.Cores, *c.ReportedCores) {
			continue
		}
		line := fmt.Sprintf("%s shows %.2f cores", observer(r.Source), r.Cores)
		if v.limit != nil {
			line += fmt.Sprintf(" (%.0f%% of the limit)", 100*r.Cores / *v.limit)
		}
		if r.PeriodSeconds > 0 {
			line += fmt.Sprintf(" over %.0f s", r.PeriodSeconds)
		}
		if c.ReportedCores != nil {
			line += fmt.Sprintf(", metrics show %.2f", *c.ReportedCores)
		}
		lines = append(lines, fmt.Sprintf("%s, kernel shows %.0f%% throttled", line, c.ThrottlePercent))
	}
	return lines
}

func observer(source signal.Source) string {
	if source == signal.SourcePixie {
		return "Pixie"
	}
	return string(source)
}

// view is what follows at once from the evidence. Nil is not known.
type view struct {
	limit           *float64 // cores
	reported        *float64 // % of the limit, else of one core
	reportedOfLimit *float64
	used            *float64 // cores, by the kernel; else as reported
	denied          *float64 // cores: throttled time per second, summed over CPUs
}

func look(c signal.CPU) view {
	v := view{limit: c.LimitCores, used: c.ActualCores, reportedOfLimit: c.ReportedPercent}
	if v.limit == nil && c.ReportedCores != nil && c.ReportedPercent != nil && *c.ReportedPercent > 0 && *c.ReportedCores > 0 {
		v.limit = ptr(*c.ReportedCores / *c.ReportedPercent * 100)
	}
	if v.reportedOfLimit == nil && v.limit != nil && c.ReportedCores != nil {
		v.reportedOfLimit = ptr(100 * *c.ReportedCores / *v.limit)
	}
	v.reported = v.reportedOfLimit
	if v.reported == nil && c.ReportedCores != nil {
		v.reported = ptr(100 * *c.ReportedCores)
	}
	if v.used == nil {
		v.used = c.ReportedCores
	}
	if c.ThrottledSeconds != nil && c.PeriodSeconds > 0 {
		v.denied = ptr(*c.ThrottledSeconds / c.PeriodSeconds)
	}
	return v
}

// increase suggests a limit: the what-if model's, else a step that the
// throttle data bounds. False when the model holds the present limit for enough.
func increase(c signal.CPU, v view) (Recommendation, bool) {
	r := Recommendation{Action: IncreaseCPULimits, Confidence: Low}
	share := c.ThrottlePercent / 100
	switch {
	case c.RecommendedCores != nil:
		if v.limit != nil && *c.RecommendedCores <= *v.limit {
			return r, false
		}
		return modelled(c, v), true

	case v.limit != nil && v.denied != nil && *v.denied > 0:
		// Used at least: in each throttled period, the whole quota.
		used, limit, denied := share**v.limit, *v.limit, *v.denied
		if v.used != nil {
			used = max(used, *v.used)
		}
		target := used + denied
		r.Reason = fmt.Sprintf("It used %.2f cores and was denied about %.2f more", used, denied)
		if target <= limit {
			target = limit + denied/share
			r.Reason = fmt.Sprintf("In throttled periods it was denied about %.2f cores on top of its limit of %.2f", denied/share, limit)
		}
		if target > 2*limit {
			target = 2 * limit
			r.Reason += ", more than one step should add: the limit is doubled"
		}
		r.SuggestedValue = quantity(target)
		r.Reason += ". Raise, then measure again."

	case v.limit != nil:
		r.SuggestedValue = quantity(*v.limit * (1 + share))
		r.Reason = fmt.Sprintf("Throttled time is not known, so the limit of %.2f cores is raised by the share of periods that exhausted it, %.1f%%. Raise, then measure again.",
			*v.limit, c.ThrottlePercent)

	case c.ActualCores != nil && *c.ActualCores > 0:
		// At full quota in that share of the periods, the limit is at most used/share.
		used := *c.ActualCores
		target := min(used/share, 2*used)
		r.Reason = fmt.Sprintf("The limit is not known. If it ran all the time, using %.2f cores with %.1f%% of periods at the limit, that limit is at most %.2f cores: set at least that",
			used, c.ThrottlePercent, used/share)
		if used/share > 2*used {
			r.Reason += " or, as a first step, double what it uses"
		}
		if v.denied != nil && used+*v.denied > target {
			target = min(used+*v.denied, 2*used)
			r.Reason = fmt.Sprintf("The limit is not known. It used %.2f cores and was denied about %.2f more; the step is at most double what it uses", used, *v.denied)
		}
		r.SuggestedValue = quantity(target)
		r.Reason += ". Raise, then measure again."

	default:
		r.Reason = fmt.Sprintf("It exhausts its limit in %.1f%% of periods. How far to raise can't be told: neither the limit nor the CPU used is known.", c.ThrottlePercent)
	}
	return r, true
}

func modelled(c signal.CPU, v view) Recommendation {
	r := Recommendation{Action: IncreaseCPULimits, SuggestedValue: quantity(*c.RecommendedCores), Confidence: Medium}
	r.Reason = "The smallest limit that the what-if model expects to stop the throttling"
	if v.limit != nil {
		r.Reason += fmt.Sprintf("; it is %.2f cores now", *v.limit)
	}
	if c.ThrottlePercent >= saturated {
		r.Reason += ". Hardly a period was free of backlog, so demand may be higher still: raise, then measure again."
		return r
	}
	for _, w := range c.WhatIf {
		near := math.Abs(w.LimitCores-*c.RecommendedCores) <= 0.01**c.RecommendedCores
		if near && w.High != nil {
			r.Reason += fmt.Sprintf(". Predicted there: %.1f%% of periods throttled, at most %.1f%%", 100*w.ThrottleRatio, 100**w.High)
			if *w.High <= 0.05 {
				r.Confidence = High
			}
			break
		}
	}
	r.Reason += "."
	return r
}

// bursts is for a container whose average is far below its limit: more CPU is
// not what it lacks, but CPU at once.
func bursts(c signal.CPU, v view) []Recommendation {
	if v.limit == nil || v.used == nil || 100**v.used >= healthy**v.limit {
		return nil
	}
	threads, confidence := math.Floor(*v.limit), Medium
	if threads < 1 {
		// One thread alone can exhaust such a quota.
		threads, confidence = 1, Low
	}
	all := []Recommendation{
		{Action: ReduceParallelism, SuggestedValue: fmt.Sprintf("GOMAXPROCS=%.0f", threads), Confidence: confidence,
			Reason: fmt.Sprintf("It uses %.2f of %.2f cores on average, yet exhausts its quota within single periods: too many threads run at once. With fewer (GOMAXPROCS, thread pools) the quota lasts longer.", *v.used, *v.limit)},
		{Action: AllowBurst, Confidence: Medium,
			Reason: "Quota left over from quiet periods can pay for busy ones: cpu.max.burst (cgroup v2) or cpu.cfs_burst_us (v1), Linux 5.14 or newer. Kubernetes has no field for it; set it through the container runtime."},
		{Action: RemoveCPULimit, Confidence: Low,
			Reason: "Without a limit its bursts use CPU that is idle, and its request still assures its share. Not where the pod must stay Guaranteed or neighbours need hard isolation."},
	}
	if p := c.Prediction; p != nil && p.Outcome == signal.Predicted {
		return replayed(all, *p, *v.limit)
	}
	return all
}

func requests(c signal.CPU) Recommendation {
	r := Recommendation{Action: ReviewResourceRequests, Confidence: Low,
		Reason: "Requests decide where the pod is scheduled and its share of a contended node; compare them with what the kernel counts, not with a throttled average."}
	if c.ActualCores != nil && *c.ActualCores > 0 {
		r.SuggestedValue, r.Confidence = quantity(*c.ActualCores), Medium
		r.Reason = fmt.Sprintf("Requests decide where the pod is scheduled and its share of a contended node: ask for at least the %.2f cores that it uses while throttled.", *c.ActualCores)
	}
	return r
}

func starved(values map[string]float64) Advice {
	wait := values["runqueue_wait_percent"]
	a := Advice{Severity: Info, Insights: []string{waiting(wait)}}
	switch {
	case wait >= starving:
		a.Severity = Critical
		a.Insights = append(a.Insights, starvation)
	case wait >= severe:
		a.Severity = Warning
	}
	a.Recommendations = []Recommendation{
		{Action: ReviewResourceRequests, Confidence: Medium,
			Reason: "The node has more work than CPUs, and a container's share of them follows its CPU request (cpu.weight, cpu.shares): raise the request. A higher limit would not help."},
		spread(),
	}
	return a
}

func waiting(percent float64) string {
	return fmt.Sprintf("CPU starvation: threads waited for a CPU %.1f%% of the time they wanted one", percent)
}

func spread() Recommendation {
	return Recommendation{Action: SpreadLoad, Confidence: Medium,
		Reason: "Neighbours on the node take the CPU: spread the load (topology spread constraints, anti-affinity, more replicas or nodes)."}
}

// named tells the evidence in words, as it is.
func named(what string, values map[string]float64) Advice {
	const most = 8 // an insight is a line to read
	var parts []string
	for i, name := range slices.Sorted(maps.Keys(values)) {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(values)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("%s %.6g", strings.ReplaceAll(name, "_", " "), values[name]))
	}
	return Advice{Severity: Warning, Insights: []string{what + ": " + strings.Join(parts, ", ")}}
}

// quantity rounds up to a step that people would write: 10m below 100m, else 50m.
func quantity(cores float64) string {
	step := 50.0
	if cores < 0.1 {
		step = 10
	}
	// A millionth of a core is the arithmetic's, not the container's.
	return fmt.Sprintf("%.0fm", math.Ceil((cores*1000-1e-3)/step)*step)
}

func ptr(f float64) *float64 { return &f }
