package operator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// alertmanager is a running Alertmanager with the fragment that we ship.
type alertmanager struct{ url string }

func startAlertmanager(t *testing.T, operatorURL string) *alertmanager {
	t.Helper()
	fragment, err := os.ReadFile("../../rules/alertmanager.yml")
	require.NoError(t, err)
	const shipped = "http://kernel-gossip-operator.kernel-gossip.svc:8080"
	require.Contains(t, string(fragment), shipped)
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	require.NoError(t, os.WriteFile(config, []byte(strings.ReplaceAll(string(fragment), shipped, operatorURL)), 0o644))

	address := freeAddress(t)
	cmd := exec.Command("prometheus-alertmanager", "--config.file="+config, "--storage.path="+filepath.Join(dir, "data"),
		"--cluster.listen-address=", "--web.listen-address="+address, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	a := &alertmanager{"http://" + address}
	require.Eventually(t, func() bool {
		resp, err := http.Get(a.url + "/-/ready")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 30*time.Second, 50*time.Millisecond)
	return a
}

// alert posts to the API that Prometheus posts to. A zero end is an alert that fires.
func (a *alertmanager) alert(t *testing.T, pod string, began, ended time.Time) {
	t.Helper()
	type alert struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
		StartsAt    time.Time         `json:"startsAt"`
		EndsAt      *time.Time        `json:"endsAt,omitempty"`
	}
	one := alert{
		Labels: map[string]string{
			"alertname": "KernelGossipMetricsLie", "severity": "warning", "instance": "node-1:9955",
			"namespace": namespace, "pod": pod, "container": "app",
		},
		Annotations: map[string]string{
			"signal_type": "cpu_throttle", "period_seconds": "300", "throttle_percentage": "92.3",
			"reported_cores": "0.240", "actual_cores": "0.310", "limit_cores": "0.500",
		},
		StartsAt: began,
	}
	if !ended.IsZero() {
		one.EndsAt = &ended
	}
	body, err := json.Marshal([]alert{one})
	require.NoError(t, err)
	resp, err := http.Post(a.url+"/api/v2/alerts", "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// Alertmanager delivers what fires and what is over, and an API server that is away
// for a minute in between costs nothing.
func TestAlertmanagerDelivers(t *testing.T) {
	b := setUp(t)
	o := b.start(t, freeAddress(t))
	am := startAlertmanager(t, o.url)
	phase := func(pod string) string {
		w := &v1alpha1.KernelWhisper{}
		if err := b.api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: pod + "-kw"}, w); err != nil {
			return err.Error()
		}
		return string(w.Status.Phase)
	}
	becomes := func(pod, want string, within time.Duration) {
		t.Helper()
		began := time.Now()
		require.Eventually(t, func() bool { return phase(pod) == want }, within, 100*time.Millisecond, "%s is %s", pod, phase(pod))
		t.Logf("%s is %s after %s", pod, want, time.Since(began).Round(100*time.Millisecond))
	}
	// Prometheus repeats an alert while it fires; so does this.
	began := time.Now()
	am.alert(t, "before", began, time.Time{})
	becomes("before", "Active", 30*time.Second)
	w := &v1alpha1.KernelWhisper{}
	require.NoError(t, b.api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "before-kw"}, w))
	assert.Equal(t, "alertmanager", string(w.Spec.Source))
	assert.Contains(t, w.Spec.Insights, "Metrics show 48% usage, kernel shows 92% throttled")

	require.NoError(t, b.server.StopAPI())
	stopped := time.Now()
	am.alert(t, "during", time.Now(), time.Time{})
	am.alert(t, "before", began, time.Now()) // over, while nobody can write it down
	away := time.NewTimer(time.Minute)
	defer away.Stop()
	select {
	case <-away.C:
	case <-t.Context().Done():
		t.Fatal("ended while the API server was away")
	}
	failed := failedNotifications(t, am.url)
	require.NoError(t, b.server.StartAPI(t.Context()))
	t.Logf("the API server was away for %s; Alertmanager counts %v failed requests", time.Since(stopped).Round(time.Second), failed)
	assert.Positive(t, failed, "Alertmanager tried meanwhile")

	becomes("during", "Active", 90*time.Second)
	becomes("before", "Resolved", 90*time.Second)
	am.alert(t, "during", stopped, time.Now())
	becomes("during", "Resolved", 90*time.Second)
}

// failedNotifications is Alertmanager's own count of webhook requests without success.
func failedNotifications(t *testing.T, url string) float64 {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	require.NoError(t, err)
	var failed, v float64
	for line := range strings.Lines(b.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if strings.HasPrefix(name, `alertmanager_notification_requests_failed_total{integration="webhook"`) {
			_, err := fmt.Sscan(value, &v)
			require.NoError(t, err, line)
			failed += v
		}
	}
	return failed
}
