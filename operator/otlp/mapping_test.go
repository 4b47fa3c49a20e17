package otlp

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const then = 1772366390_000000001 // ten seconds before now

func attributes(pairs ...string) []*commonpb.KeyValue {
	var all []*commonpb.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, &commonpb.KeyValue{Key: pairs[i], Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: pairs[i+1]}}})
	}
	return all
}

func gauge(name string, value float64, at uint64, pairs ...string) *metricspb.Metric {
	return &metricspb.Metric{Name: name, Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{{
		TimeUnixNano: at, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: value}, Attributes: attributes(pairs...),
	}}}}}
}

// resource is a row as Pixie's OTelExportSinkNode makes it: one ResourceMetrics a row.
func resource(pairs []string, metrics ...*metricspb.Metric) *metricspb.ResourceMetrics {
	return &metricspb.ResourceMetrics{
		Resource:     &resourcepb.Resource{Attributes: attributes(pairs...)},
		ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: metrics}},
	}
}

func web() []string {
	return []string{"service.name", "shop/web-0", "k8s.pod.name", "shop/web-0", "k8s.container.name", "app", "k8s.node.name", "node-1"}
}

func TestRowsBecomeSignals(t *testing.T) {
	for name, c := range map[string]struct {
		metrics []*metricspb.Metric
		check   func(*testing.T, signal.Signal)
	}{
		"Pixie's average": {
			[]*metricspb.Metric{gauge("kernel_gossip.cpu_reported.reported_cpu_usage", 0.48, then), gauge("kernel_gossip.cpu_reported.period_seconds", 30, then)},
			func(t *testing.T, s signal.Signal) {
				assert.Equal(t, &signal.Reported{Source: signal.SourcePixie, Cores: 0.48, PeriodSeconds: 30, Observed: time.Unix(0, then).UTC()}, s.Reported)
			},
		},
		"throttling": {
			[]*metricspb.Metric{gauge("kernel_gossip.cpu_throttle.throttle_percentage", 92.3, then), gauge("kernel_gossip.cpu_throttle.cpu_limit", 1, then), gauge("kernel_gossip.cpu_throttle.throttle_ns", 2e9, then)},
			func(t *testing.T, s signal.Signal) {
				assert.Equal(t, 92.3, s.CPU.ThrottlePercent)
				assert.Equal(t, 1.0, *s.CPU.LimitCores)
				assert.Equal(t, 2.0, *s.CPU.ThrottledSeconds)
				assert.Nil(t, s.CPU.ReportedCores, "absent is not 0")
			},
		},
		"throttling that is over": {
			[]*metricspb.Metric{gauge("kernel_gossip.cpu_throttle.throttle_percentage", 0, then)},
			func(t *testing.T, s signal.Signal) { assert.True(t, s.Resolved) },
		},
		"starvation": {
			[]*metricspb.Metric{gauge("kernel_gossip.cpu_starvation.runqueue_wait_percent", 81, then)},
			func(t *testing.T, s signal.Signal) { assert.Equal(t, 81.0, s.Values["runqueue_wait_percent"]) },
		},
		"memory": {
			[]*metricspb.Metric{gauge("kernel_gossip.memory_pressure.major_faults", 812, then), gauge("kernel_gossip.memory_pressure.rss_bytes", 1<<30, then)},
			func(t *testing.T, s signal.Signal) {
				assert.Equal(t, map[string]float64{"major_faults": 812, "rss_bytes": 1 << 30}, s.Values)
			},
		},
		"birth": {
			[]*metricspb.Metric{gauge("kernel_gossip.pod_creation.total_syscalls", 847, then), gauge("kernel_gossip.pod_creation.namespace_ops", 12, then),
				gauge("kernel_gossip.pod_creation.cgroup_writes", 5, then), gauge("kernel_gossip.pod_creation.duration_ns", 1.5e9, then)},
			func(t *testing.T, s signal.Signal) {
				assert.Equal(t, &signal.Creation{TotalSyscalls: 847, NamespaceOps: 12, CgroupWrites: 5, Duration: 1500 * time.Millisecond}, s.Creation)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := readMetrics([]*metricspb.ResourceMetrics{resource(web(), c.metrics...)})
			require.Zero(t, r.rejected, r.faults)
			require.Len(t, r.all, 1, "numbers of one subject and time are one row")
			s, err := r.all[0].signal(now)
			require.NoError(t, err)
			assert.Equal(t, "shop", s.Namespace)
			assert.Equal(t, "web-0", s.Pod)
			assert.Equal(t, "app", s.Container)
			assert.Equal(t, "node-1", s.Node)
			assert.Equal(t, signal.SourcePixie, s.Source)
			assert.True(t, s.Once)
			assert.Equal(t, time.Unix(0, then).UTC(), s.Observed)
			c.check(t, *s)
		})
	}
}

