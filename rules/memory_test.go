package rules_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// By native histogram as by PSI, and the operator takes what the alerts carry.
func TestTheOperatorTakesTheMemoryAlerts(t *testing.T) {
	const (
		who  = `namespace="shop",pod="cart-1",container="cart",instance="node-1"`
		load = `load 30s
  kernel_gossip_exporter_build_info{job="kernel-gossip",instance="node-1"} 1x60
  kernel_gossip_memory_working_set_bytes{` + who + `} 60000000x60
  kernel_gossip_memory_reported_bytes{` + who + `,source="kubelet"} 61000000x60
  kernel_gossip_memory_limit_bytes{` + who + `} 100000000x60
  kernel_gossip_oom_kills_total{` + who + `} 0x48 2x12
`
		psi   = `  kernel_gossip_pressure_seconds_total{` + who + `,resource="memory",kind="some"} 0+10.2x60` + "\n"
		stall = `  kernel_gossip_memory_reclaim_stall_seconds{` + who + `,kind="memcg"} {{schema:0 count:0 sum:0 buckets:[0]}}+{{schema:0 count:15 sum:10.2 buckets:[15]}}x60` + "\n"
	)
	for name, test := range map[string]struct{ load, figure, missing string }{
		"cgroup v2": {load + psi, "some_pressure_percent", "reclaim_stall_percent"},
		"cgroup v1": {load + stall, "reclaim_stall_percent", "some_pressure_percent"},
	} {
		t.Run(name, func(t *testing.T) {
			firing := replayEach(t, test.load, 30*time.Second, 29*time.Minute)
			assert.Len(t, firing, 2)
			for _, alert := range []string{"KernelGossipMemoryStalled", "KernelGossipOOMKilled"} {
				require.Contains(t, firing, alert)
				got := deliver(t, firing[alert])
				assert.Equal(t, signal.MemoryPressure, got.Type)
				assert.Equal(t, []string{"shop", "cart-1", "cart"}, []string{got.Namespace, got.Pod, got.Container})
				assert.InDelta(t, 34, got.Values[test.figure], 0.1)
				assert.NotContains(t, got.Values, test.missing, "absent, not 0")
				assert.Equal(t, 61e6, got.Values["reported_memory_bytes"])
				assert.Equal(t, 100e6, got.Values["memory_limit_bytes"])
			}
			assert.InDelta(t, 2, deliver(t, firing["KernelGossipOOMKilled"]).Values["oom_kills"], 0.2)
		})
	}
}
