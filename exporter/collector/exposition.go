package collector

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// Exposition is the answer to one scrape in the making: the messages that the client
// library encodes, without a Metric and a channel between. Series are made many at a
// time and labels once for all series that have them. What a Registry would check of
// each holds by construction: a Snapshot has each container's names once and in order,
// a Family gives all its series the same labels, and values are tried for UTF-8.
type Exposition struct {
	Snapshot   *sampler.Snapshot
	Containers []Subject

	families []*dto.MetricFamily // by Family.number, nil without a series
	words    map[word]*dto.LabelPair
	since    *timestamppb.Timestamp
	classic  bool
	errs     []error

	metrics  slab[dto.Metric]
	counters slab[dto.Counter]
	gauges   slab[dto.Gauge]
	buckets  slab[dto.Bucket]
	floats   slab[float64]
	counts   slab[uint64]
	pairs    slab[*dto.LabelPair]
}

// Subject is a container with its names as labels.
type Subject struct {
	*sampler.Container
	names [3]*dto.LabelPair
	err   error // why it can have no series
}

type word struct{ name, value string }

func newExposition(snap *sampler.Snapshot, families int, classic bool) *Exposition {
	e := &Exposition{
		Snapshot: snap, Containers: make([]Subject, len(snap.Containers)),
		families: make([]*dto.MetricFamily, families), words: map[word]*dto.LabelPair{}, since: timestamppb.New(snap.Since), classic: classic,
	}
	labels := containerLabels()
	for i := range snap.Containers {
		c := &snap.Containers[i]
		s := Subject{Container: c}
		for at, value := range [...]string{c.Namespace, c.Pod, c.Container} {
			if s.names[at], s.err = newPair(labels[at], value); s.err != nil {
				break
			}
		}
		e.Containers[i] = s
	}
	return e
}

// of adds a series of a container. Gauges tell of now, and what is gone has none: of it
// only what it counted is left, for the next scrapes.
func (e *Exposition) of(g *Subject, f *Family, v float64, labels ...string) {
	if f.kind == gauge && g != nil && !g.Group.Gone.IsZero() {
		return
	}
	if m := e.series(g, f, labels); m != nil {
		e.set(m, f, v)
	}
}

// node adds a series of no container.
func (e *Exposition) node(f *Family, v float64, labels ...string) {
	e.of(nil, f, v, labels...)
}

func (e *Exposition) set(m *dto.Metric, f *Family, v float64) {
	value := e.floats.one()
	*value = v
	if f.kind == counter {
		m.Counter = e.counters.one()
		m.Counter.Value = value
	} else {
		m.Gauge = e.gauges.one()
		m.Gauge.Value = value
	}
}

// series is a new one without a value; nil, and an error noted, where its labels can't be.
func (e *Exposition) series(g *Subject, f *Family, labels []string) *dto.Metric {
	named := 0
	if g != nil {
		if named = len(g.names); g.err != nil {
			e.fail(f, g.err)
			return nil
		}
	}
	if named+len(labels) != len(f.labels) {
		e.fail(f, fmt.Errorf("%d labels, %d were given", len(f.labels), named+len(labels)))
		return nil
	}
	pairs := e.pairs.take(len(f.labels))
	for i, at := range f.places {
		if at < named {
			pairs[i] = g.names[at]
			continue
		}
		w := word{f.labels[at], labels[at-named]}
		if pairs[i] = e.words[w]; pairs[i] != nil {
			continue
		}
		var err error
		if pairs[i], err = newPair(w.name, w.value); err != nil {
			e.fail(f, err)
			return nil
		}
		e.words[w] = pairs[i]
	}
	m := e.metrics.one()
	m.Label = pairs
	family := e.families[f.number]
	if family == nil {
		family = f.message()
		if g != nil {
			family.Metric = make([]*dto.Metric, 0, len(e.Containers))
		}
		e.families[f.number] = family
	}
	family.Metric = append(family.Metric, m)
	return m
}

// fail notes an error, which costs one series and its collector's success.
func (e *Exposition) fail(f *Family, err error) {
	e.errs = append(e.errs, fmt.Errorf("%s: %w", f.name, err))
}

