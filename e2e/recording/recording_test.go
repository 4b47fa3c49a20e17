package recording_test

import (
	"bytes"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/kernel-gossip/kernel-gossip/e2e/recording"
)

func parse(t *testing.T, text string) []*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewBufferString(text))
	require.NoError(t, err)
	var out []*dto.MetricFamily
	for _, f := range families {
		out = append(out, f)
	}
	return out
}

func TestRecordingIsALoadCommand(t *testing.T) {
	native := &dto.MetricFamily{
		Name: proto.String("wait_seconds"), Type: dto.MetricType_HISTOGRAM.Enum(),
		Metric: []*dto.Metric{{Histogram: &dto.Histogram{
			SampleCount: proto.Uint64(7), SampleSum: proto.Float64(0.5), Schema: proto.Int32(0),
			ZeroCount: proto.Uint64(1), ZeroThreshold: proto.Float64(0.25),
			PositiveSpan:  []*dto.BucketSpan{{Offset: proto.Int32(-3), Length: proto.Uint32(2)}, {Offset: proto.Int32(2), Length: proto.Uint32(1)}},
			PositiveDelta: []int64{1, 1, 1},
		}}},
	}
	target := recording.Target{Job: "j", Instance: "i"}
	var r recording.Recording
	all := func(string, map[string]string) bool { return true }
	const first = "# TYPE runs_total counter\nruns_total{path=\"a\\\\x2d\",pod=\"\"} 1e9\nruns_total{path=\"left out\"} 1\n"
	require.NoError(t, r.Add([]recording.Scrape{{Target: target, Families: append(parse(t, first), native)}},
		func(_ string, labels map[string]string) bool { return labels["path"] != "left out" }))
	for range 3 {
		require.NoError(t, r.Add([]recording.Scrape{{Target: target, Families: parse(t, "# TYPE late gauge\nlate 0.5\n")}}, all))
	}
	require.NoError(t, r.Add([]recording.Scrape{{Target: target, Families: parse(t, first)}},
		func(_ string, labels map[string]string) bool { return labels["path"] != "left out" }))

	var out bytes.Buffer
	require.NoError(t, r.Write(&out, "Why.\nHow.", 15*time.Second))
	assert.Equal(t, `# Why.
# How.
load 15s
  late{instance="i",job="j"} _ 0.5x2
  runs_total{instance="i",job="j",path="a\\x2d"} 1000000000 _x3 1000000000
  up{instance="i",job="j"} 1x4
  wait_seconds{instance="i",job="j"} {{schema:0 sum:0.5 count:7 z_bucket:1 z_bucket_w:0.25 offset:-3 buckets:[1 2 0 0 3]}}
`, out.String())
}

// The scripts' parser takes no empty list of buckets.
func TestHistogramWithoutObservations(t *testing.T) {
	var r recording.Recording
	none := &dto.MetricFamily{Name: proto.String("d"), Type: dto.MetricType_HISTOGRAM.Enum(),
		Metric: []*dto.Metric{{Histogram: &dto.Histogram{Schema: proto.Int32(3), ZeroThreshold: proto.Float64(0.5)}}}}
	require.NoError(t, r.Add([]recording.Scrape{{Families: []*dto.MetricFamily{none}}}, func(name string, _ map[string]string) bool { return name != "up" }))
	var out bytes.Buffer
	require.NoError(t, r.Write(&out, "", time.Second))
	assert.Equal(t, "load 1s\n  d{} {{schema:3 sum:0 count:0 z_bucket:0 z_bucket_w:0.5}}\n", out.String())
}

func TestClassicBucketsEndAtInfinity(t *testing.T) {
	var r recording.Recording
	require.NoError(t, r.Add([]recording.Scrape{{Families: parse(t, `# TYPE d histogram
d_bucket{le="0.5"} 1
d_bucket{le="+Inf"} 2
d_sum 3
d_count 2
`)}}, func(name string, _ map[string]string) bool { return name != "up" }))
	var out bytes.Buffer
	require.NoError(t, r.Write(&out, "", time.Second))
	assert.Equal(t, "load 1s\n  d_bucket{le=\"+Inf\"} 2\n  d_bucket{le=\"0.5\"} 1\n  d_count{} 2\n  d_sum{} 3\n", out.String())
}
