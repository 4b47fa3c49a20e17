package reported

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
)

// metricsInterval is the default: the API server's aggregate is dearer than the
// node's own kubelet.
const metricsInterval = 30 * time.Second

// MetricsAPIConfig says how to ask metrics.k8s.io.
type MetricsAPIConfig struct {
	// REST is any client of the API server, such as clientset.CoreV1().RESTClient().
	REST rest.Interface
	// Namespaces that have pods on this node: only these are asked for. The API
	// has no selector for a node.
	Namespaces func() []string
	// Interval between polls (default 30 s), Timeout of one (default 10 s).
	Interval, Timeout time.Duration
	// MaxBodyBytes of one namespace's answer (default 16 MiB).
	MaxBodyBytes int64
	Log          *slog.Logger
}

// MetricsAPI reads PodMetrics (metrics.k8s.io/v1beta1), the very object that
// `kubectl top` prints. It is exact and dear: each exporter asks for whole
// namespaces. Kubelet is the source for every day.
type MetricsAPI struct {
	cfg   MetricsAPIConfig
	polls *poller
	now   func() time.Time

	mu      sync.RWMutex
	usages  map[target]Usage
	success time.Time
}

var (
	_ Source               = (*MetricsAPI)(nil)
	_ prometheus.Collector = (*MetricsAPI)(nil)
)

// NewMetricsAPI checks cfg; it does not call the API yet.
func NewMetricsAPI(cfg MetricsAPIConfig) (*MetricsAPI, error) {
	if cfg.REST == nil || cfg.Namespaces == nil {
		return nil, errors.New("metrics API: needs a cluster (REST client and namespaces)")
	}
	if cfg.Interval == 0 {
		cfg.Interval = metricsInterval
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxBodyBytes == 0 {
		cfg.MaxBodyBytes = defaultMaxBody
	}
	if cfg.Interval < time.Second || cfg.Timeout <= 0 || cfg.MaxBodyBytes < 0 {
		return nil, fmt.Errorf("metrics API: interval %s (at least 1s), timeout %s and body limit %d must be positive", cfg.Interval, cfg.Timeout, cfg.MaxBodyBytes)
	}
	return &MetricsAPI{
		cfg:    cfg,
		polls:  newPoller(SourceMetrics, cfg.Log.With("component", "reported", "source", SourceMetrics)),
		now:    time.Now,
		usages: map[target]Usage{},
	}, nil
}

// Name is SourceMetrics.
func (m *MetricsAPI) Name() string { return SourceMetrics }

// Usage looks key's namespace, pod and container up.
func (m *MetricsAPI) Usage(key Key) (Usage, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.success.IsZero() || m.now().Sub(m.success) > maxSilence*m.cfg.Interval {
		return Usage{}, false
	}
	u, ok := m.usages[target{key.Namespace, key.Pod, key.Container}]
	return u, ok
}

// Run polls at once and then each interval until ctx ends.
func (m *MetricsAPI) Run(ctx context.Context) error { return m.polls.run(ctx, m.cfg.Interval, m.poll) }

// Describe implements prometheus.Collector.
func (m *MetricsAPI) Describe(ch chan<- *prometheus.Desc) { m.polls.Describe(ch) }

// Collect implements prometheus.Collector.
func (m *MetricsAPI) Collect(ch chan<- prometheus.Metric) { m.polls.Collect(ch) }

func (m *MetricsAPI) poll(ctx context.Context) error {
	usages := map[target]Usage{}
	for _, ns := range m.cfg.Namespaces() {
		if err := m.pollNamespace(ctx, ns, usages); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.usages, m.success = usages, m.now()
	return nil
}

func (m *MetricsAPI) pollNamespace(ctx context.Context, ns string, into map[target]Usage) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	stream, err := m.cfg.REST.Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/" + url.PathEscape(ns) + "/pods").Stream(ctx)
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return pollError{"denied", fmt.Errorf(
			`not allowed to read metrics.k8s.io: grant the service account the verb "list" on resource "pods" of API group "metrics.k8s.io": %w`, err)}
	case apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err):
		return pollError{"status", fmt.Errorf("the cluster does not serve metrics.k8s.io: is metrics-server running? %w", err)}
	case err != nil:
		return pollError{"request", fmt.Errorf("asking metrics.k8s.io for namespace %q: %w", ns, err)}
	}
	defer func() { _ = stream.Close() }()
	body := &limited{r: io.LimitReader(stream, m.cfg.MaxBodyBytes+1), max: m.cfg.MaxBodyBytes}
	bad, err := parsePodMetrics(body, into)
	m.polls.invalid.Add(float64(bad))
	switch {
	case errors.Is(body.err, errTooLarge):
		return pollError{"too_large", fmt.Errorf("the answer of metrics.k8s.io for namespace %q is over %d bytes", ns, m.cfg.MaxBodyBytes)}
	case body.err != nil:
		return pollError{"request", fmt.Errorf("reading the answer of metrics.k8s.io for namespace %q: %w", ns, body.err)}
	case err != nil:
		return pollError{"parse", fmt.Errorf("parsing the answer of metrics.k8s.io for namespace %q: %w", ns, err)}
	}
	return nil
}

// podMetricsList is what is read of k8s.io/metrics' PodMetricsList.
type podMetricsList struct {
	Items []struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
		Timestamp  time.Time `json:"timestamp"`
		Window     string    `json:"window"`
		Containers []struct {
			Name  string            `json:"name"`
			Usage map[string]string `json:"usage"`
		} `json:"containers"`
	} `json:"items"`
}

func parsePodMetrics(r io.Reader, into map[target]Usage) (bad int, err error) {
	var list podMetricsList
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return 0, err
	}
	for _, item := range list.Items {
		window, err := time.ParseDuration(item.Window)
		if err != nil || window <= 0 || item.Timestamp.IsZero() || item.Metadata.Name == "" || item.Metadata.Namespace == "" {
			bad++
			continue
		}
		for _, c := range item.Containers {
			q, err := resource.ParseQuantity(c.Usage["cpu"])
			v := q.AsApproximateFloat64()
			if err != nil || c.Name == "" || !plausible(v) {
				bad++
				continue
			}
			memory, told := c.Usage["memory"]
			var held *float64
			if told {
				q, err := resource.ParseQuantity(memory)
				if v := q.AsApproximateFloat64(); err == nil && v >= 0 && v <= maxBytes {
					held = &v
				} else {
					bad++
				}
			}
			into[target{item.Metadata.Namespace, item.Metadata.Name, c.Name}] = Usage{
				Source: SourceMetrics, Cores: v, MemoryBytes: held, At: item.Timestamp, Window: window,
			}
		}
	}
	return bad, nil
}
