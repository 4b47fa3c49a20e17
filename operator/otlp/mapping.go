package otlp

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// prefix is of the names of metrics and spans that are for us.
const prefix = "kernel_gossip."

// MaxRows is how many signals one request may hold.
const MaxRows = 5000

// subject is whom a number is about, as the sender spells it; signal.Validate judges it.
type subject struct {
	namespace, pod, container, uid, node string
}

// row is the numbers of one subject and time, or one event.
type row struct {
	kind    signal.Type
	subject subject
	nanos   uint64
	event   string // a span's; empty for numbers
	values  map[string]float64
	// points is how many data points or spans it is made of.
	points int
}

// rows collects the rows of one request, in the order in which they came.
type rows struct {
	all      []*row
	known    map[rowKey]*row
	repeated int // numbers that were there already
	rejected int
	faults   []string // the first few
}

type rowKey struct {
	kind    signal.Type
	subject subject
	nanos   uint64
	event   string
}

func (r *rows) reject(points int, format string, args ...any) {
	const most = 3
	r.rejected += points
	if fault := fmt.Sprintf(format, args...); len(r.faults) < most && !slices.Contains(r.faults, fault) {
		r.faults = append(r.faults, fault)
	}
}

// get returns the row of a key, or nil when there are too many.
func (r *rows) get(k rowKey) *row {
	if found := r.known[k]; found != nil {
		return found
	}
	if len(r.all) == MaxRows {
		return nil
	}
	if r.known == nil {
		r.known = map[rowKey]*row{}
	}
	made := &row{kind: k.kind, subject: k.subject, nanos: k.nanos, event: k.event, values: map[string]float64{}}
	r.known[k] = made
	r.all = append(r.all, made)
	return made
}

// readMetrics takes the gauges and delta sums that are for us.
func readMetrics(resources []*metricspb.ResourceMetrics) *rows {
	r := &rows{}
	for _, resource := range resources {
		of := subject{}.with(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				r.metric(of, metric)
			}
		}
	}
	return r
}

func (r *rows) metric(of subject, metric *metricspb.Metric) {
	n := size(metric)
	kind, value, ok := split(metric.GetName())
	if !ok {
		r.reject(n, "metric %s: want %s<signal type>.<value>", quote(metric.GetName()), prefix)
		return
	}
	var points []*metricspb.NumberDataPoint
	switch data := metric.GetData().(type) {
	case *metricspb.Metric_Gauge:
		points = data.Gauge.GetDataPoints()
	case *metricspb.Metric_Sum:
		if data.Sum.GetAggregationTemporality() != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA {
			r.reject(n, "metric %s: a cumulative sum is of a lifetime; want a gauge or a delta sum of a window", quote(metric.GetName()))
			return
		}
		points = data.Sum.GetDataPoints()
	default:
		r.reject(n, "metric %s: want a gauge or a delta sum", quote(metric.GetName()))
		return
	}
	for _, p := range points {
		r.point(of, kind, value, p)
	}
}

func (r *rows) point(of subject, kind signal.Type, name string, p *metricspb.NumberDataPoint) {
	if p.GetFlags()&uint32(metricspb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) != 0 {
		return // absent is absent
	}
	var v float64
	switch number := p.GetValue().(type) {
	case *metricspb.NumberDataPoint_AsDouble:
		v = number.AsDouble
	case *metricspb.NumberDataPoint_AsInt:
		v = float64(number.AsInt)
	default:
		r.reject(1, "%s.%s: a data point has no value", kind, name)
		return
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		r.reject(1, "%s.%s: is not a finite number", kind, name)
		return
	}
	to := r.get(rowKey{kind: kind, subject: of.with(p.GetAttributes()), nanos: p.GetTimeUnixNano()})
	if to == nil {
		r.reject(1, "more than %d rows in one request", MaxRows)
		return
	}
	if _, known := to.values[name]; known {
		r.repeated++
		return
	}
	if len(to.values) == signal.MaxValues {
		r.reject(1, "%s: more than %d values in one row", kind, signal.MaxValues)
		return
	}
	to.values[name] = v
	to.points++
}

