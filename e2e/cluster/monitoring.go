package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
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
		Prometheus: newProcess(c.Logs, "prometheus", "prometheus", nil, "--config.file="+prometheusConfig,
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
		err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			return get(ctx, url+"/-/ready", nil) == nil, nil
		})
		if err != nil {
			return nil, c.explain(fmt.Errorf("%s is not ready: %w", p.Name, err), p)
		}
	}
	c.Say("Prometheus and Alertmanager ready")
	return m, nil
}

// Query asks Prometheus for the present value of an instant vector.
func (m *Monitoring) Query(ctx context.Context, q string) (model.Vector, error) {
	v, _, _, err := m.API.Query(ctx, q, time.Now())
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", q, err)
	}
	vec, ok := v.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("query %s: a %s, not a vector", q, v.Type())
	}
	return vec, nil
}

// Alert is what Alertmanager's API v2 tells of an alert.
type Alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Status      struct {
		State       string   `json:"state"`
		InhibitedBy []string `json:"inhibitedBy"`
	} `json:"status"`
}

// Alerts lists what Alertmanager holds.
func (m *Monitoring) Alerts(ctx context.Context) ([]Alert, error) {
	var alerts []Alert
	return alerts, get(ctx, AlertmanagerURL+"/api/v2/alerts", &alerts)
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
