package operator

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// batches are requests of the shape that Pixie sends, by script: see
// pxl/testdata/otlp.
const batches = "../../pxl/testdata/otlp/"

// collector is the OpenTelemetry Collector's own OTLP exporter.
type collector struct {
	metrics exporter.Metrics
	traces  exporter.Traces
}

// newCollector configures it as a Collector's YAML does.
func newCollector(t *testing.T, config map[string]any) collector {
	t.Helper()
	factory := otlpexporter.NewFactory()
	cfg := factory.CreateDefaultConfig()
	require.NoError(t, confmap.NewFromStringMap(config).Unmarshal(cfg))
	var c collector
	var err error
	c.metrics, err = factory.CreateMetrics(t.Context(), exportertest.NewNopSettings(factory.Type()), cfg)
	require.NoError(t, err)
	c.traces, err = factory.CreateTraces(t.Context(), exportertest.NewNopSettings(factory.Type()), cfg)
	require.NoError(t, err)
	require.NoError(t, c.metrics.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, c.traces.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() {
		assert.NoError(t, c.metrics.Shutdown(context.Background()))
		assert.NoError(t, c.traces.Shutdown(context.Background()))
	})
	return c
}

// send sends a script's batch and returns when the operator answered.
func (c collector) send(t *testing.T, script string) error {
	t.Helper()
	content, err := os.ReadFile(batches + script + ".json")
	require.NoError(t, err)
	if bytes.Contains(content, []byte("resourceSpans")) {
		spans, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(content)
		require.NoError(t, err)
		require.Positive(t, spans.SpanCount())
		return c.traces.ConsumeTraces(t.Context(), spans)
	}
	metrics, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(content)
	require.NoError(t, err)
	require.Positive(t, metrics.DataPointCount())
	return c.metrics.ConsumeMetrics(t.Context(), metrics)
}

// cpu is the cpu script's batch with its figures of the given time: an average of
// long ago says nothing of now.
func cpu(t *testing.T, at time.Time) pmetric.Metrics {
	t.Helper()
	content, err := os.ReadFile(batches + "cpu.json")
	require.NoError(t, err)
	metrics, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(content)
	require.NoError(t, err)
	for _, r := range metrics.ResourceMetrics().All() {
		for _, s := range r.ScopeMetrics().All() {
			for _, m := range s.Metrics().All() {
				for _, p := range m.Gauge().DataPoints().All() {
					p.SetTimestamp(pcommon.NewTimestampFromTime(at))
				}
			}
		}
	}
	return metrics
}

// certificate writes a key and a certificate for 127.0.0.1 and returns their paths.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

