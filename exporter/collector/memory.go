package collector

import "github.com/kernel-gossip/kernel-gossip/exporter/cgroup"

type memory struct {
	usage, workingSet, limit, reported *Family
	events, kills                      *Family
	faults, refaults                   *Family
	stall                              *Family
}

func newMemory() Collector {
	return &memory{
		usage: perContainer(gauge, "memory_usage_bytes",
			"Memory charged to the container in bytes, page cache included (memory.current or memory.usage_in_bytes)."),
		workingSet: perContainer(gauge, "memory_working_set_bytes",
			"Memory charged less inactive file pages, in bytes: what the kubelet calls the working set, read from the kernel."),
		limit: perContainer(gauge, "memory_limit_bytes",
			"Memory limit in bytes that the kernel enforces (memory.max or memory.limit_in_bytes). Absent without a limit."),
		reported: perContainer(gauge, "memory_reported_bytes",
			"Working set in bytes as the cluster is told: what kubectl top shows.", "source"),
		events: perContainer(counter, "memory_events_total",
			"Memory events of the container: throttled at memory.high (high), limit reached (max), out of memory (oom), killed for it (oom_kill); on cgroup v1 oom_kill and failcnt only. The scope is own (memory.events.local), or group (memory.events, what is below included) where that differs or own is not kept.", "event", "scope"),
		kills: perContainer(counter, "oom_kills_total",
			"Processes of the container that the OOM killer chose since the exporter attached, also in cgroups that it had before a restart (BPF, oom_kill_process or mark_victim). With memory.oom.group one choice may kill all."),
		faults: perContainer(counter, "memory_page_faults_total",
			"Page faults, all of them and those that waited for a disk (pgfault and pgmajfault of memory.stat).", "kind"),
		refaults: perContainer(counter, "memory_refaults_total",
			"Faults of pages that were evicted while in use (workingset_refault of memory.stat). Absent where the kernel does not count them by cgroup."),
		stall: perContainer(histogram, "memory_reclaim_stall_seconds",
			"How long each allocation of the container waited to reclaim memory itself, in seconds: memcg, at its own limit or an ancestor's; direct, because the node was short (BPF, mm_vmscan tracepoints). Exposed from the first one on.", "kind"),
	}
}

func (m *memory) Families() []*Family {
	return []*Family{m.usage, m.workingSet, m.limit, m.reported, m.events, m.kills, m.faults, m.refaults, m.stall}
}

func (m *memory) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		if s := g.Memory.Stat; s != nil {
			out.of(g, m.usage, float64(s.Usage))
			out.of(g, m.workingSet, float64(s.WorkingSet))
			if s.Limit > 0 {
				out.of(g, m.limit, float64(s.Limit))
			}
			out.of(g, m.faults, float64(s.Faults), "all")
			out.of(g, m.faults, float64(s.Major), "major")
			if s.HasRefaults {
				out.of(g, m.refaults, float64(s.Refaults))
			}
		}
		for _, u := range g.Reported {
			if u.MemoryBytes != nil {
				out.of(g, m.reported, *u.MemoryBytes, u.Source)
			}
		}
		if c := g.Memory.Counts; c != nil {
			m.countEvents(out, g, c)
		}
		if k := g.Memory.OOM; k != nil {
			out.of(g, m.kills, float64(k.Count))
		}
		if r := g.Memory.Reclaim; r != nil {
			if r.Memcg.Count() > 0 {
				out.durations(g, m.stall, &r.Memcg, "memcg")
			}
			if r.Direct.Count() > 0 {
				out.durations(g, m.stall, &r.Direct, "direct")
			}
		}
	}
}

func (m *memory) countEvents(out *Exposition, g *Subject, c *cgroup.MemoryCounts) {
	for event := range cgroup.MemoryEventKinds {
		own, group := c.Own.Count[event], c.Group.Count[event]
		if c.Own.Told[event] {
			out.of(g, m.events, float64(own), event.String(), "own")
		}
		if c.Group.Told[event] && (!c.Own.Told[event] || own != group) {
			out.of(g, m.events, float64(group), event.String(), "group")
		}
	}
}
