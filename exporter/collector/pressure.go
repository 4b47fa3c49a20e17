package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type pressure struct{ seconds *Family }

func newPressure(Options) Collector {
	return &pressure{seconds: perContainer(counter, "pressure_seconds_total",
		"Time in seconds in which some, or all (full), of the container's tasks that had something to do waited for a resource: PSI, cpu.pressure, memory.pressure and io.pressure. Absent on cgroup v1, which keeps none by cgroup, and without CONFIG_PSI.", "resource", "kind")}
}

func (p *pressure) Families() []*Family { return []*Family{p.seconds} }

func (p *pressure) Update(snap *sampler.Snapshot, send func(prometheus.Metric, error)) error {
	for i := range snap.Containers {
		g := &snap.Containers[i]
		if g.Memory.Pressure == nil {
			continue
		}
		for _, r := range []struct {
			name string
			cgroup.Stall
		}{{"cpu", g.Memory.Pressure.CPU}, {"memory", g.Memory.Pressure.Memory}, {"io", g.Memory.Pressure.IO}} {
			if r.HasSome {
				send(p.seconds.of(g, r.Some.Seconds(), r.name, "some"))
			}
			if r.HasFull {
				send(p.seconds.of(g, r.Full.Seconds(), r.name, "full"))
			}
		}
	}
	return nil
}
