package collector

type cpu struct {
	periods, throttled, throttledTime, hierarchical *Family
	ratio, usage, request, limit, burst             *Family
}

func newCPU() Collector {
	return &cpu{
		periods: perContainer(counter, "cpu_periods_total",
			"CFS bandwidth periods in which the container was runnable (nr_periods of cpu.stat). Absent without a CPU limit."),
		throttled: perContainer(counter, "cpu_throttled_periods_total",
			"Periods in which the container was throttled (nr_throttled of cpu.stat). Absent without a CPU limit."),
		throttledTime: perContainer(counter, "cpu_throttled_seconds_total",
			"Time throttled in seconds, summed over CPUs, so that more than a second in a second is possible (throttled_usec or throttled_time of cpu.stat). Absent without a CPU limit."),
		hierarchical: perContainer(counter, "cpu_hierarchical_throttled_seconds_total",
			"Time throttled in seconds, by the container's own limit or an ancestor's, summed over CPUs (cpu.stat.local, kernel 6.6 or later)."),
		ratio: perContainer(gauge, "cpu_throttle_ratio",
			"Throttled periods per period over the trailing window (--throttle.window), 0 to 1: growth of nr_throttled over growth of nr_periods. Absent while no period elapsed."),
		usage: perContainer(counter, "cpu_usage_seconds_total",
			"CPU time used in seconds (usage_usec of cpu.stat, or cpuacct.usage)."),
		request: perContainer(gauge, "cpu_request_cores",
			"CPU request in cores of the pod's spec, as it is now: resizing in place changes it. Absent outside Kubernetes and without a CPU request."),
		limit: perContainer(gauge, "cpu_limit_cores",
			"CPU limit in cores that the kernel enforces: quota over period (cpu.max or cpu.cfs_quota_us). Absent without a CPU limit."),
		burst: perContainer(gauge, "cpu_burst_cores",
			"CPU that unused quota may add to a period, in cores (cpu.max.burst or cpu.cfs_burst_us). Absent without a CPU limit."),
	}
}

func (c *cpu) Families() []*Family {
	return []*Family{c.periods, c.throttled, c.throttledTime, c.hierarchical, c.ratio, c.usage, c.request, c.limit, c.burst}
}

func (c *cpu) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		cores, limited := g.Cores()
		if limited {
			out.of(g, c.limit, cores)
			out.of(g, c.burst, float64(g.Limit.Burst)/float64(g.Limit.Period))
		}
		if g.Request != nil {
			out.of(g, c.request, *g.Request)
		}
		if ratio, ok := g.Throttling.Ratio(); ok {
			out.of(g, c.ratio, ratio)
		}
		if g.CPU == nil {
			continue
		}
		if g.CPU.HasUsage {
			out.of(g, c.usage, g.CPU.Usage.Seconds())
		}
		// Without a quota the kernel counts no periods; those from before it was
		// lifted still count.
		if g.CPU.HasBandwidth && (limited || g.CPU.Periods > 0) {
			out.of(g, c.periods, float64(g.CPU.Periods))
			out.of(g, c.throttled, float64(g.CPU.Throttled))
			out.of(g, c.throttledTime, g.CPU.ThrottledTime.Seconds())
		}
		if t := g.CPU.HierarchicalThrottledTime; t != nil {
			out.of(g, c.hierarchical, t.Seconds())
		}
	}
}
