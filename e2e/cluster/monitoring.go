package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// The addresses of the monitoring, in the bed's network namespace.
const (
	PrometheusURL   = "http://127.0.0.1:9090"
	AlertmanagerURL = "http://127.0.0.1:9093"
)

// Monitoring is a Prometheus and an Alertmanager that watch the cluster.
type Monitoring struct {
	Prometheus, Alertmanager *Process
	API                      promv1.API
}

// StartMonitoring starts both with the given configuration files, which may use
// relative paths for the files beside them.
func (c *Cluster) StartMonitoring(ctx context.Context, prometheusConfig, alertmanagerConfig string) (*Monitoring, error) {
	client, err := api.NewClient(api.Config{Address: PrometheusURL})
	if err != nil {
		return nil, err
	}
	m := &Monitoring{
		Alertmanager: newProcess(c.Logs, "alertmanager", "prometheus-alertmanager", nil, "--config.file="+alertmanagerConfig,
			"--storage.path="+c.path("alertmanager"), "--cluster.listen-address=", "--web.listen-address=127.0.0.1:9093"),
		Prometheus: newProcess(c.Logs, "prometheus", filepath.Join(c.bin.Prometheus, "prometheus"), []string{"KUBERNETES_SERVICE_HOST=" + apiIP, "KUBERNETES_SERVICE_PORT=443"}, "--config.file="+prometheusConfig,
			"--storage.tsdb.path="+c.path("tsdb"), "--web.listen-address=127.0.0.1:9090", "--enable-feature=native-histograms"),
		API: promv1.NewAPI(client),
	}
	for _, p := range []*Process{m.Alertmanager, m.Prometheus} {
		if err := p.Start(); err != nil {
			return nil, err
		}
		c.stops = append(c.stops, func() { _ = p.Kill() })
	}
	for p, url := range map[*Process]string{m.Alertmanager: AlertmanagerURL, m.Prometheus: PrometheusURL} {
		err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
			return get(ctx, url+"/-/ready", nil) == nil, nil
		})
		if err != nil {
			return nil, c.explain(fmt.Errorf("%s is not ready: %w", p.Name, err), p)
		}
	}
	c.Say("Prometheus and Alertmanager ready")
	return m, nil
}

// PrometheusAccount gives Prometheus what it has in a cluster: a service account with
// the rights of the given manifest, which names monitoring/prometheus.
func (c *Cluster) PrometheusAccount(ctx context.Context, rbac string) error {
	for _, args := range [][]string{
		{"create", "namespace", "monitoring"},
		{"-n", "monitoring", "create", "serviceaccount", "prometheus"},
		{"apply", "-f", rbac},
	} {
		if _, err := c.Kubectl(ctx, "", args...); err != nil {
			return err
		}
	}
	token, err := c.Kubectl(ctx, "", "-n", "monitoring", "create", "token", "prometheus")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	const dir = "/run/secrets/kubernetes.io/serviceaccount" // /run is the bed's own; /var/run leads there
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "token"), []byte(strings.TrimSpace(token)), 0o600),
		os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644))
}

func get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// WriteFile writes a file of the bed and returns its path.
func (c *Cluster) WriteFile(name, body string) (string, error) {
	path := c.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(body), 0o644)
}
