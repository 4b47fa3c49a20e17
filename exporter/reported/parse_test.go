package reported

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return b
}

var app = target{"shop", "web-7c9d8b6f5-x2k4q", "app"}

func TestParseResourceOfARealKubelet(t *testing.T) {
	points, bad, err := parseResource(bytes.NewReader(fixture(t, "kubelet-1.36.prom")), time.Unix(1, 0))
	require.NoError(t, err)
	assert.Zero(t, bad)
	require.Len(t, points, 4)
	got := points[app]
	assert.InDelta(t, 152.417893, got.cpu, 1e-9)
	assert.Equal(t, int64(1795132800123), got.at.UnixMilli())
	assert.WithinDuration(t, time.Unix(1795129200, 123456700), got.start, time.Microsecond)
	assert.InDelta(t, 8812.90441, points[target{"kube-system", "etcd-worker-1", "etcd"}].cpu, 1e-9)
}

func TestParseResource(t *testing.T) {
	const labels = `{container="app",namespace="shop",pod="web-7c9d8b6f5-x2k4q"}`
	asked := time.UnixMilli(1795132800000)
	for _, tc := range []struct {
		name, body string
		want       map[target]sample
		bad        int
		err        string
	}{
		{name: "nothing", body: "", want: map[target]sample{}},
		{name: "no stamp of its own", body: metricCPU + labels + " 1.5\n", want: map[target]sample{app: {at: asked, cpu: 1.5}}},
		{
			name: "start before CPU",
			body: metricStart + labels + " 100\n" + metricCPU + labels + " 1.5 200000\n",
			want: map[target]sample{app: {at: time.UnixMilli(200000), cpu: 1.5, start: time.Unix(100, 0)}},
		},
		{name: "start alone", body: metricStart + labels + " 100\n", want: map[target]sample{}},
		{name: "impossible values", body: metricCPU + labels + " NaN\n", want: map[target]sample{}, bad: 1},
		{name: "negative", body: metricCPU + labels + " -1\n", want: map[target]sample{}, bad: 1},
		{name: "infinite", body: metricCPU + labels + " +Inf\n", want: map[target]sample{}, bad: 1},
		{name: "before 1970", body: metricCPU + labels + " 1 -5\n", want: map[target]sample{}, bad: 1},
		{name: "end of time", body: metricCPU + labels + " 1 9223372036854775807\n", want: map[target]sample{}, bad: 1},
		{name: "start at infinity", body: metricCPU + labels + " 1 5000\n" + metricStart + labels + " Inf\n", want: map[target]sample{app: {at: time.Unix(5, 0), cpu: 1}}, bad: 1},
		{name: "no pod", body: metricCPU + `{container="app",namespace="shop"} 1` + "\n", want: map[target]sample{}, bad: 1},
		{name: "twice the same", body: metricCPU + labels + " 1 5000\n" + metricCPU + labels + " 2 5000\n", want: map[target]sample{app: {at: time.Unix(5, 0), cpu: 1}}, bad: 1},
		{name: "histogram of that name", body: "# TYPE " + metricCPU + " histogram\n" + metricCPU + `_bucket{container="app",namespace="shop",pod="p",le="+Inf"} 1` + "\n", want: map[target]sample{}, bad: 1},
		{name: "HTML", body: "<html>login</html>\n", err: "text format parsing error in line 1"},
		{name: "cut off", body: metricCPU + `{container="app"`, err: "text format parsing error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, bad, err := parseResource(strings.NewReader(tc.body), asked)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
			assert.Equal(t, tc.bad, bad)
		})
	}
}

// FuzzParseResource: whatever a kubelet sends, no panic, and only figures that can be true.
func FuzzParseResource(f *testing.F) {
	f.Add(fixture(f, "kubelet-1.36.prom"), fixture(f, "kubelet-1.36.prom"))
	const labels = `{container="a",namespace="n",pod="p"}`
	f.Add([]byte(metricCPU+labels+" 1 1000\n"), []byte(metricCPU+labels+" 2 1000\n"))
	f.Add([]byte(metricCPU+labels+" 1 1000\n"+metricStart+labels+" 0.5\n"), []byte(metricCPU+labels+" 5e300 -9223372036854775808\n"))
	f.Add([]byte("# TYPE "+metricCPU+" summary\n"+metricCPU+"{quantile=\"0.5\"} NaN\n"), []byte("\x00\xff{"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		w := newWindows(Resolution)
		for _, body := range [][]byte{first, second} {
			points, _, err := parseResource(bytes.NewReader(body), time.Unix(1795132800, 0))
			if err != nil {
				continue
			}
			w.store(points)
			for c := range points {
				if c.namespace == "" || c.pod == "" || c.container == "" {
					t.Fatalf("point without a name: %+v", c)
				}
				if u, ok := w.usage(c); ok && (math.IsNaN(u.Cores) || math.IsInf(u.Cores, 0) || u.Cores < 0 || u.Window <= 0) {
					t.Fatalf("impossible figure %+v", u)
				}
			}
		}
	})
}

func FuzzParsePodMetrics(f *testing.F) {
	f.Add(fixture(f, "podmetrics.json"))
	f.Add([]byte(`{"items":[{"metadata":{"name":"p","namespace":"n"},"timestamp":"2026-01-01T00:00:00Z","window":"1ns","containers":[{"name":"c","usage":{"cpu":"1e400"}}]}]}`))
	f.Add([]byte(`{"items":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		into := map[target]Usage{}
		if _, err := parsePodMetrics(bytes.NewReader(body), into); err != nil {
			return
		}
		for c, u := range into {
			if c.namespace == "" || c.pod == "" || c.container == "" || u.Window <= 0 || !(u.Cores >= 0) || math.IsInf(u.Cores, 0) {
				t.Fatalf("impossible figure of %+v: %+v", c, u)
			}
		}
	})
}
