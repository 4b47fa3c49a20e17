package rules_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	promrules "github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// replay loads series and evaluates the shipped rule files over them in
// Prometheus's own rule manager, once every step until end. It returns the
// alerts that fire at the end, by alert name and severity.
func replay(t *testing.T, load string, step, end time.Duration) map[string]*promrules.Alert {
	t.Helper()
	return replayBy(t, load, step, end, func(alert *promrules.Alert) string {
		return alert.Labels.Get("alertname") + "/" + alert.Labels.Get("severity")
	})
}

// replayEach is replay by alert name, and window where the alert has one.
func replayEach(t *testing.T, load string, step, end time.Duration) map[string]*promrules.Alert {
	t.Helper()
	return replayBy(t, load, step, end, func(alert *promrules.Alert) string {
		return strings.TrimSuffix(alert.Labels.Get("alertname")+"/"+alert.Labels.Get("window"), "/")
	})
}

func replayBy(t *testing.T, load string, step, end time.Duration, by func(*promrules.Alert) string) map[string]*promrules.Alert {
	t.Helper()
	storage := promqltest.LoadedStorage(t, load, func(o *tsdb.Options) {
		// Records are written at times from before the last sample that was loaded.
		o.MinBlockDuration = (30 * 24 * time.Hour).Milliseconds()
		o.MaxBlockDuration = o.MinBlockDuration
	})
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6)
	firing := map[string]*promrules.Alert{}
	manager := promrules.NewManager(&promrules.ManagerOptions{
		ExternalURL:  &url.URL{Scheme: "http", Host: "prometheus"},
		QueryFunc:    promrules.EngineQueryFunc(engine, storage),
		AppendableV2: storage,
		Queryable:    storage,
		Context:      t.Context(),
		Parser:       parser.NewParser(parser.Options{}),
		NotifyFunc: func(_ context.Context, _ string, alerts ...*promrules.Alert) {
			for _, alert := range alerts {
				key := by(alert)
				if alert.State == promrules.StateFiring {
					firing[key] = alert
				} else {
					delete(firing, key)
				}
			}
		},
	})
	groups, errs := manager.LoadGroups(step, labels.EmptyLabels(), "", nil, false,
		"kernel-gossip-cpu.rules.yml", "kernel-gossip-memory.rules.yml", "kernel-gossip-network.rules.yml", "kernel-gossip-security.rules.yml", "kernel-gossip-exporter.rules.yml")
	require.Empty(t, errs)
	for at := time.Unix(0, 0); !at.After(time.Unix(0, 0).Add(end)); at = at.Add(step) {
		for _, group := range groups {
			group.Eval(t.Context(), at)
			for _, rule := range group.Rules() {
				require.NoError(t, rule.LastError(), "%s at %s", rule.Name(), at)
			}
		}
	}
	return firing
}

// The talk's container: 92 % throttled, reported at 48 % of its limit.
const liar = `load 30s
  kernel_gossip_exporter_build_info{job="kernel-gossip",instance="node-1"} 1x200
  kernel_gossip_cpu_periods_total{namespace="shop",pod="checkout-1",container="app",instance="node-1"} 0+300x200
  kernel_gossip_cpu_throttled_periods_total{namespace="shop",pod="checkout-1",container="app",instance="node-1"} 0+276x200
  kernel_gossip_cpu_usage_seconds_total{namespace="shop",pod="checkout-1",container="app",instance="node-1"} 0+6x200
  kernel_gossip_cpu_limit_cores{namespace="shop",pod="checkout-1",container="app",instance="node-1"} 0.4x200
  kernel_gossip_cpu_reported_cores{namespace="shop",pod="checkout-1",container="app",instance="node-1",source="kubelet"} 0.192x200
  kernel_gossip_cpu_recommended_limit_cores{namespace="shop",pod="checkout-1",container="app",instance="node-1"} 1.5x200
`

