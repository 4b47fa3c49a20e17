package intake

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func TestNotification(t *testing.T) {
	body, err := os.ReadFile("testdata/alertmanager.json")
	require.NoError(t, err)
	b := newBed(Options{})
	code, answer := b.post(t, PathAlertmanager, string(body))
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "6 alerts: 4 stored, 1 invalid, 0 over the cap, 1 ignored", answer.Message)
	assert.Equal(t, []signal.Signal{
		{
			Type: signal.CPUStarvation, Source: signal.SourceAlertmanager, Namespace: "shop", Pod: "batch-1", Container: "worker",
			Observed: time.Date(2026, 3, 1, 11, 30, 0, 0, time.UTC), Values: map[string]float64{"runqueue_wait_percent": 63.5, "summary": 1},
		},
		{
			Type: signal.CPUThrottle, Source: signal.SourceAlertmanager, Namespace: "shop", Pod: "cart-7d9f-x2x", Container: "app",
			Observed: time.Date(2026, 3, 1, 11, 50, 0, 123e6, time.UTC),
			CPU: &signal.CPU{ThrottlePercent: 92.3, ActualCores: ptr(0.512), ReportedCores: ptr(0.48), LimitCores: ptr(1.0),
				ReportedPercent: ptr(48.0), PeriodSeconds: 300},
		},
		{
			Type: signal.CPUThrottle, Source: signal.SourceAlertmanager, Namespace: "shop", Pod: "web-0",
			Observed: time.Date(2026, 3, 1, 11, 58, 0, 0, time.UTC), Resolved: true,
		},
	}, b.byPod())
	for result, n := range map[string]float64{"stored": 4, "invalid": 1, "ignored": 1, "failed": 0} {
		assert.InDelta(t, n, b.count(t, eventsTotal, "door=alertmanager", "result="+result), 0, result)
	}
	assert.InDelta(t, 3, b.count(t, "kernel_gossip_operator_intake_truncated_alerts_total"), 0)
	assert.Contains(t, b.log.String(), `alerts[4].namespace: \"../etc\" is not a valid name`)
	assert.Contains(t, b.log.String(), `"truncated":3`)
}

func alert(status, labels, annotations, times string) string {
	return fmt.Sprintf(`{"status":%q,"labels":{%s},"annotations":{%s},%s}`, status, labels, annotations, times)
}

const (
	ours    = `"alertname":"KernelGossipMetricsLie","namespace":"shop","pod":"web","container":"app"`
	figure  = `"throttle_percentage":"50"`
	started = `"startsAt":"2026-03-01T11:30:00Z","endsAt":"0001-01-01T00:00:00Z"`
)

