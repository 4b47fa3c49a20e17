package reported

import (
	"io"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The metrics of /metrics/resource that are read (pkg/kubelet/metrics/collectors/resource_metrics.go).
const (
	metricCPU    = "container_cpu_usage_seconds_total"
	metricStart  = "container_start_time_seconds"
	metricMemory = "container_memory_working_set_bytes"
)

// parseResource reads the kubelet's text format. A point without a time stamp of
// its own gets asked's. Points that can't be true are left out and counted in bad.
func parseResource(r io.Reader, asked time.Time) (points map[target]sample, bad int, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, 0, err
	}
	points = map[target]sample{}
	for _, m := range families[metricCPU].GetMetric() {
		t, ok := targetOf(m)
		v := value(m)
		at := asked
		if m.TimestampMs != nil {
			at = time.UnixMilli(m.GetTimestampMs())
		}
		if _, dup := points[t]; dup || !ok || !plausible(v) || !plausible(seconds(at)) {
			bad++
			continue
		}
		points[t] = sample{at: at, cpu: v}
	}
	for _, m := range families[metricMemory].GetMetric() {
		t, ok := targetOf(m)
		p, known := points[t]
		v := value(m)
		if !ok || !(v >= 0 && v <= maxBytes) || known && p.memory != nil {
			bad++
			continue
		}
		if known {
			p.memory = &v
			points[t] = p
		}
	}
	for _, m := range families[metricStart].GetMetric() {
		t, ok := targetOf(m)
		p, known := points[t]
		v := value(m)
		if !ok || !plausible(v) {
			bad++
			continue
		}
		if known && v > 0 {
			whole, frac := math.Modf(v)
			p.start = time.Unix(int64(whole), int64(frac*1e9))
			points[t] = p
		}
	}
	return points, bad, nil
}

// maxBytes is more memory than any machine has.
const maxBytes = 1 << 60

// plausible bounds seconds, of CPU time and since 1970 alike, by what a
// time.Duration of nanoseconds can hold (292 years).
func plausible(v float64) bool { return v >= 0 && v <= math.MaxInt64/1e9 }

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Untyped != nil:
		return m.Untyped.GetValue()
	default:
		return math.NaN()
	}
}

func targetOf(m *dto.Metric) (target, bool) {
	var t target
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "namespace":
			t.namespace = l.GetValue()
		case "pod":
			t.pod = l.GetValue()
		case "container":
			t.container = l.GetValue()
		}
	}
	return t, t.namespace != "" && t.pod != "" && t.container != ""
}