func TestLyingMetricsFireWithTheirEvidence(t *testing.T) {
	firing := replay(t, liar+`  kernel_gossip_cpu_runqueue_wait_seconds{namespace="shop",pod="checkout-1",container="app",instance="node-1"} {{schema:0 count:0 sum:0 buckets:[0]}}+{{schema:0 count:15 sum:1.5 buckets:[15]}}x200
`, 30*time.Second, 20*time.Minute)

	require.Contains(t, firing, "KernelGossipMetricsLie/warning")
	alert := firing["KernelGossipMetricsLie/warning"]
	assert.Equal(t, labels.FromStrings("alertname", "KernelGossipMetricsLie", "severity", "warning",
		"namespace", "shop", "pod", "checkout-1", "container", "app", "instance", "node-1"), alert.Labels)
	for name, want := range map[string]string{
		"signal_type":               "cpu_throttle",
		"period_seconds":            "300",
		"throttle_percentage":       "92.0",
		"reported_cores":            "0.192",
		"actual_cores":              "0.200",
		"limit_cores":               "0.400",
		"reported_percent_of_limit": "48.0",
		"recommended_limit_cores":   "1.500",
		// 0.05 s of waiting beside 0.2 s of running each second, by the native histogram.
		"runqueue_wait_percent": "20.0",
		"summary":               "Metrics call app healthy; the kernel throttles it in 92% of its periods.",
	} {
		assert.Equal(t, want, alert.Annotations.Get(name), name)
	}
	assert.Contains(t, firing, "KernelGossipCPUThrottled/info")
	assert.Contains(t, firing, "KernelGossipMetricsLieBurn/critical")
	assert.NotContains(t, firing, "KernelGossipCPUStarved/warning")
	assert.NotContains(t, firing, "KernelGossipExporterAbsent/warning")
}

// A text scrape has _sum and _count where a protobuf scrape has one native
// histogram; a server that keeps both must not count the wait twice.
func TestRunqueueWaitByNativeHistogramAndByClassicSum(t *testing.T) {
	const (
		base = `load 30s
  kernel_gossip_exporter_build_info 1x60
  kernel_gossip_cpu_usage_seconds_total{pod="p"} 0+6x60
`
		native  = `  kernel_gossip_cpu_runqueue_wait_seconds{pod="p"} {{schema:0 count:0 sum:0 buckets:[0]}}+{{schema:0 count:90 sum:9 buckets:[90]}}x60` + "\n"
		classic = `  kernel_gossip_cpu_runqueue_wait_seconds_sum{pod="p"} 0+9x60` + "\n"
	)
	for name, load := range map[string]string{
		"native": base + native, "classic": base + classic, "both": base + native + classic,
	} {
		t.Run(name, func(t *testing.T) {
			firing := replay(t, load, 30*time.Second, 20*time.Minute)
			require.Contains(t, firing, "KernelGossipCPUStarved/warning")
			assert.Equal(t, "60.0", firing["KernelGossipCPUStarved/warning"].Annotations.Get("runqueue_wait_percent"))
		})
	}
	t.Run("neither", func(t *testing.T) {
		assert.Empty(t, replay(t, base, 30*time.Second, 20*time.Minute))
	})
}

func TestHealthyAndTinyContainersStayQuiet(t *testing.T) {
	// Fifty containers that wake once a scrape, use next to nothing and are
	// throttled in each of the three periods that they touch; and a busy one that
	// is never throttled.
	var load strings.Builder
	load.WriteString("load 15s\n  kernel_gossip_exporter_build_info 1x400\n")
	for i := range 50 {
		id := string(rune('a'+i/10)) + string(rune('0'+i%10))
		load.WriteString(strings.ReplaceAll(`  kernel_gossip_cpu_periods_total{pod="tiny-ID"} 0+3x400
  kernel_gossip_cpu_throttled_periods_total{pod="tiny-ID"} 0+3x400
  kernel_gossip_cpu_usage_seconds_total{pod="tiny-ID"} 0+0.3x400
  kernel_gossip_cpu_limit_cores{pod="tiny-ID"} 0.5x400
  kernel_gossip_cpu_reported_cores{pod="tiny-ID",source="kubelet"} 0.02x400
`, "ID", id))
	}
	load.WriteString(`  kernel_gossip_cpu_periods_total{pod="busy"} 0+150x400
  kernel_gossip_cpu_throttled_periods_total{pod="busy"} 0x400
  kernel_gossip_cpu_usage_seconds_total{pod="busy"} 0+14x400
  kernel_gossip_cpu_limit_cores{pod="busy"} 1x400
  kernel_gossip_cpu_reported_cores{pod="busy",source="kubelet"} 0.5x400
`)
	assert.Empty(t, replay(t, load.String(), time.Minute, 80*time.Minute))
}

// A counter that starts again, as after the container restarts, is not a burst.
func TestCounterResetIsNoThrottling(t *testing.T) {
	firing := replay(t, `load 30s
  kernel_gossip_exporter_build_info 1x60
  kernel_gossip_cpu_periods_total{pod="p"} 900000+300x20 0+300x40
  kernel_gossip_cpu_throttled_periods_total{pod="p"} 800000+30x20 0+30x40
`, 30*time.Second, 25*time.Minute)
	assert.Empty(t, firing)
}
