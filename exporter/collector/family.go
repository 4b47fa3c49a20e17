package collector

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

const prefix = "kernel_gossip_"

type kind int

const (
	counter kind = iota
	gauge
	histogram
)

func (k kind) String() string {
	return [...]string{"counter", "gauge", "histogram"}[k]
}

// Family is a metric with all its series.
type Family struct {
	name, help string
	kind       kind
	labels     []string
	desc       *prometheus.Desc
	places     []int       // of labels, sorted by name
	kept       *labelPairs // shared by the families of a Set
}

func newFamily(k kind, name, help string, labels ...string) *Family {
	f := &Family{name: prefix + name, help: help, kind: k, labels: labels, places: sorted(labels), kept: newLabelPairs()}
	f.desc = prometheus.NewDesc(f.name, help, labels, nil)
	return f
}

// perContainer is a family whose series carry a container's names.
func perContainer(k kind, name, help string, labels ...string) *Family {
	return newFamily(k, name, help, append([]string{"namespace", "pod", "container"}, labels...)...)
}

func (f *Family) value(v float64, labels ...string) (prometheus.Metric, error) {
	var k labelValues
	return f.one(v, &k, copy(k[:], labels), len(labels))
}

func (f *Family) of(c *sampler.Container, v float64, labels ...string) (prometheus.Metric, error) {
	k := labelValues{c.Namespace, c.Pod, c.Container}
	return f.one(v, &k, 3+copy(k[3:], labels), 3+len(labels))
}

func (f *Family) one(v float64, values *labelValues, fit, given int) (prometheus.Metric, error) {
	if fit != given || given != len(f.labels) {
		return nil, fmt.Errorf("%s has %d labels, %d were given", f.name, len(f.labels), given)
	}
	pairs, err := f.kept.of(f.labels, f.places, values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return &single{desc: f.desc, kind: f.kind, v: v, pairs: pairs}, nil
}

// durations makes a histogram of schema 0: the bounds are powers of two of a
// second, as the kernel's side keeps them. Everything up to its smallest bound is
// in the zero bucket.
func (f *Family) durations(c *sampler.Container, h *bpf.Histogram, since time.Time, classic bool, labels ...string) (prometheus.Metric, error) {
	return f.histogramOf(h, since, classic, append([]string{c.Namespace, c.Pod, c.Container}, labels...)...)
}

func (f *Family) histogramOf(h *bpf.Histogram, since time.Time, classic bool, names ...string) (prometheus.Metric, error) {
	if classic {
		return prometheus.NewConstHistogram(f.desc, h.Count(), h.Sum.Seconds(), classicBuckets(h), names...)
	}
	buckets := map[int]int64{}
	for i, n := range h.Buckets[1:] {
		if n > 0 {
			buckets[bpf.HistogramMinExp+1+i] = int64(n)
		}
	}
	m, err := prometheus.NewConstNativeHistogram(f.desc, h.Count(), h.Sum.Seconds(), buckets, nil,
		h.Buckets[0], 0, math.Ldexp(1, bpf.HistogramMinExp), since, names...)
	if err != nil {
		return nil, fmt.Errorf("native histogram %s of %q: %w", f.name, names, err)
	}
	return m, nil
}

// classicBuckets are cumulative counts at every second power of two from 15 µs to
// 16 s: one bound a factor of four.
func classicBuckets(h *bpf.Histogram) map[float64]uint64 {
	const first, last = -16, 4
	out := map[float64]uint64{}
	var n uint64
	for i, count := range h.Buckets {
		n += count
		if exp := i + bpf.HistogramMinExp; exp >= first && exp <= last && (exp-first)%2 == 0 {
			out[math.Ldexp(1, exp)] = n
		}
	}
	return out
}