func TestAlerts(t *testing.T) {
	for name, c := range map[string]struct {
		alert  string
		result string
		says   string // in the log
		check  func(*testing.T, signal.Signal)
	}{
		"by its name": {alert: alert("firing", ours, figure, started), result: "stored"},
		"by annotation": {alert: alert("firing", `"alertname":"X","namespace":"a","pod":"b"`, `"signal_type":"memory_pressure","oom_kills":"3","summary":"3 kills"`, started), result: "stored",
			check: func(t *testing.T, s signal.Signal) {
				assert.Equal(t, signal.MemoryPressure, s.Type)
				assert.Equal(t, map[string]float64{"oom_kills": 3}, s.Values)
			}},
		"by label": {alert: alert("firing", `"alertname":"X","signal":"cpu_throttle","namespace":"a","pod":"b","uid":"12ab","node":"n1"`, figure, started), result: "stored",
			check: func(t *testing.T, s signal.Signal) {
				assert.Equal(t, []string{"12ab", "n1", ""}, []string{s.PodUID, s.Node, s.Container})
			}},
		"a ratio of rates a little over 1": {alert: alert("firing", ours, `"throttle_percentage":"100.2"`, started), result: "stored",
			check: func(t *testing.T, s signal.Signal) { assert.InDelta(t, 100, s.CPU.ThrottlePercent, 0) }},
		"resolved, without its end": {alert: alert("resolved", ours, `"throttle_percentage":"over"`, `"endsAt":"0001-01-01T00:00:00Z"`), result: "stored",
			check: func(t *testing.T, s signal.Signal) { assert.Equal(t, now, s.Observed); assert.True(t, s.Resolved) }},

		"a cgroup of no pod, scraped at an address": {alert: alert("firing", `"alertname":"KernelGossipMetricsLie","container":"/batch","namespace":"","pod":"","instance":"127.0.0.1:9955"`, figure, started), result: "stored",
			check: func(t *testing.T, s signal.Signal) {
				assert.Equal(t, []string{"own", "batch", ""}, []string{s.Namespace, s.Pod, s.Container})
			}},
		"a cgroup of no pod, on a named node": {alert: alert("firing", `"alertname":"KernelGossipMetricsLie","container":"/system.slice/x.service","instance":"node-1"`, figure, started), result: "stored",
			check: func(t *testing.T, s signal.Signal) {
				assert.Equal(t, []string{"own", wire.HostPod("node-1", "/system.slice/x.service"), ""}, []string{s.Namespace, s.Pod, s.Container})
			}},

		"of another team":             {alert: alert("firing", `"alertname":"CPUHigh","namespace":"a","pod":"b"`, figure, started), result: "ignored"},
		"another meaning of signal":   {alert: alert("firing", `"alertname":"Slow","signal":"latency","namespace":"a","pod":"b"`, figure, started), result: "ignored"},
		"no pod":                      {alert: alert("firing", `"alertname":"KernelGossipExporterAbsent"`, "", started), result: "ignored"},
		"no namespace":                {alert: alert("firing", `"alertname":"KernelGossipMetricsLie","pod":"b"`, figure, started), result: "invalid", says: "alerts[0].namespace: is required"},
		"path in the pod":             {alert: alert("firing", `"alertname":"KernelGossipMetricsLie","namespace":"a","pod":"../b"`, figure, started), result: "invalid", says: "alerts[0].pod_name"},
		"no figure":                   {alert: alert("firing", ours, `"throttle_percentage":"NaN"`, started), result: "invalid", says: "alerts[0].annotations.throttle_percentage: is required"},
		"a figure in words":           {alert: alert("firing", ours, `"throttle_percentage":"92.3%"`, started), result: "invalid", says: "want a plain decimal number"},
		"a hexadecimal figure":        {alert: alert("firing", ours, figure+`,"limit_cores":"0x1p0"`, started), result: "invalid", says: "alerts[0].annotations.limit_cores"},
		"a figure out of range":       {alert: alert("firing", ours, `"throttle_percentage":"250"`, started), result: "invalid", says: "between 0 and 100"},
		"an unknown signal":           {alert: alert("firing", ours, `"signal_type":"gossip"`, started), result: "invalid", says: "alerts[0].type"},
		"starved, without its figure": {alert: alert("firing", `"alertname":"KernelGossipCPUStarved","namespace":"a","pod":"b"`, `"runqueue_wait_percent":""`, started), result: "invalid", says: "runqueue_wait_percent"},
		"no status":                   {alert: alert("", ours, figure, started), result: "invalid", says: "alerts[0].status"},
		"no start":                    {alert: alert("firing", ours, figure, `"endsAt":"0001-01-01T00:00:00Z"`), result: "invalid", says: "alerts[0].timestamp"},
		"start in words":              {alert: alert("firing", ours, figure, `"startsAt":"yesterday"`), result: "invalid", says: "alerts[0].startsAt"},
		"a label that is a number":    {alert: alert("firing", `"pod":7`, figure, started), result: "invalid", says: "alerts[0].labels.pod: want a string"},
		"labels that are an array":    {alert: `{"labels":[]}`, result: "invalid", says: "alerts[0].labels: want an object"},
		"a number":                    {alert: `7`, result: "invalid", says: "alerts[0]: want an object"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{HostNamespace: "own"})
			good := alert("firing", `"alertname":"KernelGossipCPUThrottled","namespace":"shop","pod":"z-good"`, figure, started)
			code, answer := b.post(t, PathAlertmanager, `{"version":"4","alerts":[`+c.alert+`,`+good+`]}`)
			require.Equal(t, http.StatusOK, code, answer.Message)
			if c.result == "stored" {
				require.Len(t, b.got, 2)
				if c.check != nil {
					c.check(t, b.byPod()[0])
				}
			} else {
				require.Len(t, b.got, 1)
				assert.InDelta(t, 1, b.count(t, eventsTotal, "door=alertmanager", "result="+c.result), 0)
			}
			stored := b.byPod()
			assert.Equal(t, "z-good", stored[len(stored)-1].Pod, "the good one is stored whatever its neighbour is")
			if c.says == "" {
				assert.Empty(t, b.log.String())
			} else {
				assert.Contains(t, b.log.String(), c.says)
			}
		})
	}
}

