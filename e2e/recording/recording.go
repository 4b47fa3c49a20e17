// Package recording keeps what was scraped as a load command of Prometheus's test
// scripts: a text that people read and that promqltest fills a TSDB from.
package recording

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Recording is series over scrapes at equal intervals. The zero value is empty.
type Recording struct {
	points  map[string][]string // by series; shorter than scrapes where the series has ended
	scrapes int
}

// Target labels are what Prometheus adds to each series of a target.
type Target struct{ Job, Instance string }

// Scrape is what one target answered.
type Scrape struct {
	Target   Target
	Families []*dto.MetricFamily
}

// Add appends what all targets answered at one time. A series for which keep is
// false is left out. A target that answered nothing has no scrape.
func (r *Recording) Add(scrapes []Scrape, keep func(name string, labels map[string]string) bool) error {
	if r.points == nil {
		r.points = map[string][]string{}
	}
	for _, s := range scrapes {
		put := func(name string, labels map[string]string, point string) {
			if !keep(name, labels) {
				return
			}
			key := series(name, labels, s.Target)
			for len(r.points[key]) < r.scrapes {
				r.points[key] = append(r.points[key], "_")
			}
			r.points[key] = append(r.points[key], point)
		}
		put("up", nil, "1")
		for _, f := range s.Families {
			for _, m := range f.GetMetric() {
				if err := metric(f, m, put); err != nil {
					return fmt.Errorf("recording %s of %s: %w", f.GetName(), s.Target.Job, err)
				}
			}
		}
	}
	r.scrapes++
	return nil
}

func metric(f *dto.MetricFamily, m *dto.Metric, put func(string, map[string]string, string)) error {
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	name := f.GetName()
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		put(name, labels, number(m.GetCounter().GetValue()))
	case dto.MetricType_GAUGE:
		put(name, labels, number(m.GetGauge().GetValue()))
	case dto.MetricType_UNTYPED:
		put(name, labels, number(m.GetUntyped().GetValue()))
	case dto.MetricType_SUMMARY:
		put(name+"_sum", labels, number(m.GetSummary().GetSampleSum()))
		put(name+"_count", labels, number(float64(m.GetSummary().GetSampleCount())))
	case dto.MetricType_HISTOGRAM:
		h := m.GetHistogram()
		// As Prometheus does: the native histogram where there is one, else the buckets.
		if h.Schema != nil {
			point, err := native(h)
			if err != nil {
				return err
			}
			put(name, labels, point)
			return nil
		}
		put(name+"_sum", labels, number(h.GetSampleSum()))
		put(name+"_count", labels, number(float64(h.GetSampleCount())))
		infinite := false
		for _, b := range h.GetBucket() {
			infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
			put(name+"_bucket", with(labels, "le", number(b.GetUpperBound())), number(float64(b.GetCumulativeCount())))
		}
		if !infinite {
			put(name+"_bucket", with(labels, "le", "+Inf"), number(float64(h.GetSampleCount())))
		}
	default:
		return fmt.Errorf("metrics of type %s are not recorded", f.GetType())
	}
	return nil
}

// native writes an integer histogram without negative observations.
func native(h *dto.Histogram) (string, error) {
	if len(h.GetNegativeSpan()) > 0 || h.SampleCountFloat != nil {
		return "", fmt.Errorf("only integer histograms without negative buckets are recorded")
	}
	var buckets []string
	var offset, count int64
	deltas := h.GetPositiveDelta()
	for i, span := range h.GetPositiveSpan() {
		if i == 0 {
			offset = int64(span.GetOffset())
		} else {
			for range span.GetOffset() {
				buckets = append(buckets, "0")
			}
		}
		for range span.GetLength() {
			if len(deltas) == 0 {
				return "", fmt.Errorf("spans name more buckets than there are")
			}
			count, deltas = count+deltas[0], deltas[1:]
			buckets = append(buckets, strconv.FormatInt(count, 10))
		}
	}
	if len(buckets) == 0 {
		return fmt.Sprintf("{{schema:%d sum:%s count:%d z_bucket:%d z_bucket_w:%s}}",
			h.GetSchema(), number(h.GetSampleSum()), h.GetSampleCount(), h.GetZeroCount(), number(h.GetZeroThreshold())), nil
	}
	return fmt.Sprintf("{{schema:%d sum:%s count:%d z_bucket:%d z_bucket_w:%s offset:%d buckets:[%s]}}",
		h.GetSchema(), number(h.GetSampleSum()), h.GetSampleCount(), h.GetZeroCount(), number(h.GetZeroThreshold()),
		offset, strings.Join(buckets, " ")), nil
}

func with(labels map[string]string, name, value string) map[string]string {
	out := maps.Clone(labels)
	out[name] = value
	return out
}

// number has nine significant digits, and no exponent, whose sign the scripts would
// read as a step.
func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 9, 64), 64)
	if err != nil {
		rounded = v
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// series is the series in PromQL's notation. An empty label is no label.
func series(name string, labels map[string]string, t Target) string {
	all := map[string]string{"job": t.Job, "instance": t.Instance}
	maps.Copy(all, labels)
	var pairs []string
	for _, l := range slices.Sorted(maps.Keys(all)) {
		if all[l] != "" {
			pairs = append(pairs, l+"="+strconv.Quote(all[l]))
		}
	}
	return name + "{" + strings.Join(pairs, ",") + "}"
}

// Write writes the recording with its comment, a line a series in order.
func (r *Recording) Write(w io.Writer, comment string, interval time.Duration) error {
	b := bufio.NewWriter(w)
	for line := range strings.Lines(comment) {
		fmt.Fprintf(b, "# %s\n", strings.TrimSpace(line))
	}
	fmt.Fprintf(b, "load %s\n", interval)
	for _, name := range slices.Sorted(maps.Keys(r.points)) {
		fmt.Fprintf(b, "  %s %s\n", name, strings.Join(fold(r.points[name]), " "))
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("writing the recording: %w", err)
	}
	return nil
}

// fold writes a repeated point once: 5x3 is 5 and three more.
func fold(points []string) []string {
	var out []string
	for i := 0; i < len(points); {
		n := i
		for n+1 < len(points) && points[n+1] == points[i] {
			n++
		}
		if times := n - i; times > 0 {
			if points[i] == "_" {
				times++ // a gap's number is how many there are
			}
			out = append(out, fmt.Sprintf("%sx%d", points[i], times))
		} else {
			out = append(out, points[i])
		}
		i = n + 1
	}
	return out
}
