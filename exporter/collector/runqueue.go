package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type runqueue struct {
	classic bool
	wait    *Family
}

func newRunqueue(o Options) Collector {
	return &runqueue{
		classic: o.ClassicHistograms,
		wait: perContainer(histogram, "cpu_runqueue_wait_seconds",
			"How long the container's threads were runnable before they ran, in seconds, the time throttled included (BPF, sched_wakeup and sched_switch)."),
	}
}

func (r *runqueue) Families() []*Family { return []*Family{r.wait} }

func (r *runqueue) Update(snap *sampler.Snapshot, send func(prometheus.Metric, error)) error {
	for i := range snap.Containers {
		g := &snap.Containers[i]
		if g.Runqueue != nil && g.Group.Kind != cgroup.KindPod { // a pod's own cgroup has no threads
			send(r.wait.durations(g, &g.Runqueue.Histogram, snap.Since, r.classic))
		}
	}
	return nil
}
