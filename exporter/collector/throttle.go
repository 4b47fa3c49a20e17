package collector

import "github.com/kernel-gossip/kernel-gossip/bpf"

type throttle struct {
	durations, denied *Family
}

func newThrottle() Collector {
	return &throttle{
		durations: perContainer(histogram, "cpu_throttle_duration_seconds",
			"How long each throttle of the container on a CPU lasted, in seconds (BPF, fentry and fexit of unthrottle_cfs_rq). Absent where the kernel refuses fentry programs; see cpu_denied_period_seconds."),
		denied: perContainer(histogram, "cpu_denied_period_seconds",
			"CPU time denied in each throttled period, in seconds, summed over CPUs (BPF, sched_stat_runtime reading cfs_bandwidth). Exposed only where cpu_throttle_duration_seconds can't be measured, and only with a CPU limit."),
	}
}

func (t *throttle) Families() []*Family { return []*Family{t.durations, t.denied} }

func (t *throttle) Update(out *Exposition) {
	exact := false
	for _, p := range out.Snapshot.Probes {
		exact = exact || p.Probe == bpf.ProbeThrottle && p.Attached
	}
	for i := range out.Containers {
		g := &out.Containers[i]
		_, limited := g.Cores()
		switch {
		// Without a limit nothing can be throttled; what was before stays.
		case exact && g.Durations != nil && (limited || g.Durations.Count() > 0):
			out.durations(g, t.durations, g.Durations)
		case !exact && g.Denied != nil:
			out.durations(g, t.denied, g.Denied)
		}
	}
}
