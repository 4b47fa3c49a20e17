package page

import (
	"fmt"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

func memory(c *sampler.Container) section {
	s := section{Title: "Memory"}
	add := func(name, value, from string) { s.Facts = append(s.Facts, fact{name, value, from}) }
	for _, r := range c.Reported {
		if r.MemoryBytes != nil {
			add("reported", bytesOf(*r.MemoryBytes), r.Source+", working set")
		}
	}
	if m := c.Memory.Stat; m != nil {
		add("working set", bytesOf(float64(m.WorkingSet)), "usage less inactive_file of memory.stat")
		add("usage", bytesOf(float64(m.Usage)), "memory.current, or memory.usage_in_bytes; page cache included")
		if m.Limit > 0 {
			add("limit", bytesOf(float64(m.Limit)), "memory.max, or memory.limit_in_bytes")
		}
		add("page faults that waited for a disk", fmt.Sprint(m.Major), "pgmajfault of memory.stat")
		if m.HasRefaults {
			add("pages evicted while in use", fmt.Sprint(m.Refaults), "workingset_refault of memory.stat")
		}
	}
	if counts := c.Memory.Counts; counts != nil {
		events, from := counts.Own, "memory.events.local"
		if events.Told == [cgroup.MemoryEventKinds]bool{} {
			events, from = counts.Group, "memory.events, or memory.oom_control and memory.failcnt"
		}
		for event := range cgroup.MemoryEventKinds {
			if events.Told[event] {
				add("event "+event.String(), fmt.Sprint(events.Count[event]), from)
			}
		}
	}
	if k := c.Memory.OOM; k != nil {
		add("processes chosen by the OOM killer", fmt.Sprint(k.Count), "BPF, since the exporter attached")
	}
	return s
}

// reclaim is how long allocations waited to reclaim memory: at a limit, and because
// the node was short.
func reclaim(c *sampler.Container) []section {
	r := c.Memory.Reclaim
	if r == nil {
		return nil
	}
	return []section{
		distribution("How long allocations waited at the memory limit", "BPF, mm_vmscan_memcg_reclaim; its own limit or an ancestor's", &r.Memcg),
		distribution("How long allocations waited because the node was short", "BPF, mm_vmscan_direct_reclaim", &r.Direct),
	}
}

func pressure(c *sampler.Container) section {
	s := section{Title: "Pressure", Note: "time in which some, or all, of its tasks waited (PSI), since it began"}
	p := c.Memory.Pressure
	if p == nil {
		return s
	}
	for _, r := range []struct {
		name string
		cgroup.Stall
	}{{"cpu", p.CPU}, {"memory", p.Memory}, {"io", p.IO}} {
		if r.HasSome {
			s.Facts = append(s.Facts, fact{r.name + ", some", round(r.Some), r.name + ".pressure"})
		}
		if r.HasFull {
			s.Facts = append(s.Facts, fact{r.name + ", all", round(r.Full), r.name + ".pressure"})
		}
	}
	return s
}

// bytesOf is in the binary units that limits are written in.
func bytesOf(b float64) string {
	unit := "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if b < 1024 {
			break
		}
		b, unit = b/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%.0f B", b)
	}
	return fmt.Sprintf("%.1f %s", b, unit)
}