func TestNotificationThatCannotBeRead(t *testing.T) {
	for body, field := range map[string]string{
		`{`:                           "",
		`[]`:                          "",
		`{"alerts":[]}`:               "version",
		`{"version":4,"alerts":[]}`:   "version",
		`{"version":"3","alerts":[]}`: "version",
		`{"version":"4"}`:             "alerts",
		`{"version":"4","alerts":{}}`: "alerts",
		`{"version":"4","alerts":[],"truncatedAlerts":"x"}`:                     "truncatedAlerts",
		`{"version":"4","alerts":[],"version":"4"}`:                             "version",
		`{"version":"4","alerts":[` + strings.Repeat("{},", MaxEvents) + `{}]}`: "alerts",
	} {
		b := newBed(Options{})
		code, answer := b.post(t, PathAlertmanager, body)
		assert.Equal(t, http.StatusBadRequest, code, body)
		assert.Equal(t, field, answer.Field, answer.Message)
		assert.InDelta(t, 1, b.count(t, rejectedTotal, "door=alertmanager", "reason=invalid"), 0)
	}
}

func TestAlertsOfOneContainerAreOneSignal(t *testing.T) {
	at := func(minute string) string {
		return `"startsAt":"2026-03-01T11:` + minute + `:00Z","endsAt":"2026-03-01T11:59:00Z"`
	}
	for name, c := range map[string]struct {
		alerts   []string
		resolved bool
		percent  float64
	}{
		"firing wins over resolved after it":  {[]string{alert("firing", ours, `"throttle_percentage":"60"`, at("10")), alert("resolved", ours, figure, at("20"))}, false, 60},
		"firing wins over resolved before it": {[]string{alert("resolved", ours, figure, at("20")), alert("firing", ours, `"throttle_percentage":"60"`, at("10"))}, false, 60},
		"the latest firing one speaks":        {[]string{alert("firing", ours, figure, at("10")), alert("firing", ours, `"throttle_percentage":"60"`, at("20")), alert("firing", ours, figure, at("15"))}, false, 60},
		"all are resolved":                    {[]string{alert("resolved", ours, figure, at("10")), alert("resolved", ours, figure, at("20"))}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{})
			code, _ := b.post(t, PathAlertmanager, `{"version":"4","alerts":[`+strings.Join(c.alerts, ",")+`]}`)
			assert.Equal(t, http.StatusOK, code)
			require.Len(t, b.got, 1)
			assert.Equal(t, c.resolved, b.got[0].Resolved)
			if c.resolved {
				assert.Nil(t, b.got[0].CPU, "a resolved alert's figures are of when it fired")
			} else {
				assert.InDelta(t, c.percent, b.got[0].CPU.ThrottlePercent, 0)
			}
			assert.InDelta(t, float64(len(c.alerts)), b.count(t, eventsTotal, "door=alertmanager", "result=stored"), 0)
		})
	}
}

func TestDecimal(t *testing.T) {
	for text, want := range map[string]*float64{
		"92.3": ptr(92.3), " 0.480\n": ptr(0.48), "0": ptr(0.0), "-1.5": ptr(-1.5), "1e-3": ptr(1e-3),
		"": nil, " ": nil, "<no value>": nil, "NaN": nil, "+Inf": nil, "-inf": nil,
	} {
		got, err := decimal(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"1,5", "0x10", "1_000", "92%", "1e999", "null", "1.2.3"} {
		_, err := decimal(text)
		assert.Error(t, err, text)
	}
}
