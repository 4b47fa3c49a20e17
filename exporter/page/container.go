package page

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

// fact is one figure, and where a person can check it. An empty Value is not measured.
type fact struct{ Name, Value, From string }

type section struct {
	Title, Note string
	Facts       []fact
	Bars        []bar
}

// bar is one bucket of a distribution.
type bar struct {
	Bound string // "≤ 4 ms"
	Count uint64
	Width float64 // 0 to 100
}

type containerView struct {
	common
	Found                     bool
	Namespace, Pod, Container string
	Verdict                   []string
	Chart                     chart
	Limit                     *float64
	Sections                  []section
	Missing                   []string // what is not measured of it, and why
	Check                     string   // a command that shows the kernel's own file
}

// container is the evidence on one container; false when it is not, or no longer, there.
func (p *Page) container(namespace, pod, name string) (containerView, bool) {
	snap := p.Snapshot()
	v := containerView{common: p.common(snap), Namespace: namespace, Pod: pod, Container: name}
	if snap == nil {
		return v, true
	}
	i := slices.IndexFunc(snap.Containers, func(c sampler.Container) bool {
		return c.Namespace == namespace && c.Pod == pod && c.Container == name
	})
	if i < 0 {
		return v, false
	}
	c := &snap.Containers[i]
	v.Found = true
	if limit, ok := c.Cores(); ok {
		v.Limit = &limit
	}
	v.Emulated = len(c.Reported) > 0 && c.Reported[0].Source == reported.SourceEmulation
	v.Chart = draw(p.trail.of(c.Group.ID), v.Limit)
	v.Verdict = verdict(c)
	sections := []section{told(c, snap.At), counted(c), parts(c), durations(c), runqueue(c), pressure(c), memory(c)}
	sections = append(sections, reclaim(c)...)
	sections = append(sections, network(c), security(c), syscalls(c, snap.SyscallNames), whatIf(c), identity(c))
	for _, s := range sections {
		if len(s.Facts) > 0 {
			v.Sections = append(v.Sections, s)
		}
	}
	v.Missing = missing(c)
	if p.CgroupMount != "" {
		v.Check = "cat " + quote(filepath.Join(p.CgroupMount, c.Group.Path, "cpu.stat"))
	}
	return v, true
}

// verdict sets the two views beside each other, in as many words as are measured.
func verdict(c *sampler.Container) []string {
	var out []string
	limit, limited := c.Cores()
	if limited && len(c.Reported) > 0 {
		out = append(out, fmt.Sprintf("Reported: %.0f %% of its limit.", 100*c.Reported[0].Cores/limit))
	}
	if ratio, ok := c.Throttling.Ratio(); ok {
		out = append(out, fmt.Sprintf("The kernel stopped it in %.0f %% of the periods in which it wanted to run.", 100*ratio))
	} else if limited {
		out = append(out, "It did not run in the trailing window, so no period of its quota elapsed.")
	}
	if !c.Group.Gone.IsZero() {
		out = append(out, "It is gone; these are its last figures.")
	}
	return out
}

func told(c *sampler.Container, now time.Time) section {
	s := section{Title: "What is told", Note: "the figure behind kubectl top"}
	for _, r := range c.Reported {
		s.Facts = append(s.Facts, fact{
			"reported", fmt.Sprintf("%.3f cores", r.Cores),
			fmt.Sprintf("%s, mean of %s that ended %s before this sample", r.Source, round(r.Window.Round(100*time.Millisecond)), round(now.Sub(r.At).Round(100*time.Millisecond))),
		})
	}
	return s
}

