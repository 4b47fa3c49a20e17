package whisper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func watch(t *testing.T, seconds int, each func(s int) []SecurityObservation) (told []string, events []wire.SecurityEvent, e *SecurityEngine) {
	t.Helper()
	cfg := DefaultSecurityConfig()
	cfg.Rank = func(event string) int { return map[string]int{"module_load": 2, "ptrace": 1}[event] }
	cfg.Node = "node-1"
	e, err := NewSecurityEngine(cfg)
	require.NoError(t, err)
	began := time.Unix(1_800_000_000, 0)
	for s := range seconds {
		now := began.Add(time.Duration(s) * time.Second)
		for _, ev := range e.Observe(now, each(s)) {
			kind := ev.Event
			if ev.Resolved {
				kind = "resolved"
			}
			told, events = append(told, now.Sub(began).String()+" "+kind), append(events, ev)
		}
	}
	return told, events, e
}

func did(counts map[string]uint64) []SecurityObservation {
	return []SecurityObservation{{Target: cart, Counts: counts, Last: map[string]SecurityProcess{
		"ptrace": {Binary: "/usr/bin/gdb", Comm: "gdb", PID: 7, Ancestry: []string{"sh"}, Detail: "ATTACH to 1"},
	}}}
}

func TestSecurityEngine(t *testing.T) {
	for _, tc := range []struct {
		name    string
		seconds int
		each    func(s int) []SecurityObservation
		want    []string
	}{
		{"nothing", 60, func(int) []SecurityObservation { return did(nil) }, nil},
		{"one event is told at once, and over in ten minutes", 700, func(s int) []SecurityObservation {
			if s < 5 {
				return did(nil)
			}
			return did(map[string]uint64{"ptrace": 1})
		}, []string{"5s ptrace", "10m5s resolved"}},
		{"a flood of one kind is told each five minutes", 650, func(s int) []SecurityObservation {
			return did(map[string]uint64{"bpf": 1_000_000 * uint64(s+1)})
		}, []string{"0s bpf", "5m0s bpf", "10m0s bpf"}},
		{"a new kind is told soon, and the gravest speaks", 40, func(s int) []SecurityObservation {
			counts := map[string]uint64{"bpf": 1}
			if s >= 3 {
				counts["module_load"] = 1
			}
			if s >= 4 {
				counts["ptrace"] = 1
			}
			return did(counts)
		}, []string{"0s bpf", "10s module_load"}},
		{"what was done in a short life is told", 620, func(s int) []SecurityObservation {
			if s > 0 {
				return nil
			}
			return did(map[string]uint64{"ptrace": 2})
		}, []string{"0s ptrace", "10m0s resolved"}},
		{"another life counts from 0", 400, func(s int) []SecurityObservation {
			if s < 310 {
				return did(map[string]uint64{"ptrace": 5})
			}
			return did(map[string]uint64{"ptrace": 2})
		}, []string{"0s ptrace", "5m10s ptrace"}},
		{"a second episode is one of its own", 1400, func(s int) []SecurityObservation {
			if s < 700 {
				return did(map[string]uint64{"ptrace": 1})
			}
			return did(map[string]uint64{"ptrace": 4})
		}, []string{"0s ptrace", "10m0s resolved", "11m40s ptrace", "21m40s resolved"}},
		{"without a name it is left for later", 10, func(int) []SecurityObservation {
			return []SecurityObservation{{Counts: map[string]uint64{"ptrace": 1}}}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told, _, _ := watch(t, tc.seconds, tc.each)
			assert.Equal(t, tc.want, told)
		})
	}
}

func TestSecurityEventTellsWho(t *testing.T) {
	_, events, e := watch(t, 20, func(s int) []SecurityObservation {
		if s < 15 {
			return did(map[string]uint64{"ptrace": 2, "bpf": 9})
		}
		return did(map[string]uint64{"ptrace": 2, "bpf": 12, "setns": 1})
	})
	require.Len(t, events, 2)
	ev := events[1]
	assert.Equal(t, "ptrace", ev.Event)
	assert.Equal(t, p(uint64(2)), ev.Count)
	assert.Equal(t, map[string]uint64{"ptrace": 2, "bpf": 12, "setns": 1}, ev.Events)
	assert.Equal(t, p(15.0), ev.PeriodSeconds)
	assert.Equal(t, []string{"/usr/bin/gdb", "gdb", "ATTACH to 1", "node-1"}, []string{ev.Binary, ev.Comm, ev.Detail, ev.NodeName})
	assert.Equal(t, p(uint64(7)), ev.PID)
	assert.Equal(t, []string{"sh"}, ev.Ancestry)
	assert.Equal(t, 1, e.Active())
}

// However many kinds there are and however they come, one container's events are few.
func TestAFloodIsBounded(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}
	told, _, _ := watch(t, 3600, func(s int) []SecurityObservation {
		counts := map[string]uint64{}
		for i := range min(len(names), 1+s/3) {
			counts[names[i]] = uint64(s + 1)
		}
		return did(counts)
	})
	assert.LessOrEqual(t, len(told), 3600/300+len(names))
	_, err := NewSecurityEngine(SecurityConfig{})
	assert.Error(t, err)
}

func TestStatesOfSecurityGo(t *testing.T) {
	_, _, e := watch(t, 2000, func(s int) []SecurityObservation {
		if s > 5 {
			return nil
		}
		return did(map[string]uint64{"ptrace": 1})
	})
	assert.Empty(t, e.states)
	assert.Zero(t, e.Active())
}
