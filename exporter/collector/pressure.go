package collector

import "github.com/kernel-gossip/kernel-gossip/exporter/cgroup"

type pressure struct{ seconds *Family }

func newPressure() Collector {
	return &pressure{seconds: perContainer(counter, "pressure_seconds_total",
		"Time in seconds in which some, or all (full), of the container's tasks that had something to do waited for a resource: PSI, cpu.pressure, memory.pressure and io.pressure. Absent on cgroup v1, which keeps none by cgroup, and without CONFIG_PSI.", "resource", "kind")}
}

func (p *pressure) Families() []*Family { return []*Family{p.seconds} }

func (p *pressure) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		if g.Memory.Pressure == nil {
			continue
		}
		for _, r := range []struct {
			name string
			cgroup.Stall
		}{{"cpu", g.Memory.Pressure.CPU}, {"memory", g.Memory.Pressure.Memory}, {"io", g.Memory.Pressure.IO}} {
			if r.HasSome {
				out.of(g, p.seconds, r.Some.Seconds(), r.name, "some")
			}
			if r.HasFull {
				out.of(g, p.seconds, r.Full.Seconds(), r.name, "full")
			}
		}
	}
}