func newPair(name, value string) (*dto.LabelPair, error) {
	if !utf8.ValidString(value) {
		return nil, fmt.Errorf("label %s: %q is not UTF-8", name, value)
	}
	return &dto.LabelPair{Name: &name, Value: &value}, nil
}

// durations adds a histogram of durations in seconds, of a container unless g is nil.
func (e *Exposition) durations(g *Subject, f *Family, h *bpf.Histogram, labels ...string) {
	e.histogram(g, f, distribution{
		sum: h.Sum.Seconds(), first: bpf.HistogramMinExp, counts: h.Buckets[:], from: -16, to: 4, step: 2, // 15 µs to 16 s
	}, labels)
}

// distribution is a histogram whose bounds are powers of two: counts[i] is of what is at
// most 2^(first+i), and is not counted before.
type distribution struct {
	sum            float64
	first          int
	counts         []uint64
	from, to, step int // the powers of two that are a classic histogram's bounds
}

func (e *Exposition) histogram(g *Subject, f *Family, d distribution, labels []string) {
	m := e.series(g, f, labels)
	switch {
	case m == nil:
	case e.classic:
		m.Histogram = e.classicHistogram(d)
	default:
		m.Histogram = e.nativeHistogram(d)
	}
}

// nativeHistogram is of schema 0, with the smallest in the zero bucket.
func (e *Exposition) nativeHistogram(d distribution) *dto.Histogram {
	h := &struct {
		dto.Histogram
		span          dto.BucketSpan
		spans         [1]*dto.BucketSpan
		sum           float64
		count, zero   uint64
		threshold     float64
		schema, begin int32
		length        uint32
	}{sum: d.sum, count: d.counts[0], zero: d.counts[0], threshold: math.Ldexp(1, d.first)}
	first, counts := d.first+1, d.counts[1:]
	for len(counts) > 0 && counts[0] == 0 {
		first, counts = first+1, counts[1:]
	}
	for len(counts) > 0 && counts[len(counts)-1] == 0 {
		counts = counts[:len(counts)-1]
	}
	if len(counts) > 0 {
		h.begin, h.length = int32(first), uint32(len(counts)) //nolint:gosec // a few dozen
		h.PositiveDelta = make([]int64, len(counts))
	}
	var before uint64
	for i, n := range counts {
		h.PositiveDelta[i] = int64(n - before) //nolint:gosec // wraps to what is below 0
		before, h.count = n, h.count+n
	}
	h.SampleSum, h.SampleCount, h.ZeroCount, h.ZeroThreshold = &h.sum, &h.count, &h.zero, &h.threshold
	h.Schema, h.CreatedTimestamp = &h.schema, e.since
	h.span.Offset, h.span.Length, h.spans[0] = &h.begin, &h.length, &h.span
	h.PositiveSpan = h.spans[:]
	return &h.Histogram
}

func (e *Exposition) classicHistogram(d distribution) *dto.Histogram {
	h := &dto.Histogram{SampleSum: e.floats.one(), SampleCount: e.counts.one(), Bucket: make([]*dto.Bucket, 0, (d.to-d.from)/d.step+1)}
	*h.SampleSum = d.sum
	for i, n := range d.counts {
		*h.SampleCount += n
		if exp := d.first + i; exp >= d.from && exp <= d.to && (exp-d.from)%d.step == 0 {
			b := e.buckets.one()
			b.UpperBound, b.CumulativeCount = e.floats.one(), e.counts.one()
			*b.UpperBound, *b.CumulativeCount = math.Ldexp(1, exp), *h.SampleCount
			h.Bucket = append(h.Bucket, b)
		}
	}
	return h
}

// sorted is all of it by name.
func (e *Exposition) sorted() []*dto.MetricFamily {
	all := slices.DeleteFunc(e.families, func(f *dto.MetricFamily) bool { return f == nil })
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

// slab hands out what was made many at a time.
type slab[T any] struct{ left []T }

const slabSize = 256

func (s *slab[T]) take(n int) []T {
	if len(s.left) < n {
		s.left = make([]T, max(n, slabSize))
	}
	taken := s.left[:n:n]
	s.left = s.left[n:]
	return taken
}

func (s *slab[T]) one() *T { return &s.take(1)[0] }
