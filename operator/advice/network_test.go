package advice

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func TestNetwork(t *testing.T) {
	for _, tc := range []struct {
		name     string
		values   map[string]float64
		insights []string
		severity Severity
		actions  []string
	}{
		{
			name:     "loss, as the exporter tells it",
			values:   map[string]float64{"segments_sent": 1000, "tcp_retransmits": 73, "period_seconds": 60, "resets_received": 4, "drops": 0, "connections": 10},
			insights: []string{"TCP loses packets: 7.3% of the segments are sent again, 73 in 60 s", "Peers reset 4 connections"},
			severity: Warning, actions: []string{CheckNetworkPath},
		},
		{
			name:     "a full accept queue, as an alert tells it",
			values:   map[string]float64{"accept_overflow_percent": 45, "retransmit_percent": 0, "period_seconds": 300},
			insights: []string{"The accept queue is full: 45.0% of the connections are turned away"},
			severity: Critical, actions: []string{AcceptFaster},
		},
		{
			name:     "refused",
			values:   map[string]float64{"connections_refused": 5, "connections": 95, "period_seconds": 60},
			insights: []string{"5.0% of the attempts to connect are refused, 5 in 60 s"},
			severity: Warning, actions: []string{CheckRefusedService},
		},
		{
			name:     "a full receive buffer",
			values:   map[string]float64{"drops": 100, "drops_socket_rcvbuff": 90, "drops_qdisc_drop": 10, "segments_sent": 50, "segments_received": 50},
			insights: []string{"The kernel drops 50.0% of the packets, 100: socket_rcvbuff 90, qdisc_drop 10"},
			severity: Critical, actions: []string{RaiseReceiveBuffer},
		},
		{
			name: "a policy and a queue", severity: Warning,
			values:   map[string]float64{"drop_percent": 6, "drops_netfilter_drop": 3},
			insights: []string{"The kernel drops 6.0% of the packets: netfilter_drop 3"}, actions: []string{ReviewNetworkPolicy},
		},
		{
			name: "a queue", severity: Warning,
			values:   map[string]float64{"drop_percent": 6, "drops_qdisc_drop": 3},
			insights: []string{"The kernel drops 6.0% of the packets: qdisc_drop 3"}, actions: []string{RaiseSendLimits},
		},
		{
			name: "a reason without advice of its own", severity: Warning,
			values:   map[string]float64{"drop_percent": 6, "drops_tcp_csum": 3},
			insights: []string{"The kernel drops 6.0% of the packets: tcp_csum 3"}, actions: []string{CheckNetworkPath},
		},
		{
			name:     "a little is told and no reason to act",
			values:   map[string]float64{"retransmit_percent": 1},
			insights: []string{"TCP loses packets: 1.0% of the segments are sent again"}, severity: Info,
		},
		{
			name:     "counts without traffic, as Pixie has them",
			values:   map[string]float64{"tcp_retransmits": 120},
			insights: []string{"Network issue: tcp retransmits 120"}, severity: Warning,
		},
		{
			name:     "drops without traffic",
			values:   map[string]float64{"drops": 3},
			insights: []string{"Network issue: drops 3"}, severity: Warning,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := For(signal.Signal{Type: signal.NetworkIssue, Values: tc.values})
			assert.Equal(t, tc.insights, a.Insights)
			assert.Equal(t, tc.severity, a.Severity)
			var actions []string
			for _, r := range a.Recommendations {
				actions = append(actions, r.Action)
				assert.NotEmpty(t, r.Reason)
				assert.NotEmpty(t, r.Confidence)
			}
			assert.Equal(t, tc.actions, actions)
		})
	}
}

func TestNetworkIssueIsOver(t *testing.T) {
	a := For(signal.Signal{Type: signal.NetworkIssue, Resolved: true, Values: map[string]float64{"retransmit_percent": 50}})
	assert.Equal(t, Info, a.Severity)
	assert.Empty(t, a.Recommendations)
}