func TestCollectorsExporterDrivesEverySignal(t *testing.T) {
	t.Parallel()
	b := setUp(t)
	cert, key, pool := certificate(t)
	dir := t.TempDir()
	webConfig, token := filepath.Join(dir, "web.yml"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(webConfig, []byte("tls_server_config:\n  cert_file: "+cert+"\n  key_file: "+key+"\n"), 0o600))
	require.NoError(t, os.WriteFile(token, []byte("s3cret\n"), 0o600))
	https := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	webAddress, otlpAddress := freeAddress(t), freeAddress(t)
	start := func() *operator {
		cmd := exec.Command(b.binary, "--kubeconfig="+b.server.Kubeconfig(), "--web.listen-address="+webAddress, "--otlp.listen-address="+otlpAddress,
			"--web.config.file="+webConfig, "--web.bearer-token-file="+token, "--log.level=warn")
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(t, cmd.Start())
		o := &operator{"https://" + webAddress, cmd, make(chan struct{})}
		go func() { _ = cmd.Wait(); close(o.done) }()
		t.Cleanup(o.kill)
		require.Eventually(t, func() bool {
			resp, err := https.Get(o.url + "/-/ready")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}, 30*time.Second, 50*time.Millisecond)
		return o
	}
	post := func(body string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+webAddress+"/webhook/pixie", bytes.NewBufferString(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer s3cret")
		resp, err := https.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, string(answer))
	}
	get := func(name string) *v1alpha1.KernelWhisper {
		w := &v1alpha1.KernelWhisper{}
		require.NoError(t, b.api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, w), name)
		return w
	}
	config := func(headers map[string]any, tlsConfig map[string]any) map[string]any {
		return map[string]any{"endpoint": otlpAddress, "compression": "gzip", "headers": headers, "tls": tlsConfig,
			"sending_queue": map[string]any{"enabled": false}, "retry_on_failure": map[string]any{"enabled": false}}
	}
	trusted := map[string]any{"ca_file": cert}

	o := start()
	good := newCollector(t, config(map[string]any{"authorization": "Bearer s3cret"}, trusted))
	scripts := map[string]struct {
		object   string
		evidence string
		value    float64
	}{
		"memory":          {"cache-0-memory-pressure-kw", "major_faults", 812},
		"network":         {"gateway-0-network-issue-kw", "rx_drops", 41},
		"tcp_retransmits": {"sender-0-network-issue-kw", "tcp_retransmits", 17},
		"tcp_drops":       {"receiver-0-network-issue-kw", "tcp_drops", 5},
		"oom_kills":       {"hungry-0-memory-pressure-kw", "oom_kills", 1},
		"execs":           {"visited-0-security-event-kw", "shell_exec", 1},
	}
	everything := func() {
		for script, want := range scripts {
			require.NoError(t, good.send(t, script), script)
			w := get(want.object)
			assert.Equal(t, want.value, w.Spec.Evidence.Values[want.evidence], script)
			assert.EqualValues(t, "pixie", w.Spec.Source, script)
			assert.EqualValues(t, 1, w.Status.Occurrences, script)
			assert.NotEmpty(t, w.Spec.Insights, script)
		}
		require.NoError(t, good.send(t, "pod_births"))
		birth := &v1alpha1.PodBirthCertificate{}
		require.NoError(t, b.api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "newborn-0-birth"}, birth))
		assert.EqualValues(t, 847, birth.Spec.TotalSyscalls)
		assert.Equal(t, 183*time.Millisecond, birth.Spec.Duration.Duration)
	}

	t.Run("a batch of each script", func(*testing.T) { everything() })
	t.Run("the same again, windows overlap", func(*testing.T) { everything() })

	t.Run("Pixie's average beside the kernel's word", func(t *testing.T) {
		average := func(at time.Time) { require.NoError(t, good.metrics.ConsumeMetrics(t.Context(), cpu(t, at))) }
		begin := time.Now()
		average(begin)
		err := b.api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "quiet-0-kw"}, &v1alpha1.KernelWhisper{})
		assert.True(t, apierrors.IsNotFound(err), "an average alone is no whisper: %v", err)
		post(`{"type":"cpu_throttle","ebpf_detection":true,"pod_name":"checkout-7d9f6c5b4-x2x7k","namespace":"kernel-gossip","container_name":"app",
			"throttle_percentage":92.3,"actual_cpu_usage":0.97,"reported_cpu_usage":0.48,"cpu_limit":1,"period_seconds":60,"timestamp":"` + begin.UTC().Format(time.RFC3339) + `"}`)
		both := func() {
			w := get("checkout-7d9f6c5b4-x2x7k-kw")
			assert.Equal(t, 0.48, *w.Spec.Evidence.ReportedCPUCores)
			require.Len(t, w.Spec.Evidence.Reported, 1)
			assert.Equal(t, 0.3104, w.Spec.Evidence.Reported[0].CPUCores)
			assert.EqualValues(t, "pixie", w.Spec.Evidence.Reported[0].Source)
			assert.Contains(t, w.Spec.Insights, "Pixie shows 0.31 cores (31% of the limit) over 30 s, metrics show 0.48, kernel shows 92% throttled")
			assert.EqualValues(t, 1, w.Status.Occurrences)
		}
		both() // the average came before the kernel's word
		average(begin.Add(30 * time.Second))
		both() // and after it
	})

	t.Run("after kill -9 the same again counts once too", func(*testing.T) {
		o.kill()
		o = start()
		require.Eventually(t, func() bool { return good.send(t, "memory") == nil }, 30*time.Second, 200*time.Millisecond)
		everything()
	})

	t.Run("who has no token, or no trust, gets nothing", func(t *testing.T) {
		for name, c := range map[string]collector{
			"no token":      newCollector(t, config(nil, trusted)),
			"another token": newCollector(t, config(map[string]any{"authorization": "Bearer guess"}, trusted)),
			"plain text":    newCollector(t, config(map[string]any{"authorization": "Bearer s3cret"}, map[string]any{"insecure": true})),
		} {
			assert.Error(t, c.send(t, "memory"), name)
		}
	})

	t.Run("while the API server is away a Collector tries again, and nothing is lost or counted twice", func(t *testing.T) {
		patient := config(map[string]any{"authorization": "Bearer s3cret"}, trusted)
		patient["retry_on_failure"] = map[string]any{"enabled": true, "initial_interval": "200ms", "max_interval": "1s", "max_elapsed_time": "60s"}
		patient["timeout"] = "20s"
		c := newCollector(t, patient)
		require.NoError(t, b.server.StopAPI())
		sent := make(chan error, 1)
		go func() {
			metrics := pmetric.NewMetrics()
			r := metrics.ResourceMetrics().AppendEmpty()
			r.Resource().Attributes().PutStr("k8s.pod.name", namespace+"/patient-0")
			m := r.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
			m.SetName("kernel_gossip.network_issue.tcp_drops")
			p := m.SetEmptyGauge().DataPoints().AppendEmpty()
			p.SetIntValue(2)
			p.SetTimestamp(1772366400000000000)
			sent <- c.metrics.ConsumeMetrics(context.Background(), metrics)
		}()
		select {
		case err := <-sent:
			require.Failf(t, "it was answered while the API server is away", "%v", err)
		case <-time.After(3 * time.Second):
		}
		require.NoError(t, b.server.StartAPI(t.Context()))
		require.NoError(t, <-sent)
		assert.EqualValues(t, 1, get("patient-0-network-issue-kw").Status.Occurrences)
	})
}
