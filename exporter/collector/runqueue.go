package collector

import "github.com/kernel-gossip/kernel-gossip/exporter/cgroup"

type runqueue struct {
	wait *Family
}

func newRunqueue() Collector {
	return &runqueue{
		wait: perContainer(histogram, "cpu_runqueue_wait_seconds",
			"How long the container's threads were runnable before they ran, in seconds, the time throttled included (BPF, sched_wakeup and sched_switch)."),
	}
}

func (r *runqueue) Families() []*Family { return []*Family{r.wait} }

func (r *runqueue) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		if g.Runqueue != nil && g.Group.Kind != cgroup.KindPod { // a pod's own cgroup has no threads
			out.durations(g, r.wait, &g.Runqueue.Histogram)
		}
	}
}