// readSpans takes the spans that are for us, each an event. Attributes that are
// numbers are its evidence: Pixie sends all of them as strings.
func readSpans(resources []*tracepb.ResourceSpans) *rows {
	r := &rows{}
	for _, resource := range resources {
		of := subject{}.with(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				r.span(of, span)
			}
		}
	}
	return r
}

func (r *rows) span(of subject, span *tracepb.Span) {
	kind, event, ok := split(span.GetName())
	if !ok {
		r.reject(1, "span %s: want %s<signal type>.<event>", quote(span.GetName()), prefix)
		return
	}
	to := r.get(rowKey{kind: kind, subject: of.with(span.GetAttributes()), nanos: span.GetEndTimeUnixNano(), event: event})
	switch {
	case to == nil:
		r.reject(1, "more than %d rows in one request", MaxRows)
		return
	case to.points > 0:
		r.repeated++
		return
	}
	to.points = 1
	to.values[event] = 1
	for _, a := range span.GetAttributes() {
		if v, isNumber := number(a.GetValue()); isNumber && signal.IsIdentifier(a.GetKey()) && len(to.values) < signal.MaxValues {
			to.values[a.GetKey()] = v
		}
	}
}

// split takes a name apart: kernel_gossip.<signal type>.<value>.
func split(name string) (kind signal.Type, value string, ok bool) {
	rest, ours := strings.CutPrefix(name, prefix)
	head, value, dotted := strings.Cut(rest, ".")
	return signal.Type(head), value, ours && dotted && signal.IsIdentifier(head) && signal.IsIdentifier(value)
}

// with returns the subject with what the attributes say of it; they are nearer
// to the number than what was said before.
func (s subject) with(attributes []*commonpb.KeyValue) subject {
	pod, said := "", ""
	for _, a := range attributes {
		text := a.GetValue().GetStringValue()
		switch a.GetKey() {
		case "k8s.namespace.name":
			s.namespace, said = text, text
		case "k8s.pod.name":
			pod = text
		case "k8s.container.name":
			s.container = text
		case "k8s.pod.uid":
			s.uid = text
		case "k8s.node.name":
			s.node = text
		}
	}
	if pod == "" {
		return s
	}
	s.pod = pod
	// Pixie's form. A namespace that says otherwise leaves the slash in, for
	// Validate to refuse: there is no telling which is meant.
	if namespace, name, slashed := strings.Cut(pod, "/"); slashed && (said == "" || said == namespace) {
		s.namespace, s.pod = namespace, name
	}
	return s
}

// signal is nil when the numbers say that nothing happened. The result is valid,
// or the error is an *signal.InvalidError.
func (r *row) signal(now time.Time) (*signal.Signal, error) {
	if r.nanos == 0 || r.nanos > math.MaxInt64 {
		return nil, &signal.InvalidError{Field: "time_unix_nano", Problem: "is required, and is before the year 2262"}
	}
	s := &signal.Signal{
		Type: r.kind, Source: signal.SourcePixie, Once: true,
		Namespace: r.subject.namespace, Pod: r.subject.pod, Container: r.subject.container,
		PodUID: r.subject.uid, Node: r.subject.node,
		Observed: time.Unix(0, int64(r.nanos)).UTC(), //nolint:gosec // checked above
	}
	var err error
	switch r.kind {
	case signal.CPUReported:
		err = r.reported(s)
	case signal.CPUThrottle:
		err = r.throttle(s)
	case signal.PodCreation:
		err = r.creation(s)
	case signal.MemoryPressure, signal.NetworkIssue, signal.SecurityEvent:
		s.Values = r.values
		if !happened(r.values) {
			return nil, s.Validate(now)
		}
	default:
		s.Values = r.values
	}
	if err != nil {
		return nil, err
	}
	return s, s.Validate(now)
}