func TestSubject(t *testing.T) {
	for name, c := range map[string]struct {
		resource, point []string
		want            subject
	}{
		"Pixie's form":         {[]string{"k8s.pod.name", "shop/web-0"}, nil, subject{namespace: "shop", pod: "web-0"}},
		"with its namespace":   {[]string{"k8s.pod.name", "shop/web-0", "k8s.namespace.name", "shop"}, nil, subject{namespace: "shop", pod: "web-0"}},
		"OpenTelemetry's form": {[]string{"k8s.pod.name", "web-0", "k8s.namespace.name", "shop", "k8s.pod.uid", "u"}, nil, subject{namespace: "shop", pod: "web-0", uid: "u"}},
		"at the point":         {[]string{"k8s.node.name", "n"}, []string{"k8s.pod.name", "shop/web-0", "k8s.container.name", "app"}, subject{namespace: "shop", pod: "web-0", container: "app", node: "n"}},
		"the point is nearer":  {[]string{"k8s.pod.name", "shop/web-0"}, []string{"k8s.pod.name", "bank/till-0"}, subject{namespace: "bank", pod: "till-0"}},
		"two namespaces":       {[]string{"k8s.pod.name", "shop/web-0", "k8s.namespace.name", "bank"}, nil, subject{namespace: "bank", pod: "shop/web-0"}},
		"two slashes":          {[]string{"k8s.pod.name", "shop/web/0"}, nil, subject{namespace: "shop", pod: "web/0"}},
		"nothing":              {nil, nil, subject{}},
	} {
		assert.Equal(t, c.want, subject{}.with(attributes(c.resource...)).with(attributes(c.point...)), name)
	}
}

func TestRejects(t *testing.T) {
	hist := &metricspb.Metric{Name: "kernel_gossip.network_issue.drops", Data: &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{DataPoints: []*metricspb.HistogramDataPoint{{}, {}}}}}
	cumulative := &metricspb.Metric{Name: "kernel_gossip.network_issue.drops", Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{
		AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, DataPoints: []*metricspb.NumberDataPoint{{}}}}}
	empty := &metricspb.Metric{Name: "kernel_gossip.network_issue.drops", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{{}}}}}
	for want, c := range map[string]struct {
		metric *metricspb.Metric
		n      int
	}{
		`metric "http.server.duration": want kernel_gossip.`: {gauge("http.server.duration", 1, then), 1},
		`metric "kernel_gossip.cpu"`:                         {gauge("kernel_gossip.cpu", 1, then), 1},
		`metric "kernel_gossip.network_issue.Drops!"`:        {gauge("kernel_gossip.network_issue.Drops!", 1, then), 1},
		"want a gauge or a delta sum":                        {hist, 2},
		"a cumulative sum is of a lifetime":                  {cumulative, 1},
		"has no value":                                       {empty, 1},
		"is not a finite number":                             {gauge("kernel_gossip.network_issue.drops", math.NaN(), then), 1},
	} {
		r := readMetrics([]*metricspb.ResourceMetrics{resource(web(), c.metric)})
		assert.Equal(t, c.n, r.rejected, want)
		assert.Empty(t, r.all, want)
		require.Len(t, r.faults, 1, want)
		assert.Contains(t, r.faults[0], want)
	}
}

