package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type throttle struct {
	classic           bool
	durations, denied *Family
}

func newThrottle(o Options) Collector {
	return &throttle{
		classic: o.ClassicHistograms,
		durations: perContainer(histogram, "cpu_throttle_duration_seconds",
			"How long each throttle of the container on a CPU lasted, in seconds (BPF, fentry and fexit of unthrottle_cfs_rq). Absent where the kernel refuses fentry programs; see cpu_denied_period_seconds."),
		denied: perContainer(histogram, "cpu_denied_period_seconds",
			"CPU time denied in each throttled period, in seconds, summed over CPUs (BPF, sched_stat_runtime reading cfs_bandwidth). Exposed only where cpu_throttle_duration_seconds can't be measured, and only with a CPU limit."),
	}
}

func (t *throttle) Families() []*Family { return []*Family{t.durations, t.denied} }

func (t *throttle) Update(snap *sampler.Snapshot, send func(prometheus.Metric, error)) error {
	exact := false
	for _, p := range snap.Probes {
		exact = exact || p.Probe == bpf.ProbeThrottle && p.Attached
	}
	for i := range snap.Containers {
		g := &snap.Containers[i]
		_, limited := g.Cores()
		switch {
		// Without a limit nothing can be throttled; what was before stays.
		case exact && g.Durations != nil && (limited || g.Durations.Count() > 0):
			send(t.durations.durations(g, g.Durations, snap.Since, t.classic))
		case !exact && g.Denied != nil:
			send(t.denied.durations(g, g.Denied, snap.Since, t.classic))
		}
	}
	return nil
}
