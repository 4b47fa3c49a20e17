package rules_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// The operator takes what the alerts carry: each event by its name, with the severity
// that the operator gives it.
func TestTheOperatorTakesTheSecurityAlerts(t *testing.T) {
	for e := range bpf.SecurityEvents {
		event := e.String()
		t.Run(event, func(t *testing.T) {
			const who = `namespace="shop",pod="cart-1",container="cart",instance="node-1",allowed="false"`
			firing := replayEach(t, `load 30s
  kernel_gossip_exporter_build_info{job="kernel-gossip",instance="node-1"} 1x60
  kernel_gossip_security_events_total{`+who+`,event="`+event+`"} _x50 3x10
`, 30*time.Second, 29*time.Minute)
			assert.Len(t, firing, 1, "and no other")
			require.Contains(t, firing, "KernelGossipSecurityEvent")
			alert := firing["KernelGossipSecurityEvent"]
			got := deliver(t, alert)
			assert.Equal(t, signal.SecurityEvent, got.Type)
			assert.Equal(t, []string{"shop", "cart-1", "cart"}, []string{got.Namespace, got.Pod, got.Container})
			assert.Equal(t, map[string]float64{event: 3, "period_seconds": 600}, got.Values)
			a := advice.For(got)
			assert.Equal(t, string(a.Severity), alert.Labels.Get("severity"))
			assert.NotEmpty(t, a.Recommendations)
			assert.Contains(t, a.Insights[1], event)
		})
	}
}
