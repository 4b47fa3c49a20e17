package operator

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// outage is how long the API server is away.
const outage = time.Minute

// throttleRule is the shipped throttle alert in small: the same name, annotations
// and metrics, over 10 s and not 5 min, about one cgroup. There is no pod around,
// so the rule names one.
const throttleRule = `
      - alert: KernelGossipCPUThrottled
        expr: |
          rate(kernel_gossip_cpu_throttled_periods_total{container=%[1]q}[10s])
            / rate(kernel_gossip_cpu_periods_total{container=%[1]q}[10s]) > 0.25
        for: 2s
        labels: {severity: info, namespace: kernel-gossip, pod: %[2]q, container: app}
        annotations:
          signal_type: cpu_throttle
          period_seconds: "10"
          throttle_percentage: '{{ printf "%%.1f" (query (printf "100 * rate(kernel_gossip_cpu_throttled_periods_total{container=%%q}[10s]) / rate(kernel_gossip_cpu_periods_total{container=%%q}[10s])" %[1]q %[1]q) | first | value) }}'
          limit_cores: '{{ with printf "kernel_gossip_cpu_limit_cores{container=%%q}" %[1]q | query }}{{ . | first | value | printf "%%.3f" }}{{ end }}'
`

// The whole indirect way on a real kernel: throttled cgroups, the exporter,
// Prometheus, Alertmanager with the shipped route, the operator, an API server.
// While that is away for a minute, one alert resolves and another begins to fire.
func TestAlertmanagerDeliversThroughAnOutage(t *testing.T) {
	t.Parallel()
	b := setUp(t)
	ctx := t.Context()
	dir := t.TempDir()

	var groups []*throttled.Group
	for i := range 2 {
		g, err := throttled.New(fmt.Sprintf("kernel-gossip-alert-%d-%d", os.Getpid(), i), 10*time.Millisecond)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, g.Close()) })
		groups = append(groups, g)
	}
	early, late := groups[0], groups[1]

	exporter, prometheus, alertmanager := freeAddress(t), freeAddress(t), freeAddress(t)
	operator := b.start(t, freeAddress(t))
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		return file
	}
	shipped, err := os.ReadFile("../../rules/alertmanager.yml")
	require.NoError(t, err)
	route := strings.ReplaceAll(string(shipped), "kernel-gossip-operator.kernel-gossip.svc:8080", strings.TrimPrefix(operator.url, "http://"))
	require.NotEqual(t, string(shipped), route, "the fragment names another address than the operator's Service")
	write("a.rules.yml", "groups:\n  - name: small\n    rules:"+
		fmt.Sprintf(throttleRule, early.Path(), "early")+fmt.Sprintf(throttleRule, late.Path(), "late"))
	for name, args := range map[string][]string{
		build(t, "exporter"): {"--web.listen-address=" + exporter, "--kubernetes=off", "--log.level=error"},
		"prometheus": {"--config.file=" + write("prometheus.yml", fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["*.rules.yml"]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
  - job_name: kernel-gossip-exporter
    static_configs: [{targets: [%q]}]
`, alertmanager, exporter)), "--storage.tsdb.path=" + filepath.Join(dir, "tsdb"), "--web.listen-address=" + prometheus, "--log.level=warn"},
		"prometheus-alertmanager": {"--config.file=" + write("alertmanager.yml", route), "--storage.path=" + filepath.Join(dir, "alertmanager"),
			"--web.listen-address=" + alertmanager, "--cluster.listen-address=", "--log.level=warn"},
	} {
		cmd := launch(t, name, args...)
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
		})
	}
	for _, address := range []string{exporter, prometheus, alertmanager} {
		require.Eventually(t, func() bool { return healthy("http://" + address + "/-/ready") }, time.Minute, 100*time.Millisecond, address)
	}

	get := func(pod string) *v1alpha1.KernelWhisper {
		w := &v1alpha1.KernelWhisper{}
		if b.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: pod + "-kw"}, w) != nil {
			return nil
		}
		return w
	}
	becomes := func(pod string, phase v1alpha1.Phase) *v1alpha1.KernelWhisper {
		t.Helper()
		began := time.Now()
		var w *v1alpha1.KernelWhisper
		// The route's group_interval and a retry lie in between.
		require.Eventually(t, func() bool {
			w = get(pod)
			return w != nil && w.Status.Phase == phase
		}, 3*time.Minute, 200*time.Millisecond, "%s is to be %s", pod, phase)
		t.Logf("%s is %s after %.0f s", pod, phase, time.Since(began).Seconds())
		return w
	}

	require.NoError(t, early.Work())
	w := becomes("early", v1alpha1.Active)
	assert.Equal(t, v1alpha1.Source("alertmanager"), w.Spec.Source)
	assert.Equal(t, "app", w.Spec.ContainerName)
	require.NotNil(t, w.Spec.Evidence.ThrottlePercentage)
	assert.Greater(t, *w.Spec.Evidence.ThrottlePercentage, 25.0)
	require.NotNil(t, w.Spec.Evidence.CPULimitCores)
	assert.Equal(t, 0.1, *w.Spec.Evidence.CPULimitCores)
	require.NotEmpty(t, w.Status.Recommendations)
	assert.Nil(t, get("late"))

	require.NoError(t, b.server.StopAPI())
	early.Rest()
	require.NoError(t, late.Work())
	time.Sleep(outage)
	assert.Positive(t, failedNotifications(t, alertmanager), "Alertmanager is to have tried meanwhile")
	require.NoError(t, b.server.StartAPI(ctx))

	w = becomes("early", v1alpha1.Resolved)
	assert.NotNil(t, w.Status.ResolvedAt)
	becomes("late", v1alpha1.Active)
	late.Rest()
	becomes("late", v1alpha1.Resolved)
}

// failedNotifications is Alertmanager's own count of webhook requests without success.
func failedNotifications(t *testing.T, address string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	failed := 0.0
	for line := range strings.Lines(string(content)) {
		if series, value, _ := strings.Cut(line, "} "); strings.HasPrefix(series, `alertmanager_notification_requests_failed_total{integration="webhook"`) {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(t, err, line)
			failed += v
		}
	}
	return failed
}
