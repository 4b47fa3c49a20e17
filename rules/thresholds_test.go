package rules_test

import (
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

// comparisons are what an expression compares with a constant, by metric.
func comparisons(t *testing.T, text string) map[string]float64 {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	require.NoError(t, err, text)
	found := map[string]float64{}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		binary, ok := node.(*parser.BinaryExpr)
		if !ok || !binary.Op.IsComparisonOperator() {
			return nil
		}
		value, ok := constant(binary.RHS)
		require.True(t, ok, "%s compares with no constant", binary)
		var metric string
		parser.Inspect(binary.LHS, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok && metric == "" {
				metric = selector.Name
			}
			return nil
		})
		found[metric] = value
		return nil
	})
	return found
}

func constant(expr parser.Expr) (float64, bool) {
	switch e := expr.(type) {
	case *parser.NumberLiteral:
		return e.Val, true
	case *parser.ParenExpr:
		return constant(e.Expr)
	case *parser.BinaryExpr:
		l, ok := constant(e.LHS)
		r, also := constant(e.RHS)
		return l * r, ok && also && e.Op == parser.MUL
	}
	return 0, false
}

func TestAlertsCompareWithTheThresholds(t *testing.T) {
	const container = "container:kernel_gossip_cpu_"
	network := func(what string) map[string]float64 {
		what = "container:kernel_gossip_network_" + what
		return map[string]float64{what + ":ratio_rate5m": rules.NetworkRatio, what + ":rate5m": rules.NetworkEvents}
	}
	want := map[string]map[string]float64{
		"KernelGossipCPUThrottled": {
			container + "throttled_periods:ratio_rate5m": rules.ThrottledRatio,
			container + "periods:rate5m":                 rules.ActivePeriods,
		},
		"KernelGossipMetricsLie": {
			container + "throttled_periods:ratio_rate5m": rules.ThrottledRatio,
			container + "reported:ratio_limit_avg5m":     rules.ReportedRatio,
			container + "periods:rate5m":                 rules.ActivePeriods,
		},
		"KernelGossipCPUStarved": {
			container + "runqueue_wait:ratio_rate5m":     rules.StarvedRatio,
			container + "runqueue_wait_seconds:rate5m":   rules.StarvedThreads,
			container + "throttled_periods:ratio_rate5m": rules.ThrottledRatio,
		},
		"KernelGossipMemoryStalled":      {"container:kernel_gossip_memory_stalled:ratio_rate5m": rules.StalledRatio},
		"KernelGossipOOMKilled":          {"container:kernel_gossip_oom_kills:increase10m": 0},
		"KernelGossipTCPRetransmits":     network("retransmits"),
		"KernelGossipAcceptQueueFull":    network("accept_overflows"),
		"KernelGossipConnectionsRefused": network("refused"),
		"KernelGossipPacketsDropped":     network("drops"),
		"KernelGossipSecurityEvent":      {"container:kernel_gossip_security_events:increase10m": 0},
		"KernelGossipMapFull":            {"kernel_gossip_exporter_map_entries": rules.MapFullRatio},
	}
	short := map[string]string{"1h": "5m", "6h": "30m", "1d": "2h", "3d": "6h"}
	for window, factor := range rules.BurnRates() {
		want["KernelGossipMetricsLieBurn/"+window] = map[string]float64{
			container + "throttled_periods:ratio_rate" + window:        factor * rules.BurnBudget,
			container + "throttled_periods:ratio_rate" + short[window]: factor * rules.BurnBudget,
			container + "reported:ratio_limit_avg" + window:            rules.ReportedRatio,
			container + "periods:rate" + window:                        rules.ActivePeriods,
		}
	}
	for _, rule := range allRules(t) {
		name := rule.Alert
		if window := rule.Labels["window"]; window != "" {
			name += "/" + window
		}
		if expected, ok := want[name]; ok {
			assert.InDeltaMapValues(t, expected, comparisons(t, rule.Expr), 1e-9, name)
			delete(want, name)
		}
		if rule.Record == "container:kernel_gossip_cpu_reported_cores:avg5m" {
			assert.Equal(t, map[string]float64{"kernel_gossip_cpu_reported_age_seconds": rules.ReportedAge}, comparisons(t, rule.Expr))
		}
	}
	assert.Empty(t, want, "alerts that are gone")
}
