package scenario

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// labels name a container.
type labels struct{ namespace, pod, container string }

// scrape is one reading of an exporter's or the kubelet's metrics page.
type scrape struct {
	at       time.Time // of the exporter's sample
	families map[string]*dto.MetricFamily
	series   int
}

// scrape reads the exporter's page through the API server, as kubectl proxy would.
func (e *Env) scrape(ctx context.Context) (*scrape, error) {
	pods, err := e.exporters(ctx)
	if err != nil {
		return nil, err
	}
	last := fmt.Errorf("no exporter runs on node %s", e.NodeName)
	for _, p := range pods {
		var body []byte
		if body, last = e.Set.CoreV1().Pods(Nodes).ProxyGet("http", p.Name, "9955", "/metrics", nil).DoRaw(ctx); last != nil {
			continue
		}
		s, err := parse(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("reading the exporter's metrics: %w", err)
		}
		at := s.single("kernel_gossip_exporter_last_sample_timestamp_seconds")
		s.at = time.UnixMicro(int64(at * 1e6))
		return s, nil
	}
	return nil, fmt.Errorf("scraping the exporter: %w", last)
}

// cadvisor reads the kubelet's /metrics/cadvisor.
func (e *Env) cadvisor(ctx context.Context) (*scrape, error) {
	body, err := e.Set.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes", e.NodeName, "proxy/metrics/cadvisor").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet's cAdvisor: %w", err)
	}
	return parse(bytes.NewReader(body))
}

func parse(r io.Reader) (*scrape, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, err
	}
	s := &scrape{families: families}
	for _, f := range families {
		s.series += len(f.GetMetric())
	}
	return s, nil
}

// value is a container's counter or gauge.
func (s *scrape) value(family string, key labels, extra ...string) (float64, bool) {
	m := s.metric(family, key, extra...)
	if m == nil {
		return 0, false
	}
	return number(m), true
}

// metric finds a container's series; extra are names and values of more labels.
func (s *scrape) metric(family string, key labels, extra ...string) *dto.Metric {
	for _, m := range s.families[family].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		matches := (labels{have["namespace"], have["pod"], have["container"]}) == key
		for pair := range slices.Chunk(extra, 2) {
			matches = matches && have[pair[0]] == pair[1]
		}
		if matches {
			return m
		}
	}
	return nil
}

func number(m *dto.Metric) float64 {
	if m.Gauge != nil {
		return m.Gauge.GetValue()
	}
	return m.Counter.GetValue()
}

// single is the value of a family with one series; 0 when there is none.
func (s *scrape) single(family string) float64 {
	if m := s.families[family].GetMetric(); len(m) > 0 {
		return number(m[0])
	}
	return 0
}
