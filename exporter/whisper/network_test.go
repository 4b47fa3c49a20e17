package whisper

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// trafficOf feeds one observation a second and returns when each event came, and what.
func trafficOf(t *testing.T, cfg NetworkConfig, seconds int, each func(s int) []NetworkObservation) (told []string, events []wire.NetworkIssue, e *NetworkEngine) {
	t.Helper()
	e, err := NewNetworkEngine(cfg)
	require.NoError(t, err)
	began := time.Unix(1_800_000_000, 0)
	for s := range seconds {
		now := began.Add(time.Duration(s) * time.Second)
		for _, ev := range e.Observe(now, each(s)) {
			kind := "active"
			if ev.Resolved {
				kind = "resolved"
			}
			told, events = append(told, now.Sub(began).String()+" "+kind), append(events, ev)
		}
	}
	return told, events, e
}

func TestNetworkEngine(t *testing.T) {
	// each second, until the given one
	steady := func(until int, per NetworkObservation) func(int) []NetworkObservation {
		return func(s int) []NetworkObservation {
			bad, all := uint64(min(s, until)), uint64(s)
			o := NetworkObservation{Target: cart, Sent: all * per.Sent, Received: all * per.Received, Connections: all * per.Connections,
				Retransmits: bad * per.Retransmits, Refused: bad * per.Refused}
			if per.AcceptOverflows != nil {
				o.AcceptOverflows = p(bad * *per.AcceptOverflows)
			}
			for reason, n := range per.Drops {
				o.Drops = map[string]uint64{reason: bad * n}
			}
			return []NetworkObservation{o}
		}
	}
	for _, tc := range []struct {
		name    string
		seconds int
		each    func(int) []NetworkObservation
		want    []string
	}{
		{"a thousand retransmits are little of a lot", 200, steady(1000, NetworkObservation{Sent: 1_000_000, Retransmits: 1000}), nil},
		{"a share of them is told once the window is long enough, and again after five minutes", 320,
			steady(1000, NetworkObservation{Sent: 100, Retransmits: 6}), []string{"10s active", "5m10s active"}},
		{"a third of three segments is nothing", 60, steady(3, NetworkObservation{Sent: 1, Retransmits: 1}), nil},
		{"and is over when it has become little of the window", 200, steady(20, NetworkObservation{Sent: 100, Retransmits: 6}), []string{"10s active", "59s resolved"}},
		{"a full accept queue", 20, steady(1000, NetworkObservation{Sent: 10, Connections: 5, AcceptOverflows: p(uint64(5))}), []string{"10s active"}},
		{"refusals", 20, steady(1000, NetworkObservation{Sent: 10, Refused: 2}), []string{"10s active"}},
		{"drops of a container that sends no TCP", 20, steady(1000, NetworkObservation{Drops: map[string]uint64{"socket_rcvbuff": 2}}), []string{"10s active"}},
		{"drops, a few of many", 60, steady(1000, NetworkObservation{Sent: 100, Received: 100, Drops: map[string]uint64{"socket_rcvbuff": 2}}), nil},
		{"it becomes worse", 120, func(s int) []NetworkObservation {
			return []NetworkObservation{{Target: cart, Sent: uint64(100 * s), Retransmits: uint64(10*s + 90*max(0, s-60))}}
		}, []string{"10s active", "1m10s active"}},
		{"what is gone is over", 40, func(s int) []NetworkObservation {
			if s > 15 {
				return nil
			}
			return steady(1000, NetworkObservation{Sent: 100, Retransmits: 6})(s)
		}, []string{"10s active", "25s resolved"}},
		{"a restarted cgroup counts from zero again", 16, func(s int) []NetworkObservation {
			return steady(1000, NetworkObservation{Sent: 100, Retransmits: 6})(s % 8)
		}, nil},
		{"without a name it is left for later", 40, func(int) []NetworkObservation {
			return []NetworkObservation{{Sent: 1, Retransmits: 1}}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told, _, _ := trafficOf(t, DefaultNetworkConfig(), tc.seconds, tc.each)
			assert.Equal(t, tc.want, told)
		})
	}
}

func TestNetworkEvidenceIsOfTheWindow(t *testing.T) {
	cfg := DefaultNetworkConfig()
	cfg.Node = "node-1"
	_, events, e := trafficOf(t, cfg, 11, func(s int) []NetworkObservation {
		n := uint64(s)
		return []NetworkObservation{{
			Target: cart, Sent: 1000 + 100*n, Received: 50 * n, Retransmits: 500 + 10*n, Connections: 3 * n,
			AcceptOverflows: p(7 + n), Refused: 2 * n, ResetsReceived: n,
			Drops: map[string]uint64{"qdisc_drop": 4 + n, "socket_rcvbuff": 9},
		}}
	})
	require.Len(t, events, 1)
	assert.Equal(t, 1, e.Active())
	b, err := json.Marshal(events[0])
	require.NoError(t, err)
	assert.JSONEq(t, `{"type":"network_issue","pod_name":"cart-1","namespace":"shop","container_name":"cart","pod_uid":"uid-1","node_name":"node-1",
		"timestamp":"2027-01-15T08:00:10Z","period_seconds":10,"segments_sent":1000,"segments_received":500,"tcp_retransmits":100,
		"connections":30,"accept_queue_overflows":10,"connections_refused":20,"resets_received":10,"drops":10,"drop_reasons":{"qdisc_drop":10}}`, string(b))
}

func TestNetworkConfig(t *testing.T) {
	for name, change := range map[string]func(*NetworkConfig){
		"threshold 0":           func(c *NetworkConfig) { c.Threshold = 0 },
		"above 1":               func(c *NetworkConfig) { c.Threshold = 1.1 },
		"must rise":             func(c *NetworkConfig) { c.Bands = []float64{0.5, 0.3} },
		"window 1s must be":     func(c *NetworkConfig) { c.Window = time.Second },
		"which must be positiv": func(c *NetworkConfig) { c.MinWindow = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultNetworkConfig()
			change(&cfg)
			_, err := NewNetworkEngine(cfg)
			assert.Error(t, err)
		})
	}
}
