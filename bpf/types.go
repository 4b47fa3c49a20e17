package bpf

import (
	"math"
	"time"
)

// Probe is one concern that attaches, degrades and is counted alone.
type Probe string

// The probes.
const (
	ProbeThrottle Probe = "throttle" // exact throttle durations (fentry/fexit)
	ProbeSyscalls Probe = "syscalls"
	ProbeRunqueue Probe = "runqueue"
	ProbeDemand   Probe = "demand" // per bandwidth period: used, denied, throttled (tracepoint)
	ProbeReclaim  Probe = "reclaim"
	ProbeOOM      Probe = "oom"
	ProbeNetwork  Probe = "network"
	ProbeBirth    Probe = "birth"
	ProbeSecurity Probe = "security"
)

// AllProbes are all of them, in the order in which they are attached.
func AllProbes() []Probe {
	return []Probe{ProbeThrottle, ProbeSyscalls, ProbeRunqueue, ProbeDemand, ProbeReclaim, ProbeOOM, ProbeNetwork, ProbeBirth, ProbeSecurity}
}

// Status is what became of a probe.
type Status struct {
	Probe    Probe
	Attached bool
	Mode     string // how it is attached: tp_btf, raw_tp, kprobe, fentry, …
	Reason   string // why it is not, in a sentence that names the requirement
	Lost     string // what is missing because of it, or of the way it is attached
}

// Histogram holds durations in buckets whose upper bounds are powers of two of a
// second, as a Prometheus native histogram of schema 0 has them: Buckets[i] counts
// durations in (2^(i+MinExp-1), 2^(i+MinExp)] seconds; the first takes all that is
// shorter, the last all that is longer. Everything is cumulative since attach.
type Histogram struct {
	Buckets [HistogramBuckets]uint64
	Sum     time.Duration
}

// The range of a Histogram: 2^-20 s (about 1 µs) to 2^7 s.
const (
	HistogramMinExp  = -20
	HistogramBuckets = 28
)

// Count is the number of durations.
func (h *Histogram) Count() uint64 {
	var n uint64
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	bucket := 0
	for bucket < HistogramBuckets-1 && d.Seconds() > math.Ldexp(1, HistogramMinExp+bucket) {
		bucket++
	}
	h.Buckets[bucket]++
	h.Sum += d
}

// RunqueueWait is the time that threads of a cgroup were runnable and not running.
type RunqueueWait struct {
	Histogram
	// Throttled is the part of Sum during which the thread's cgroup was throttled
	// on that CPU; Sum - Throttled is contention. It never exceeds Sum.
	Throttled time.Duration
}

// Period is one CFS bandwidth period of a limited cgroup.
type Period struct {
	Start     time.Duration // CLOCK_MONOTONIC at the period's start
	Used      time.Duration
	Denied    time.Duration // Δcfs_bandwidth.throttled_time, summed over CPUs
	Throttled bool
	Quota     time.Duration
	Length    time.Duration
}

// ProgramStats is the kernel's own account of a program (bpf_prog_info, with
// kernel.bpf_stats_enabled or BPF_ENABLE_STATS).
type ProgramStats struct {
	Probe   Probe
	Program string
	Runs    uint64
	RunTime time.Duration
	// Missed are the events for which the kernel skipped the program, because it was
	// already running on that CPU. Counted from 5.12 on.
	Missed uint64
}

// MapStats is the occupancy of a map, and what it could not take.
type MapStats struct {
	Probe    Probe
	Map      string
	Entries  int
	Capacity int
	Lost     uint64 // updates that found it full; of a ring, events
	Ring     bool   // entries and capacity are bytes
}