func counted(c *sampler.Container) section {
	s := section{Title: "What the kernel did"}
	add := func(name, value, from string) { s.Facts = append(s.Facts, fact{name, value, from}) }
	if limit, ok := c.Cores(); ok {
		add("limit", fmt.Sprintf("%.3f cores: %s in each %s", limit, round(c.Limit.Quota), round(c.Limit.Period)), "cpu.max, or cpu.cfs_quota_us and cpu.cfs_period_us")
		if c.Limit.Burst > 0 {
			add("burst", round(c.Limit.Burst), "cpu.max.burst, or cpu.cfs_burst_us")
		}
	}
	if t := c.Throttling; t != nil && t.Periods > 0 {
		over := "cpu.stat, growth over " + seconds(t.Window)
		add("throttled", fmt.Sprintf("%d of %d periods", t.Throttled, t.Periods), over+": nr_throttled, nr_periods")
		add("time throttled", round(t.ThrottledTime), over+", summed over CPUs")
	}
	if cpu := c.CPU; cpu != nil {
		if cpu.HasBandwidth {
			add("since it began", fmt.Sprintf("nr_periods %d, nr_throttled %d, throttled for %s", cpu.Periods, cpu.Throttled, round(cpu.ThrottledTime)), "cpu.stat")
		}
		if h := cpu.HierarchicalThrottledTime; h != nil {
			add("an ancestor's limits included", round(*h), "cpu.stat.local")
		}
		if cpu.HasUsage {
			add("CPU time used since it began", round(cpu.Usage), "cpu.stat usage_usec, or cpuacct.usage")
		}
	}
	return s
}

func parts(c *sampler.Container) section {
	s := section{Title: "The gap, taken apart", Note: "in cores, over the reported figure's own window where there is one"}
	g := c.Gap
	if g == nil {
		return s
	}
	add := func(name string, v *float64, from string) {
		if v != nil {
			// Adding 0 makes a 0 of the -0 that rounding may leave.
			s.Facts = append(s.Facts, fact{name, fmt.Sprintf("%.3f cores", math.Round(*v*1000)/1000+0), from})
		}
	}
	add("used", g.Used, "the kernel's mean")
	add("accounting", g.Accounting, "kernel minus reported; near 0 when the reporter is honest")
	add("averaging", g.Averaging, "busiest second minus mean")
	add("throttled", g.Throttled, "throttled CPU time per second, summed over CPUs")
	add("contended", g.Contended, "waited for a CPU although there was quota")
	add("wanted", g.Demand, "used, throttled and contended, at most the CPUs it may run on: an estimate")
	return s
}

func durations(c *sampler.Container) section {
	if h := c.Durations; h != nil {
		return distribution("How long each throttle lasted", "BPF, fentry and fexit of unthrottle_cfs_rq", h)
	}
	if h := c.Denied; h != nil {
		return distribution("CPU time denied in each throttled period", "BPF, sched_stat_runtime; summed over CPUs", h)
	}
	return section{}
}

func runqueue(c *sampler.Container) section {
	if c.Runqueue == nil {
		return section{}
	}
	return distribution("How long threads waited for a CPU", "BPF, sched_wakeup and sched_switch; the time throttled included", &c.Runqueue.Histogram)
}

// distribution draws the buckets between the first and the last that hold anything.
func distribution(title, from string, h *bpf.Histogram) section {
	s := section{Title: title, Note: from}
	n := h.Count()
	if n == 0 {
		s.Facts = []fact{{"none so far", "0", "measured, and did not happen"}}
		return s
	}
	s.Facts = []fact{
		{"events", fmt.Sprint(n), "since the exporter attached"},
		{"mean", round(h.Sum / time.Duration(n)), "exact"},
		{"half took at most", bound(quantile(h, 0.5)), "upper bound of its bucket"},
		{"99 % took at most", bound(quantile(h, 0.99)), "upper bound of its bucket"},
	}
	most := slices.Max(h.Buckets[:])
	first := slices.IndexFunc(h.Buckets[:], func(n uint64) bool { return n > 0 })
	last := len(h.Buckets) - 1
	for h.Buckets[last] == 0 {
		last--
	}
	for i := first; i <= last; i++ {
		s.Bars = append(s.Bars, bar{Bound: bound(i), Count: h.Buckets[i], Width: 100 * float64(h.Buckets[i]) / float64(most)})
	}
	return s
}

// quantile is the bucket that holds it.
func quantile(h *bpf.Histogram, q float64) int {
	rank := uint64(math.Ceil(q * float64(h.Count())))
	var n uint64
	for i, b := range h.Buckets {
		if n += b; n >= rank {
			return i
		}
	}
	return len(h.Buckets) - 1
}

func bound(bucket int) string {
	seconds := math.Ldexp(1, bucket+bpf.HistogramMinExp)
	return round(time.Duration(seconds * float64(time.Second)))
}

