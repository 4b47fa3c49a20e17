package rules_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// The operator takes what the alerts carry, and advises from it.
func TestTheOperatorTakesTheNetworkAlerts(t *testing.T) {
	const (
		who  = `namespace="shop",pod="cart-1",container="cart",instance="node-1"`
		load = `load 30s
  kernel_gossip_exporter_build_info{job="kernel-gossip",instance="node-1"} 1x60
  kernel_gossip_network_tcp_segments_total{` + who + `,direction="sent"} 0+1000x60
  kernel_gossip_network_tcp_segments_total{` + who + `,direction="received"} 0+1000x60
  kernel_gossip_network_tcp_connections_total{` + who + `} 0+10x60
`
	)
	for alert, test := range map[string]struct {
		load, figure string
		percent      float64
		action       string
	}{
		"KernelGossipTCPRetransmits": {
			`  kernel_gossip_network_tcp_retransmits_total{` + who + `} 0+100x60`, "retransmit_percent", 10, advice.CheckNetworkPath,
		},
		"KernelGossipAcceptQueueFull": {
			`  kernel_gossip_network_accept_queue_overflows_total{` + who + `} 0+30x60`, "accept_overflow_percent", 75, advice.AcceptFaster,
		},
		"KernelGossipConnectionsRefused": {
			`  kernel_gossip_network_tcp_resets_total{` + who + `,kind="refused"} 0+10x60`, "refused_percent", 50, advice.CheckRefusedService,
		},
		"KernelGossipPacketsDropped": {
			`  kernel_gossip_network_drops_total{` + who + `,reason="qdisc_drop"} 0+500x60`, "drop_percent", 20, advice.CheckNetworkPath,
		},
	} {
		t.Run(alert, func(t *testing.T) {
			firing := replayEach(t, load+test.load+"\n", 30*time.Second, 29*time.Minute)
			assert.Len(t, firing, 1, "and no other")
			require.Contains(t, firing, alert)
			got := deliver(t, firing[alert])
			assert.Equal(t, signal.NetworkIssue, got.Type)
			assert.Equal(t, []string{"shop", "cart-1", "cart"}, []string{got.Namespace, got.Pod, got.Container})
			assert.InDelta(t, test.percent, got.Values[test.figure], 0.1)
			a := advice.For(got)
			require.Len(t, a.Recommendations, 1)
			assert.Equal(t, test.action, a.Recommendations[0].Action)
		})
	}
}