func TestInvalidRowsNameTheField(t *testing.T) {
	for field, metrics := range map[string][]*metricspb.Metric{
		"time_unix_nano":        {gauge("kernel_gossip.network_issue.drops", 1, 0)},
		"timestamp":             {gauge("kernel_gossip.network_issue.drops", 1, 1)},
		"type":                  {gauge("kernel_gossip.http_errors.count", 1, then)},
		"throttle_percentage":   {gauge("kernel_gossip.cpu_throttle.cpu_limit", 1, then)},
		"reported_cpu_usage":    {gauge("kernel_gossip.cpu_reported.period_seconds", 1, then)},
		"cgroup_writes":         {gauge("kernel_gossip.pod_creation.total_syscalls", 1, then), gauge("kernel_gossip.pod_creation.namespace_ops", 1, then), gauge("kernel_gossip.pod_creation.duration_ns", 1, then)},
		"runqueue_wait_percent": {gauge("kernel_gossip.cpu_starvation.runqueue_wait_percent", 101, then)},
		"pod_name":              {gauge("kernel_gossip.network_issue.drops", 1, then, "k8s.pod.name", "shop/../etc")},
		"namespace":             {gauge("kernel_gossip.network_issue.drops", 1, then, "k8s.pod.name", "Shop/web-0")},
	} {
		r := readMetrics([]*metricspb.ResourceMetrics{resource([]string{"k8s.pod.name", "shop/web-0"}, metrics...)})
		require.Len(t, r.all, 1, field)
		_, err := r.all[0].signal(now)
		var invalid *signal.InvalidError
		require.ErrorAs(t, err, &invalid, field)
		assert.Equal(t, field, invalid.Field, err)
	}
}

func TestNothingHappened(t *testing.T) {
	r := readMetrics([]*metricspb.ResourceMetrics{resource(web(), gauge("kernel_gossip.memory_pressure.major_faults", 0, then),
		gauge("kernel_gossip.memory_pressure.rss_bytes", 5, then), gauge("kernel_gossip.memory_pressure.period_seconds", 30, then))})
	require.Len(t, r.all, 1)
	s, err := r.all[0].signal(now)
	require.NoError(t, err)
	assert.Nil(t, s)
}

// A row of a pod with two services comes twice, once for each: OTelExportSinkNode
// replicates it.
func TestARowOfTwoServicesIsOne(t *testing.T) {
	other := append([]string{"service.name", "shop/other"}, web()[2:]...)
	r := readMetrics([]*metricspb.ResourceMetrics{
		resource(web(), gauge("kernel_gossip.network_issue.drops", 3, then)),
		resource(other, gauge("kernel_gossip.network_issue.drops", 3, then)),
	})
	assert.Len(t, r.all, 1)
	assert.Equal(t, 1, r.repeated)
	assert.Equal(t, 3.0, r.all[0].values["drops"])
}

func TestTooManyRows(t *testing.T) {
	points := make([]*metricspb.NumberDataPoint, MaxRows+7)
	for i := range points {
		points[i] = &metricspb.NumberDataPoint{TimeUnixNano: then + uint64(i), Value: &metricspb.NumberDataPoint_AsInt{AsInt: 1}} //nolint:gosec // small
	}
	r := readMetrics([]*metricspb.ResourceMetrics{resource(web(), &metricspb.Metric{Name: "kernel_gossip.network_issue.drops",
		Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: points}}})})
	assert.Len(t, r.all, MaxRows)
	assert.Equal(t, 7, r.rejected)
}

func TestSpansAreEvents(t *testing.T) {
	span := func(name string, end uint64, pairs ...string) *tracepb.Span {
		return &tracepb.Span{Name: name, StartTimeUnixNano: end, EndTimeUnixNano: end, Attributes: attributes(pairs...)}
	}
	r := readSpans([]*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: attributes(web()...)},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
			span("kernel_gossip.memory_pressure.oom_kills", then, "total_pages", "4096", "victim", "java", "0x", "12", "hex", "0x10"),
			span("kernel_gossip.memory_pressure.oom_kills", then), // the same again
			span("kernel_gossip.memory_pressure.oom_kills", then+1),
			span("GET /", then),
		}}},
	}})
	assert.Equal(t, 1, r.rejected)
	assert.Equal(t, 1, r.repeated)
	require.Len(t, r.all, 2)
	s, err := r.all[0].signal(now)
	require.NoError(t, err)
	assert.Equal(t, map[string]float64{"oom_kills": 1, "total_pages": 4096}, s.Values)
	assert.Equal(t, signal.MemoryPressure, s.Type)
}