func syscalls(c *sampler.Container, names []string) section {
	s := section{Title: "System calls", Note: "BPF, sys_enter; since the exporter attached"}
	var order []int
	for i, n := range c.Syscalls {
		if n > 0 && i < len(names) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(c.Syscalls[b], c.Syscalls[a]) })
	for _, i := range order {
		s.Facts = append(s.Facts, fact{Name: names[i], Value: fmt.Sprint(c.Syscalls[i])})
	}
	return s
}

func whatIf(c *sampler.Container) section {
	w := c.WhatIf
	s := section{Title: "At another limit", Note: "an estimate from what was denied; see the package documentation of exporter/whatif"}
	if w == nil {
		return s
	}
	if w.Outcome != whatif.Predicted {
		s.Facts = []fact{{"no answer", string(w.Outcome), w.Reason}}
		return s
	}
	if w.Recommended > 0 {
		s.Facts = append(s.Facts, fact{"limit that would do", fmt.Sprintf("%.3f cores", w.Recommended), fmt.Sprintf("confidence %s, from %d periods", w.Confidence, w.Periods)})
	}
	for _, a := range w.At {
		if a.Outcome == whatif.Predicted {
			s.Facts = append(s.Facts, fact{fmt.Sprintf("at %.3f cores", a.Cores), fmt.Sprintf("%.0f %% of periods throttled", 100*a.Ratio), fmt.Sprintf("likely %.0f to %.0f %%", 100*a.Low, 100*a.High)})
		}
	}
	return s
}

func identity(c *sampler.Container) section {
	s := section{Title: "Which cgroup"}
	for _, f := range []fact{
		{"cgroup", c.Group.Path, "below the cpu controller's root"},
		{"container ID", c.Group.ContainerID, ""}, {"pod UID", c.PodUID, ""}, {"QoS class", string(c.Group.QoS), ""},
	} {
		if f.Value != "" {
			s.Facts = append(s.Facts, f)
		}
	}
	if c.CPUs > 0 {
		s.Facts = append(s.Facts, fact{"CPUs that it may run on", fmt.Sprint(c.CPUs), "cpuset"})
	}
	return s
}

// missing names what this container's figures lack; what a probe lacks is told for
// all containers.
func missing(c *sampler.Container) []string {
	var out []string
	switch _, limited := c.Cores(); {
	case c.Limit == nil:
		out = append(out, "its CPU limit: cpu.max could not be read; the log says why")
	case !limited:
		out = append(out, "throttling: it has no CPU limit of its own, so the kernel has nothing to throttle it by")
	}
	switch {
	case c.CPU == nil:
		out = append(out, "CPU use and throttling: cpu.stat could not be read; the log says why")
	case !c.CPU.HasUsage:
		out = append(out, "CPU use: on cgroup v1 it has no counterpart in the cpuacct hierarchy")
	case !c.CPU.HasBandwidth:
		out = append(out, "throttling: the cpu controller is not enabled for it")
	}
	if len(c.Reported) == 0 {
		out = append(out, "what is reported: nothing yet; a reported figure is the mean of some 15 s")
	}
	if c.Memory.Stat == nil {
		out = append(out, "memory: its memory controller's files are not there or not read (--no-collector.memory)")
	}
	if c.Network == nil {
		out = append(out, "network: its probe is not attached, or off (--no-collector.network); the log says why")
	}
	if c.Security == nil && c.Group.Kind != cgroup.KindService {
		out = append(out, "security: its probe is not attached, or off (--no-collector.security); the log says why")
	}
	if len(pressure(c).Facts) == 0 {
		out = append(out, "pressure: cgroup v1 keeps none by cgroup; on v2 it takes CONFIG_PSI")
	}
	if c.CPU != nil && c.CPU.HierarchicalThrottledTime == nil {
		out = append(out, "throttling by an ancestor's limit: this kernel or hierarchy has no cpu.stat.local")
	}
	return out
}

// round keeps two decimals of a duration's largest unit; from minutes on it tells two units.
func round(d time.Duration) string {
	switch d = d.Round(10 * time.Nanosecond); {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	for _, unit := range []struct {
		time.Duration
		name string
	}{{time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "µs"}} {
		if d >= unit.Duration {
			figure := strconv.FormatFloat(float64(d)/float64(unit.Duration), 'f', 2, 64)
			return strings.TrimSuffix(strings.TrimRight(figure, "0"), ".") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d ns", d)
}

// quote makes a path one word of a POSIX shell.
func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }
