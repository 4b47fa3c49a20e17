package whisper

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func p[T any](v T) *T { return &v }

var cart = Target{Namespace: "shop", Pod: "cart-1", Container: "cart", PodUID: "uid-1"}

// lifeOf feeds one observation a second and returns when each event came, and what.
func lifeOf(t *testing.T, cfg MemoryConfig, seconds int, each func(s int) []MemoryObservation) (told []string, events []wire.MemoryPressure) {
	t.Helper()
	e, err := NewMemoryEngine(cfg)
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
	return told, events
}

// stalling is stalled for the share of each second from second begin to end.
func stalling(share float64, begin, end int) func(int) []MemoryObservation {
	return func(s int) []MemoryObservation {
		stalled := time.Duration(share * float64(max(0, min(s, end)-begin)) * float64(time.Second))
		return []MemoryObservation{{Target: cart, Some: &stalled}}
	}
}

func TestMemoryEngine(t *testing.T) {
	kills := func(at ...int) func(int) []MemoryObservation {
		return func(s int) []MemoryObservation {
			n := uint64(0)
			for _, k := range at {
				if s >= k {
					n++
				}
			}
			return []MemoryObservation{{Target: cart, Kills: &n, KillsSinceStart: true}}
		}
	}
	for _, tc := range []struct {
		name    string
		seconds int
		each    func(int) []MemoryObservation
		want    []string
	}{
		{"a little stalling is nobody's business", 200, stalling(0.09, 0, 1000), nil},
		{"a lot is told once the window is long enough, and again after five minutes", 320, stalling(0.2, 0, 1000), []string{"10s active", "5m10s active"}},
		{"after a quiet minute it outweighs its past", 120, stalling(1, 100, 1000), []string{"1m46s active", "1m58s active"}},
		{"a burst is over when the window has forgotten it", 200, stalling(0.2, 0, 20), []string{"10s active", "1m16s resolved"}},
		{"a kill is told at once, and for five minutes", 400, kills(7), []string{"7s active", "5m17s resolved"}},
		{"each kill is told", 400, kills(7, 7, 30), []string{"7s active", "30s active", "5m40s resolved"}},
		{"a kill before the first look is told when the count began with us", 5, kills(0), []string{"0s active"}},
		{"and not when it began with the cgroup", 20, func(int) []MemoryObservation {
			return []MemoryObservation{{Target: cart, Kills: p(uint64(3))}}
		}, nil},
		{"reclaim stands for pressure where there is none", 20, func(s int) []MemoryObservation {
			stalled := time.Duration(s) * 200 * time.Millisecond
			return []MemoryObservation{{Target: cart, Reclaim: &stalled}}
		}, []string{"10s active"}},
		{"pressure counts where there is both", 20, func(s int) []MemoryObservation {
			return []MemoryObservation{{Target: cart, Some: p(time.Duration(0)), Reclaim: p(time.Duration(s) * time.Second)}}
		}, nil},
		{"what is gone is over", 40, func(s int) []MemoryObservation {
			if s > 15 {
				return nil
			}
			return stalling(0.2, 0, 1000)(s)
		}, []string{"10s active", "25s resolved"}},
		{"a killed container that stays away is told until then", 400, func(s int) []MemoryObservation {
			if s > 8 {
				return nil
			}
			return kills(7)(s)
		}, []string{"7s active", "5m7s resolved"}},
		{"a restarted cgroup counts from zero again", 40, func(s int) []MemoryObservation {
			if s > 5 {
				return stalling(0.05, 5, 1000)(s)
			}
			return stalling(0.5, 0, 1000)(s)
		}, nil},
		{"without a name it is left for later", 40, func(int) []MemoryObservation {
			return []MemoryObservation{{Kills: p(uint64(1)), KillsSinceStart: true}}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told, _ := lifeOf(t, DefaultMemoryConfig(), tc.seconds, tc.each)
			assert.Equal(t, tc.want, told)
		})
	}
}

