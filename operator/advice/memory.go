package advice

import (
	"fmt"
	"math"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Actions on memory.
const (
	IncreaseMemoryLimits = "increase_memory_limits"
	FindMemoryLeak       = "find_memory_leak"
)

// Bands of the share of time that was lost waiting for memory, in percent.
const (
	thrashing = 60
	stalling  = 10
)

// margin is what a limit should have above the estimated working set.
const margin = 1.2

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
)

// memory reads the evidence of memory_pressure (see wire.MemoryPressure). Severity is
// critical after a kill or from 60 % of the time stalled, warning from 10 %, else info.
func memory(s signal.Signal) Advice {
	v := memoryView{s.Values}
	stalled, known := v.stalled()
	kills, growth := v.get("oom_kills"), v.Values["growth_bytes_per_hour"]
	limit, reported := v.get("memory_limit_bytes"), v.reported()
	a := Advice{Severity: Info}
	if limit > 0 && reported > 0 {
		percent := 100 * reported / limit
		a.ReportedPercent, a.ReportedPercentOfLimit = &percent, &percent
	}

	if known {
		a.Insights = append(a.Insights, fmt.Sprintf("Memory pressure detected: stalled %.1f%% of the time reclaiming", stalled))
		if p := a.ReportedPercentOfLimit; p != nil && stalled >= stalling {
			a.Insights = append(a.Insights, fmt.Sprintf("Reported %.0f%% of the limit, yet stalled %.0f%% of the time reclaiming", *p, stalled))
		}
	}
	switch {
	case kills > 0 || known && stalled >= thrashing:
		a.Severity = Critical
	case known && stalled >= stalling:
		a.Severity = Warning
	}
	if kills > 0 {
		a.Insights = append(a.Insights, v.killed(kills))
	}
	if refaulted := v.get("refaulted_bytes"); refaulted >= mebibyte {
		line := fmt.Sprintf("%s of pages came back after they had been evicted while in use", size(refaulted))
		if period := v.get("period_seconds"); period > 0 {
			line += fmt.Sprintf(", in %.0f s", period)
		}
		a.Insights = append(a.Insights, line)
	}
	if len(a.Insights) == 0 {
		return named("Memory pressure", s.Values)
	}

	switch {
	case v.get("oom_node") > 0:
		a.Recommendations = append(a.Recommendations, Recommendation{Action: ReviewResourceRequests, Confidence: Medium,
			Reason: "The node ran out of memory, not the container's own limit: requests decide how many pods share it and who is killed first (oom_score_adj). Ask for what the pods really hold, or spread them."})
		return a
	case growth > 0:
		a.Insights = append(a.Insights, fmt.Sprintf("The working set only grows: %s an hour", size(growth)))
		a.Recommendations = append(a.Recommendations, Recommendation{Action: FindMemoryLeak, Confidence: Medium,
			Reason: fmt.Sprintf("The working set grew without rest, by %s an hour: a higher limit would only put the next kill off. Look at heap profiles, caches without a bound, files kept open on tmpfs.", size(growth))})
	case limit > 0:
		a.Recommendations = append(a.Recommendations, v.increase(limit, kills))
	default:
		a.Recommendations = append(a.Recommendations, Recommendation{Action: IncreaseMemoryLimits, Confidence: Low,
			Reason: "How far to raise can't be told: the limit is not known. It may be an ancestor's, or the node's memory."})
	}
	// What was killed no longer shows in the working set.
	if held := max(v.get("working_set_bytes"), v.get("oom_victim_rss_bytes")); held > 0 {
		a.Recommendations = append(a.Recommendations, Recommendation{Action: ReviewResourceRequests, SuggestedValue: memoryQuantity(held), Confidence: Medium,
			Reason: "Requests decide where the pod is scheduled and who is evicted first when the node runs short: ask for at least what it holds at its peak."})
	}
	return a
}

// memoryView is the evidence.
type memoryView struct{ Values map[string]float64 }

// get is 0 for what is not known or makes no sense below 0.
func (v memoryView) get(name string) float64 { return max(0, v.Values[name]) }

// stalled is in percent of the time: PSI's, or the threads' reclaim stalls where the
// kernel keeps no PSI by cgroup.
func (v memoryView) stalled() (percent float64, known bool) {
	for _, name := range []string{"some_pressure_percent", "reclaim_stall_percent"} {
		if p, ok := v.Values[name]; ok {
			return min(max(p, 0), 100), true
		}
	}
	return 0, false
}

// reported is what the cluster is told, or the same as the kernel has it.
func (v memoryView) reported() float64 {
	if r := v.get("reported_memory_bytes"); r > 0 {
		return r
	}
	return v.get("working_set_bytes")
}

func (v memoryView) killed(kills float64) string {
	line := fmt.Sprintf("The kernel killed %.0f processes for want of memory", kills)
	if kills == 1 {
		line = "The kernel killed a process for want of memory"
	}
	if rss := v.get("oom_victim_rss_bytes"); rss > 0 {
		if kills > 1 {
			line += "; the last"
		} else {
			line += ", which"
		}
		line += " held " + size(rss)
		if limit := v.get("oom_limit_bytes"); limit > 0 {
			line += " under a limit of " + size(limit)
		}
		if pid, by := v.get("oom_victim_pid"), v.get("oom_trigger_pid"); pid > 0 && by > 0 {
			line += fmt.Sprintf(" (pid %.0f, asked for by %.0f)", pid, by)
		}
	}
	return line
}

// increase suggests the estimated working set and a margin: what is held, and what was
// evicted and came back within the window, which would have stayed had there been room.
// A page may have come back more than once, and what was killed wanted more than is
// known: so a step is at most double the limit.
func (v memoryView) increase(limit, kills float64) Recommendation {
	held, refaulted := v.get("working_set_bytes"), v.get("refaulted_bytes")
	r := Recommendation{Action: IncreaseMemoryLimits, Confidence: Low}
	_, measured := v.Values["refaulted_bytes"]
	estimate := max(held, v.get("oom_victim_rss_bytes")) + refaulted
	target := margin * estimate
	switch {
	case kills > 0 || target <= limit:
		// It wanted more than the limit, and how much more nobody saw.
		target = max(target, 1.5*limit)
		r.Reason = fmt.Sprintf("It wanted more than its limit of %s; how much more is not known. Raise, then measure again.", size(limit))
	default:
		r.Reason = fmt.Sprintf("Estimated working set: %s held and %s that came back after eviction, with a margin of a fifth; the limit is %s now.", size(held), size(refaulted), size(limit))
		if measured && target <= 2*limit {
			r.Confidence = Medium
		}
	}
	if target > 2*limit {
		target = 2 * limit
		r.Reason += " More than one step should add: the limit is doubled."
	}
	r.SuggestedValue = memoryQuantity(target)
	return r
}

// memoryQuantity rounds up to 16 Mi, or to 64 Mi from 1 Gi on.
func memoryQuantity(bytes float64) string {
	step := 16.0
	if bytes >= gibibyte {
		step = 64
	}
	return fmt.Sprintf("%.0fMi", math.Ceil(bytes/mebibyte/step)*step)
}

func size(bytes float64) string {
	switch {
	case bytes >= gibibyte:
		return fmt.Sprintf("%.1f GiB", bytes/gibibyte)
	case bytes >= mebibyte:
		return fmt.Sprintf("%.0f MiB", bytes/mebibyte)
	}
	return fmt.Sprintf("%.0f KiB", bytes/1024)
}
