package reported

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// The rules are metrics-server's (pkg/storage/pod.go, pkg/storage/types.go).
func TestWindows(t *testing.T) {
	epoch := time.Unix(1795132800, 0)
	at := func(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }
	type poll = map[target]sample
	long := at(-3600) // a start long ago
	one := func(sec, cpu float64, start time.Time) poll { return poll{app: {at: at(sec), cpu: cpu, start: start}} }
	figure := func(cores, end, window float64) *Usage {
		return &Usage{Cores: cores, At: at(end), Window: time.Duration(window * float64(time.Second))}
	}
	for _, tc := range []struct {
		name  string
		polls []poll
		want  *Usage
	}{
		{"no poll", nil, nil},
		{"one point is no figure", []poll{one(0, 10, long)}, nil},
		{"two points", []poll{one(0, 10, long), one(15.5, 17.44, long)}, figure(0.48, 15.5, 15.5)},
		{"idle is 0 and told", []poll{one(0, 10, long), one(15, 10, long)}, figure(0, 15, 15)},
		{"nothing new read: the figure stays", []poll{one(0, 10, long), one(15, 25, long), one(15, 25, long)}, figure(1, 15, 15)},
		{"nothing new read since the first point", []poll{one(0, 10, long), one(0, 10, long)}, nil},
		{"gone from an answer", []poll{one(0, 10, long), one(15, 25, long), {}}, nil},
		{"back after a gap", []poll{one(0, 10, long), {}, one(30, 40, long)}, nil},
		{"restarted", []poll{one(0, 10, long), one(15, 1, at(12))}, nil},
		{"restarted, two points later", []poll{one(0, 10, long), one(15, 1, at(12)), one(30, 16, at(12))}, figure(1, 30, 15)},
		{"young: since its start", []poll{one(12, 6, at(0))}, figure(0.5, 12, 12)},
		{"too young", []poll{one(9.9, 6, at(0))}, nil},
		{"too young, then two points", []poll{one(5, 5, at(0)), one(20, 12.5, at(0))}, figure(0.5, 20, 15)},
		{"restart of a known one, young", []poll{one(0, 10, long), one(15, 6, at(3))}, figure(0.5, 15, 12)},
		{"counter went back", []poll{one(0, 10, long), one(15, 5, long)}, nil},
		{"clock went back", []poll{one(0, 10, long), one(15, 25, long), one(-60, 30, long)}, nil},
		{"no start told (kubelet before 1.23)", []poll{one(0, 10, time.Time{}), one(15, 25, time.Time{})}, figure(1, 15, 15)},
		{"no start told, counter went back", []poll{one(0, 10, time.Time{}), one(15, 5, time.Time{})}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWindows(Resolution)
			for _, p := range tc.polls {
				w.store(p)
			}
			got, ok := w.usage(app)
			if tc.want == nil {
				assert.False(t, ok, "%+v", got)
				return
			}
			assert.True(t, ok)
			assert.InDelta(t, tc.want.Cores, got.Cores, 1e-9)
			assert.Equal(t, tc.want.At, got.At)
			assert.Equal(t, tc.want.Window, got.Window)
		})
	}
}