func TestMemoryEvidence(t *testing.T) {
	cfg := DefaultMemoryConfig()
	cfg.Node = "node-1"
	_, events := lifeOf(t, cfg, 31, func(s int) []MemoryObservation {
		at := time.Duration(s) * time.Second
		o := MemoryObservation{
			Target: cart, Some: p(at / 2), Full: p(at / 4), Reclaim: p(at * 3 / 4),
			WorkingSetBytes: p(60e6 + float64(s%2)*1e6), ReportedBytes: p(61e6), LimitBytes: p(100e6), RefaultedBytes: p(float64(s) * 4096),
			Kills: p(uint64(0)), KillsSinceStart: true,
		}
		if s == 30 {
			o.Kills = p(uint64(2))
			o.LastKill = &Kill{VictimPID: 7, TriggerPID: 8, RSSBytes: 99e6, LimitBytes: 100e6}
		}
		return []MemoryObservation{o}
	})
	require.Len(t, events, 2)
	b, err := json.Marshal(events[1])
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"type":"memory_pressure","namespace":"shop","pod_name":"cart-1","container_name":"cart","pod_uid":"uid-1","node_name":"node-1",
		"timestamp":"2027-01-15T08:00:30Z","period_seconds":30,
		"some_pressure_percent":50,"full_pressure_percent":25,"reclaim_stall_percent":75,"reclaim_stall_seconds":22.5,
		"working_set_bytes":61000000,"reported_memory_bytes":61000000,"memory_limit_bytes":100000000,"refaulted_bytes":122880,
		"oom_kills":2,"oom_victim_pid":7,"oom_trigger_pid":8,"oom_victim_rss_bytes":99000000,"oom_limit_bytes":100000000}`, string(b))
	assert.Nil(t, events[0].OOMVictimPID, "nobody was killed yet")
}

func TestGrowthIsToldWhenThereIsNothingElse(t *testing.T) {
	growth := func(each func(s int) float64) *float64 {
		_, events := lifeOf(t, DefaultMemoryConfig(), 601, func(s int) []MemoryObservation {
			o := MemoryObservation{Target: cart, WorkingSetBytes: p(each(s)), Kills: p(uint64(0)), KillsSinceStart: true}
			if s == 600 {
				o.Kills = p(uint64(1))
			}
			return []MemoryObservation{o}
		})
		require.Len(t, events, 1)
		return events[0].GrowthBytesPerHour
	}
	rate := growth(func(s int) float64 { return 100e6 + 1e5*float64(s) })
	require.NotNil(t, rate)
	assert.InDelta(t, 3.6e8, *rate, 1)
	assert.Nil(t, growth(func(int) float64 { return 100e6 }), "steady")
	assert.Nil(t, growth(func(s int) float64 { return 100e6 + 1e6*float64(s%60) }), "it is collected each minute")
	assert.Nil(t, growth(func(s int) float64 { return 100e6 + 1e5*float64(max(s, 500)-500) }), "a step at the end")
}

func TestMemoryConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*MemoryConfig){
		"threshold": func(c *MemoryConfig) { c.Threshold = 0 },
		"above 1":   func(c *MemoryConfig) { c.Threshold = 1.1 },
		"bands":     func(c *MemoryConfig) { c.Bands = []float64{0.6, 0.3} },
		"window":    func(c *MemoryConfig) { c.MinWindow = 2 * time.Minute },
	} {
		cfg := DefaultMemoryConfig()
		change(&cfg)
		_, err := NewMemoryEngine(cfg)
		assert.Error(t, err, name)
	}
}

// Events of two types about one container do not supersede each other.
func TestQueueKeepsTypesApart(t *testing.T) {
	q := newQueue(5)
	head := wire.Head{Type: wire.TypeMemoryPressure, Namespace: "shop", PodName: "a", ContainerName: "app"}
	superseded, _ := q.put([]wire.Event{event("a", 1), wire.MemoryPressure{Head: head}, wire.MemoryPressure{Head: head}})
	assert.Equal(t, 1, superseded)
	assert.Equal(t, 2, q.len())
}