// happened tells whether a number counts something: sizes and windows do not.
func happened(values map[string]float64) bool {
	for name, v := range values {
		if v != 0 && name != "period_seconds" && !strings.HasSuffix(name, "_bytes") {
			return true
		}
	}
	return false
}

func (r *row) reported(s *signal.Signal) error {
	cores, known := r.values["reported_cpu_usage"]
	if !known {
		return missing("reported_cpu_usage")
	}
	s.Reported = &signal.Reported{Source: s.Source, Cores: cores, PeriodSeconds: r.values["period_seconds"], Observed: s.Observed}
	return nil
}

func (r *row) throttle(s *signal.Signal) error {
	percent, known := r.values["throttle_percentage"]
	if !known {
		return missing("throttle_percentage")
	}
	s.CPU = &signal.CPU{
		ThrottlePercent: percent, PeriodSeconds: r.values["period_seconds"],
		ActualCores: r.optional("actual_cpu_usage"), ReportedCores: r.optional("reported_cpu_usage"),
		LimitCores: r.optional("cpu_limit"), RecommendedCores: r.optional("recommended_cpu_limit"),
		RunqueueWaitPercent: r.optional("runqueue_wait_percent"),
	}
	s.Resolved = percent == 0
	if ns := r.optional("throttle_ns"); ns != nil {
		seconds := *ns / float64(time.Second)
		s.CPU.ThrottledSeconds = &seconds
	}
	return nil
}

func (r *row) creation(s *signal.Signal) error {
	c := &signal.Creation{}
	var nanos uint64
	for name, to := range map[string]*uint64{
		"total_syscalls": &c.TotalSyscalls, "namespace_ops": &c.NamespaceOps, "cgroup_writes": &c.CgroupWrites, "duration_ns": &nanos,
	} {
		v, known := r.values[name]
		if !known {
			return missing(name)
		}
		if v < 0 || v >= 1<<63 || v != math.Trunc(v) {
			return &signal.InvalidError{Field: name, Problem: fmt.Sprintf("want a whole number from 0 to 2^63-1, got %g", v)}
		}
		*to = uint64(v)
	}
	c.Duration = time.Duration(nanos) //nolint:gosec // below 2^63
	s.Creation = c
	return nil
}

func (r *row) optional(name string) *float64 {
	if v, known := r.values[name]; known {
		return &v
	}
	return nil
}

// what tells this row's numbers from another's of the same subject and time.
func (r *row) what() string {
	return r.event + "|" + strings.Join(slices.Sorted(maps.Keys(r.values)), ",")
}

// byTime is the order in which things happened.
func byTime(a, b *row) int { return cmp.Compare(a.nanos, b.nanos) }

func missing(name string) error {
	return &signal.InvalidError{Field: name, Problem: "is required in the same row"}
}

// number reads an attribute; a word, or a bool, is none.
func number(v *commonpb.AnyValue) (float64, bool) {
	f := math.NaN()
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_IntValue:
		f = float64(x.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		f = x.DoubleValue
	case *commonpb.AnyValue_StringValue:
		if parsed, err := strconv.ParseFloat(x.StringValue, 64); err == nil && strings.Trim(x.StringValue, "0123456789.+-eE") == "" {
			f = parsed
		}
	}
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

// size is how many data points a metric has.
func size(metric *metricspb.Metric) int {
	switch data := metric.GetData().(type) {
	case *metricspb.Metric_Gauge:
		return len(data.Gauge.GetDataPoints())
	case *metricspb.Metric_Sum:
		return len(data.Sum.GetDataPoints())
	case *metricspb.Metric_Histogram:
		return len(data.Histogram.GetDataPoints())
	case *metricspb.Metric_ExponentialHistogram:
		return len(data.ExponentialHistogram.GetDataPoints())
	case *metricspb.Metric_Summary:
		return len(data.Summary.GetDataPoints())
	}
	return 0
}

// quote shows what a sender wrote, escaped and cut.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
