package reported

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	defaultTimeout = 10 * time.Second
	// defaultMaxBody holds a node of 500 pods many times over (about 1 KiB a container).
	defaultMaxBody  = 16 << 20
	kubeletPort     = 10250
	kubeletPath     = "/metrics/resource"
	repeatPollError = 5 * time.Minute
)

// KubeletConfig says which kubelet to ask, and how.
type KubeletConfig struct {
	// URL of the kubelet without a path, such as https://10.0.0.7:10250. Empty: ask Resolve.
	URL string
	// Resolve finds the URL when none is given; it is asked again after a failure. See NodeURL.
	Resolve func(ctx context.Context) (string, error)
	// TokenFile holds the bearer token; it is read for every request. Empty: none is sent.
	TokenFile string
	// CAFile verifies the kubelet's serving certificate (re-read when it changes);
	// empty: the system's roots. InsecureSkipVerify turns verification off.
	CAFile             string
	InsecureSkipVerify bool
	// Interval between polls (default 15 s, metrics-server's), Timeout of one (default 10 s).
	Interval, Timeout time.Duration
	// MaxBodyBytes of an answer (default 16 MiB); compression is not asked for.
	MaxBodyBytes int64
	Log          *slog.Logger
}

// Kubelet polls the node's own kubelet at /metrics/resource, the endpoint that
// metrics-server reads, and differences two cumulative points by metrics-server's
// rules (pkg/storage), so that its figure is the one `kubectl top` shows, up to
// the phase of the two polls. /stats/summary's usageNanoCores is not that figure:
// it is the kubelet's own rate over its last housekeeping interval.
//
// Two things differ on purpose. metrics-server shows nothing for a pod until it
// has a figure for each of its containers; here each container stands alone. And
// it forgets a node whose poll failed; here the last figure stays for four
// intervals, and its At tells its age.
type Kubelet struct {
	cfg    KubeletConfig
	log    *slog.Logger
	client *http.Client
	now    func() time.Time
	polls  *poller

	base string // the URL that Resolve gave; Run's own

	mu      sync.RWMutex
	window  *windows
	success time.Time
}

var (
	_ Source               = (*Kubelet)(nil)
	_ prometheus.Collector = (*Kubelet)(nil)
)

// NewKubelet checks cfg; it does not call the kubelet yet.
func NewKubelet(cfg KubeletConfig) (*Kubelet, error) {
	if cfg.URL == "" && cfg.Resolve == nil {
		return nil, errors.New("kubelet: no URL and no way to find one: pass --kubelet.url")
	}
	if cfg.URL != "" {
		u, err := url.Parse(cfg.URL)
		if err != nil {
			return nil, fmt.Errorf("kubelet: --kubelet.url: %w", err)
		}
		if u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return nil, fmt.Errorf("kubelet: --kubelet.url %q is not of the form https://host:port", u.Redacted())
		}
	}
	if cfg.Interval == 0 {
		cfg.Interval = Resolution
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = min(defaultTimeout, cfg.Interval)
	}
	if cfg.MaxBodyBytes == 0 {
		cfg.MaxBodyBytes = defaultMaxBody
	}
	if cfg.Interval < time.Second || cfg.Timeout <= 0 || cfg.MaxBodyBytes < 0 {
		return nil, fmt.Errorf("kubelet: interval %s (at least 1s), timeout %s and body limit %d must be positive", cfg.Interval, cfg.Timeout, cfg.MaxBodyBytes)
	}
	hc := promconfig.HTTPClientConfig{
		TLSConfig:   promconfig.TLSConfig{CAFile: cfg.CAFile, InsecureSkipVerify: cfg.InsecureSkipVerify},
		EnableHTTP2: true,
		// A redirect would carry the token elsewhere.
		FollowRedirects: false,
	}
	if cfg.TokenFile != "" {
		hc.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: cfg.TokenFile}
	}
	client, err := promconfig.NewClientFromConfig(hc, "kubelet", promconfig.WithUserAgent("kernel-gossip-exporter"))
	if err != nil {
		return nil, fmt.Errorf("kubelet: setting up the HTTP client: %w", err)
	}
	log := cfg.Log.With("component", "reported", "source", SourceKubelet)
	return &Kubelet{
		cfg:    cfg,
		log:    log,
		client: client,
		now:    time.Now,
		polls:  newPoller(SourceKubelet, log),
		window: newWindows(cfg.Interval),
	}, nil
}

