package collector

import "github.com/kernel-gossip/kernel-gossip/exporter/sampler"

type birth struct {
	births, refused, inFlight, duration, syscalls *Family
}

func newBirth() Collector {
	return &birth{
		births: newFamily(counter, "pod_births_total",
			"Births of pods, or off-cluster of containers, that were followed to their end (BPF): complete; incomplete, some of it was not seen or is not listed; failed, a container never reached its entrypoint.", "result"),
		refused: newFamily(counter, "pod_births_refused_total",
			"Births that were not followed because too many were in flight."),
		inFlight: newFamily(gauge, "pod_births_in_flight",
			"Births that are being followed."),
		duration: newFamily(histogram, "pod_birth_duration_seconds",
			"How long births took, in seconds (BPF). prepare: from the pod's cgroup to the first process of the runtime or of CNI; network: CNI; sandbox and container: from the runtime's create to the entrypoint; total: from the first event to the last entrypoint. Failed births have no total.", "stage"),
		syscalls: newFamily(histogram, "pod_birth_syscalls",
			"System calls of a birth's own processes (BPF). total: all; setup: without what a process does for itself, such as threads, signals, memory and waiting.", "kind"),
	}
}

func (b *birth) Families() []*Family {
	return []*Family{b.births, b.refused, b.inFlight, b.duration, b.syscalls}
}

func (b *birth) Update(out *Exposition) {
	n := out.Snapshot.Births
	if n == nil {
		return
	}
	out.node(b.births, float64(n.Complete), "complete")
	out.node(b.births, float64(n.Incomplete), "incomplete")
	out.node(b.births, float64(n.Failed), "failed")
	out.node(b.refused, float64(n.Refused))
	out.node(b.inFlight, float64(n.InFlight))
	for stage, h := range n.Durations {
		out.durations(nil, b.duration, &h, stage)
	}
	out.numbers(b.syscalls, &n.Syscalls, "total")
	out.numbers(b.syscalls, &n.Setup, "setup")
}

// numbers adds a histogram of numbers, of no container.
func (e *Exposition) numbers(f *Family, c *sampler.Counts, labels ...string) {
	e.histogram(nil, f, distribution{sum: float64(c.Sum), counts: c.Buckets[:], from: 9, to: 19, step: 1}, labels) // 512 to 524,288
}
