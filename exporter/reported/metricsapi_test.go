package reported

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func metricsAPI(t *testing.T, h http.HandlerFunc, namespaces ...string) *MetricsAPI {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	m, err := NewMetricsAPI(MetricsAPIConfig{
		REST: client.CoreV1().RESTClient(), Namespaces: func() []string { return namespaces },
		Timeout: 2 * time.Second, MaxBodyBytes: 64 << 10, Log: quiet,
	})
	require.NoError(t, err)
	return m
}

func TestMetricsAPI(t *testing.T) {
	var paths []string
	body := fixture(t, "podmetrics.json")
	m := metricsAPI(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods" {
			_, _ = w.Write(body)
			return
		}
		_, _ = fmt.Fprint(w, `{"items":[]}`)
	}, "shop", "kube-system")
	_, ok := m.Usage(appKey)
	assert.False(t, ok)
	require.NoError(t, m.poll(t.Context()))
	assert.Len(t, paths, 2, "only the namespaces of this node")
	got, ok := m.Usage(appKey)
	require.True(t, ok)
	assert.InDelta(t, 0.481203117, got.Cores, 1e-12)
	require.NotNil(t, got.MemoryBytes)
	assert.Equal(t, 187392000.0, *got.MemoryBytes)
	assert.Equal(t, Usage{Source: SourceMetrics, Cores: got.Cores, MemoryBytes: got.MemoryBytes, Window: 15123 * time.Millisecond,
		At: time.Date(2026, 11, 19, 19, 59, 52, 0, time.UTC)}, got)
	idle, ok := m.Usage(Key{Namespace: "shop", Pod: app.pod, Container: "istio-proxy"})
	require.True(t, ok)
	assert.Zero(t, idle.Cores)
	_, ok = m.Usage(Key{Namespace: "shop", Pod: "batch", Container: "odd"})
	assert.False(t, ok)
	assert.InDelta(t, 1, testutil.ToFloat64(m.polls.invalid), 0)
	assert.Equal(t, SourceMetrics, m.Name())

	later := time.Now().Add(maxSilence*metricsInterval + time.Second)
	m.now = func() time.Time { return later }
	_, ok = m.Usage(appKey)
	assert.False(t, ok)
}

func TestMetricsAPIThatFails(t *testing.T) {
	status := func(code int, reason string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"m"}`, reason, code)
		}
	}
	for _, tc := range []struct {
		name, reason, message string
		serve                 http.HandlerFunc
	}{
		{"no permission", "denied", `resource "pods" of API group "metrics.k8s.io"`, status(http.StatusForbidden, "Forbidden")},
		{"no metrics-server", "status", "is metrics-server running?", status(http.StatusNotFound, "NotFound")},
		{"metrics-server down", "status", "is metrics-server running?", status(http.StatusServiceUnavailable, "ServiceUnavailable")},
		{"no JSON", "parse", `namespace "shop"`, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>") }},
		{"huge", "too_large", "over 65536 bytes", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"items":[%*s]}`, 128<<10, "")
		}},
		{"hangs", "request", "deadline", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := metricsAPI(t, tc.serve, "shop")
			err := m.poll(t.Context())
			var pe pollError
			require.ErrorAs(t, err, &pe)
			assert.Equal(t, tc.reason, pe.reason, err)
			require.ErrorContains(t, err, tc.message)
		})
	}
	_, err := NewMetricsAPI(MetricsAPIConfig{Log: quiet})
	require.ErrorContains(t, err, "needs a cluster")
}
