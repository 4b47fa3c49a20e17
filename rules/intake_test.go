package rules_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	promrules "github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// kept is the operator's store for a test.
type kept []signal.Signal

func (k *kept) Accept(_ context.Context, s signal.Signal) error {
	*k = append(*k, s)
	return nil
}

// deliver posts an alert as Alertmanager does (notify/webhook, payload version 4),
// and returns what the operator would store. The rules ran at the epoch, which is no
// time that the operator believes, so the alert starts now.
func deliver(t *testing.T, alert *promrules.Alert) signal.Signal {
	t.Helper()
	type entry struct {
		Status       string            `json:"status"`
		Labels       map[string]string `json:"labels"`
		Annotations  map[string]string `json:"annotations"`
		StartsAt     time.Time         `json:"startsAt"`
		EndsAt       time.Time         `json:"endsAt"`
		GeneratorURL string            `json:"generatorURL"`
		Fingerprint  string            `json:"fingerprint"`
	}
	began := time.Now().Add(-alert.FiredAt.Sub(alert.ActiveAt)).UTC()
	body, err := json.Marshal(map[string]any{
		"version": "4", "status": "firing", "receiver": "kernel-gossip-operator",
		"groupKey": "{}:{}", "externalURL": "http://alertmanager:9093", "truncatedAlerts": 0,
		"groupLabels": map[string]string{}, "commonLabels": alert.Labels.Map(), "commonAnnotations": alert.Annotations.Map(),
		"alerts": []entry{{
			Status: "firing", Labels: alert.Labels.Map(), Annotations: alert.Annotations.Map(), StartsAt: began,
			GeneratorURL: "http://prometheus:9090/graph", Fingerprint: "c1b2a3d4e5f60718",
		}},
	})
	require.NoError(t, err)
	var store kept
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, intake.PathAlertmanager, strings.NewReader(string(body)))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	intake.New(&store, intake.Options{}).Handler().ServeHTTP(answer, request)
	require.Equal(t, http.StatusOK, answer.Code, answer.Body.String())
	require.Len(t, store, 1, "%s: %s", alert.Labels, answer.Body)
	assert.Equal(t, signal.SourceAlertmanager, store[0].Source)
	assert.WithinDuration(t, began, store[0].Observed, time.Second)
	return store[0]
}

// Every alert that the operator is to get carries all that it needs, whichever window it is of.
func TestTheOperatorTakesEveryAlert(t *testing.T) {
	// A container that never rests fires every throttle alert; its neighbour starves.
	const starved = `  kernel_gossip_cpu_usage_seconds_total{namespace="shop",pod="hungry-1",container="app",instance="node-1"} 0+24x400
  kernel_gossip_cpu_runqueue_wait_seconds_sum{namespace="shop",pod="hungry-1",container="app",instance="node-1"} 0+72x400
`
	load := strings.NewReplacer("load 30s", "load 2m", "0+300x200", "0+1200x400", "0+276x200", "0+1104x400", "0+6x200", "0+24x400", "x200", "x400").Replace(liar) + starved
	firing := replayEach(t, load, 2*time.Minute, 12*time.Hour)

	ptr := func(f float64) *float64 { return &f }
	throttle := func(window float64) *signal.CPU {
		return &signal.CPU{
			ThrottlePercent: 92, ActualCores: ptr(0.2), ReportedCores: ptr(0.192), LimitCores: ptr(0.4),
			RecommendedCores: ptr(1.5), ReportedPercent: ptr(48), PeriodSeconds: window,
		}
	}
	want := map[string]*signal.CPU{
		"KernelGossipCPUThrottled": throttle(300), "KernelGossipMetricsLie": throttle(300),
		"KernelGossipMetricsLieBurn/1h": throttle(3600), "KernelGossipMetricsLieBurn/6h": throttle(6 * 3600),
		"KernelGossipMetricsLieBurn/1d": throttle(24 * 3600), "KernelGossipMetricsLieBurn/3d": throttle(72 * 3600),
		"KernelGossipCPUStarved": nil,
	}
	sent := map[string]bool{}
	for key, alert := range firing {
		if alert.Annotations.Get("signal_type") == "" {
			continue // of the exporter's own health: not for the operator
		}
		sent[key] = true
		t.Run(key, func(t *testing.T) {
			cpu, known := want[key]
			require.True(t, known, "an alert for the operator that this test does not expect")
			got := deliver(t, alert)
			assert.Equal(t, "shop", got.Namespace)
			assert.Equal(t, "app", got.Container)
			if cpu == nil {
				assert.Equal(t, signal.CPUStarvation, got.Type)
				assert.Equal(t, "hungry-1", got.Pod)
				assert.InDelta(t, 75, got.Values["runqueue_wait_percent"], 0.1)
				return
			}
			assert.Equal(t, signal.CPUThrottle, got.Type)
			assert.Equal(t, "checkout-1", got.Pod)
			assert.Equal(t, cpu, got.CPU)
		})
	}
	for key := range want {
		assert.True(t, sent[key], "%s did not fire", key)
	}
}

// Off-cluster the container is a cgroup's path, and the alert goes to the whisper that
// the exporter's own events go to.
func TestTheOperatorTakesAlertsOfPlainCgroups(t *testing.T) {
	const path = "/system.slice/nginx.service"
	for instance, node := range map[string]string{"127.0.0.1:9955": "", "node-1": "node-1"} {
		load := strings.NewReplacer(`namespace="shop",pod="checkout-1",container="app"`, `namespace="",pod="",container="`+path+`"`, "node-1", instance).Replace(liar)
		firing := replayEach(t, load, 30*time.Second, 20*time.Minute)
		require.Contains(t, firing, "KernelGossipMetricsLie")
		got := deliver(t, firing["KernelGossipMetricsLie"])
		assert.Equal(t, []string{"kernel-gossip", wire.HostPod(node, path), ""}, []string{got.Namespace, got.Pod, got.Container})
		assert.InDelta(t, 92, got.CPU.ThrottlePercent, 0)
		require.NotNil(t, got.CPU.ReportedPercent)
		assert.InDelta(t, 48, *got.CPU.ReportedPercent, 0)
	}
}