// Nodes looks a node up.
type Nodes interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Node, error)
}

// NodeURL finds a kubelet's URL in its Node's status, as metrics-server's manifests
// do: InternalIP, then ExternalIP, then Hostname, at the port the node tells. It
// needs the verb get on nodes.
func NodeURL(nodes Nodes, nodeName string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		node, err := nodes.Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("looking up the kubelet's address in node %q (needs the verb get on nodes; or pass --kubelet.url): %w", nodeName, err)
		}
		port := kubeletPort
		if p := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port); p != 0 {
			port = p
		}
		for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName} {
			for _, a := range node.Status.Addresses {
				if a.Type == kind && a.Address != "" {
					return "https://" + net.JoinHostPort(a.Address, strconv.Itoa(port)), nil
				}
			}
		}
		return "", fmt.Errorf("node %q has no address in its status: pass --kubelet.url", nodeName)
	}
}

// Name is SourceKubelet.
func (k *Kubelet) Name() string { return SourceKubelet }

// Usage looks key's namespace, pod and container up; the kubelet's metrics carry no UID.
func (k *Kubelet) Usage(key Key) (Usage, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.success.IsZero() || k.now().Sub(k.success) > maxSilence*k.cfg.Interval {
		return Usage{}, false
	}
	u, ok := k.window.usage(target{key.Namespace, key.Pod, key.Container})
	u.Source = SourceKubelet
	return u, ok
}

// Run polls at once and then each interval until ctx ends.
func (k *Kubelet) Run(ctx context.Context) error {
	return k.polls.run(ctx, k.cfg.Interval, k.poll)
}

// Check polls once and says what is wrong. It is not to be called beside Run.
func (k *Kubelet) Check(ctx context.Context) error { return k.poll(ctx) }

// Describe implements prometheus.Collector.
func (k *Kubelet) Describe(ch chan<- *prometheus.Desc) { k.polls.Describe(ch) }

// Collect implements prometheus.Collector.
func (k *Kubelet) Collect(ch chan<- prometheus.Metric) { k.polls.Collect(ch) }

func (k *Kubelet) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	base := k.cfg.URL
	if base == "" {
		if k.base == "" {
			found, err := k.cfg.Resolve(ctx)
			if err != nil {
				return pollError{"resolve", err}
			}
			k.base = found
		}
		base = k.base
	}
	points, err := k.fetch(ctx, strings.TrimSuffix(base, "/")+kubeletPath)
	if err != nil {
		k.base = "" // the node may have another address by now
		return err
	}
	now := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.success = now
	k.window.store(points)
	return nil
}

func (k *Kubelet) fetch(ctx context.Context, from string) (map[target]sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, pollError{"request", err}
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	asked := k.now()
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, pollError{"request", fmt.Errorf("asking the kubelet: %w", err)}
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return nil, pollError{"denied", fmt.Errorf(
			"the kubelet answers %s to %s: grant the service account the verb get on nodes/metrics", resp.Status, req.URL.Redacted())}
	case resp.StatusCode != http.StatusOK:
		return nil, pollError{"status", fmt.Errorf("the kubelet answers %s to %s", resp.Status, req.URL.Redacted())}
	}
	body := &limited{r: io.LimitReader(resp.Body, k.cfg.MaxBodyBytes+1), max: k.cfg.MaxBodyBytes}
	points, bad, err := parseResource(body, asked)
	switch {
	case errors.Is(body.err, errTooLarge):
		return nil, pollError{"too_large", fmt.Errorf("the kubelet's answer is over %d bytes", k.cfg.MaxBodyBytes)}
	case body.err != nil:
		return nil, pollError{"request", fmt.Errorf("reading the kubelet's answer: %w", body.err)}
	case err != nil:
		return nil, pollError{"parse", fmt.Errorf("parsing the kubelet's answer: %w", err)}
	}
	k.polls.invalid.Add(float64(bad))
	return points, nil
}

// jitter spreads a duration by up to a tenth, so that the nodes of a cluster do not ask in step.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}