// FuzzMapping: whatever comes, what passes is valid, and every point is accounted for.
func FuzzMapping(f *testing.F) {
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	add(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{resource(web(),
		gauge("kernel_gossip.cpu_throttle.throttle_percentage", 92.3, then), gauge("kernel_gossip.network_issue.drops", 3, then, "k8s.pod.name", "a/b"))}})
	add(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{resource(web(),
		gauge("kernel_gossip.pod_creation.total_syscalls", 1e300, then), gauge("kernel_gossip.cpu_reported.reported_cpu_usage", math.Inf(1), then))}})
	add(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{Resource: &resourcepb.Resource{Attributes: attributes(web()...)},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "kernel_gossip.security_event.exec", EndTimeUnixNano: then, Attributes: attributes("n", "1")}}}}}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		var metrics metricspb.MetricsData
		var spans tracepb.TracesData
		memory := newSeen()
		judge := func(r *rows) {
			for _, row := range r.all {
				s, err := row.signal(now)
				var invalid *signal.InvalidError
				switch {
				case err != nil:
					require.ErrorAs(t, err, &invalid)
					require.Less(t, len(err.Error()), 1000)
				case s != nil:
					require.NoError(t, s.Validate(now))
					require.True(t, memory.claim(row))
					require.False(t, memory.claim(row))
					require.LessOrEqual(t, len(memory.beside(row)), signal.MaxValues)
				}
			}
			for _, fault := range r.faults {
				require.Less(t, len(fault), 1000)
			}
		}
		if proto.Unmarshal(b, &metrics) == nil {
			points := 0
			for _, resource := range metrics.GetResourceMetrics() {
				for _, scope := range resource.GetScopeMetrics() {
					for _, m := range scope.GetMetrics() {
						points += size(m)
					}
				}
			}
			r := readMetrics(metrics.GetResourceMetrics())
			judge(r)
			taken := 0
			for _, row := range r.all {
				taken += row.points
			}
			require.LessOrEqual(t, r.rejected+r.repeated+taken, points) // the rest has no recorded value
		}
		if proto.Unmarshal(b, &spans) == nil {
			judge(readSpans(spans.GetResourceSpans()))
		}
	})
}

func TestSeen(t *testing.T) {
	m := newSeen()
	row := func(at uint64, values map[string]float64) *row {
		return &row{kind: signal.NetworkIssue, subject: subject{namespace: "shop", pod: "web-0"}, nanos: at, values: values}
	}
	drops := row(then, map[string]float64{"drops": 3})
	assert.True(t, m.claim(drops))
	assert.False(t, m.claim(drops), "windows overlap")
	m.release(drops)
	assert.True(t, m.claim(drops), "it was not stored")
	assert.True(t, m.claim(row(then, map[string]float64{"tcp_retransmits": 1})), "another script's number of the same time")
	assert.True(t, m.claim(row(then-1, map[string]float64{"drops": 1})), "late is not the same")

	assert.Equal(t, map[string]float64{"drops": 3}, m.beside(drops))
	second := uint64(time.Second)
	assert.Equal(t, map[string]float64{"drops": 3, "tcp_retransmits": 9}, m.beside(row(then+30*second, map[string]float64{"tcp_retransmits": 9})))
	assert.Equal(t, map[string]float64{"drops": 4, "tcp_retransmits": 9}, m.beside(row(then+40*second, map[string]float64{"drops": 4})))
	assert.Equal(t, map[string]float64{"x": 1}, m.beside(row(then+1000*second, map[string]float64{"x": 1})), "old numbers go")

	for i := range maxSubjects + 10 {
		r := row(then, map[string]float64{"drops": 1})
		r.subject.pod = strings.Repeat("a", i%7) + string(rune('a'+i%26)) + time.Duration(i).String()
		m.claim(r)
	}
	assert.LessOrEqual(t, m.recent.Len(), maxSubjects)
	assert.Len(t, m.subjects, m.recent.Len())
}
