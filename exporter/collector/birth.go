package collector

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type birth struct {
	classic                                       bool
	births, refused, inFlight, duration, syscalls *Family
}

func newBirth(o Options) Collector {
	return &birth{
		classic: o.ClassicHistograms,
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

func (b *birth) Update(snap *sampler.Snapshot, send func(prometheus.Metric, error)) error {
	n := snap.Births
	if n == nil {
		return nil
	}
	send(b.births.value(float64(n.Complete), "complete"))
	send(b.births.value(float64(n.Incomplete), "incomplete"))
	send(b.births.value(float64(n.Failed), "failed"))
	send(b.refused.value(float64(n.Refused)))
	send(b.inFlight.value(float64(n.InFlight)))
	for stage, h := range n.Durations {
		send(b.duration.histogramOf(&h, snap.Since, b.classic, stage))
	}
	send(b.syscalls.counts(&n.Syscalls, snap.Since, b.classic, "total"))
	send(b.syscalls.counts(&n.Setup, snap.Since, b.classic, "setup"))
	return nil
}

// counts makes a histogram of numbers, whose bounds are powers of two.
func (f *Family) counts(c *sampler.Counts, since time.Time, classic bool, labels ...string) (prometheus.Metric, error) {
	if classic {
		buckets := map[float64]uint64{}
		var n uint64
		for i, count := range c.Buckets {
			n += count
			const first, last = 9, 19 // 512 to 524,288
			if i >= first && i <= last {
				buckets[math.Ldexp(1, i)] = n
			}
		}
		return prometheus.NewConstHistogram(f.desc, c.N, float64(c.Sum), buckets, labels...)
	}
	buckets := map[int]int64{}
	for i, n := range c.Buckets {
		if n > 0 {
			buckets[i] = int64(n)
		}
	}
	m, err := prometheus.NewConstNativeHistogram(f.desc, c.N, float64(c.Sum), buckets, nil, 0, 0, 0, since, labels...)
	if err != nil {
		return nil, fmt.Errorf("native histogram %s of %q: %w", f.name, labels, err)
	}
	return m, nil
}
