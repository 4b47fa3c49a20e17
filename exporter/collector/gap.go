package collector

type gapCollector struct{ reported, age, gap, demand *Family }

func newGap() Collector {
	return &gapCollector{
		reported: perContainer(gauge, "cpu_reported_cores",
			"CPU use in cores as the source reports it: what kubectl top shows, or its emulation off-cluster.", "source"),
		age: perContainer(gauge, "cpu_reported_age_seconds",
			"Age in seconds of the reported figure: now minus the end of the window that it averages.", "source"),
		gap: perContainer(gauge, "cpu_gap_cores",
			"What the reported figure does not tell, in cores, over its own window (the trailing one when nothing is reported). kind=accounting: the kernel's figure minus the reported one, may be negative. kind=averaging: busiest second minus mean. kind=throttled: throttled CPU time per second, summed over CPUs. kind=contended: run-queue wait that throttling does not explain, at most the CPUs left unused.", "kind"),
		demand: perContainer(gauge, "cpu_demand_cores",
			"CPU in cores that the container wanted: used, throttled and, where it is measured, contended, at most the CPUs it may run on. An estimate; see the package documentation of exporter/gap."),
	}
}

func (c *gapCollector) Families() []*Family {
	return []*Family{c.reported, c.age, c.gap, c.demand}
}

func (c *gapCollector) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		for _, u := range g.Reported {
			out.of(g, c.reported, u.Cores, u.Source)
			out.of(g, c.age, out.Snapshot.At.Sub(u.At).Seconds(), u.Source)
		}
		if g.Gap == nil {
			continue
		}
		for _, part := range []struct {
			kind  string
			cores *float64
		}{
			{"accounting", g.Gap.Accounting}, {"averaging", g.Gap.Averaging},
			{"throttled", g.Gap.Throttled}, {"contended", g.Gap.Contended},
		} {
			if part.cores != nil {
				out.of(g, c.gap, *part.cores, part.kind)
			}
		}
		if g.Gap.Demand != nil {
			out.of(g, c.demand, *g.Gap.Demand)
		}
	}
}
