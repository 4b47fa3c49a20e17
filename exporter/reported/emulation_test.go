package reported

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEmulation(t *testing.T) {
	// A step of the 15 s grid.
	grid := time.Unix(1795132800, 0)
	require.Zero(t, grid.UnixNano()%int64(Resolution))
	key := Key{Container: "/demo"}
	type read struct {
		at  float64 // seconds from grid
		cpu float64 // core-seconds
	}
	every := func(from, to, rate float64) (out []read) {
		for s := from; s <= to; s++ {
			out = append(out, read{s, 100 + rate*s})
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		reads []read
		want  *Usage
	}{
		{"never seen", nil, nil},
		{"before the first step", every(1, 14, 0.5), nil},
		{"first step, 14 s of data", every(1, 15, 0.5), &Usage{Cores: 0.5, At: grid.Add(15 * time.Second), Window: 14 * time.Second}},
		{"held until the next step", append(every(1, 15, 0.5), every(16, 29, 9)...), &Usage{Cores: 0.5, At: grid.Add(15 * time.Second), Window: 14 * time.Second}},
		{"young at the first step: waits for the second", every(8, 29, 0.5), nil},
		{"young, then from the first step", every(8, 30, 0.5), &Usage{Cores: 0.5, At: grid.Add(30 * time.Second), Window: 15 * time.Second}},
		{"a burst is averaged away", append(append(every(0, 15, 0), read{16, 101}, read{17, 102}), read{30, 102}),
			&Usage{Cores: 2. / 15, At: grid.Add(30 * time.Second), Window: 15 * time.Second}},
		{"late sample: its own time counts", append(every(0, 14, 1), read{17.5, 117.5}), &Usage{Cores: 1, At: grid.Add(17500 * time.Millisecond), Window: 17500 * time.Millisecond}},
		{"counter went back", append(every(0, 15, 1), read{16, 0}), nil},
		{"counter went back, next steps", append(append(every(0, 15, 1), read{16, 0}), read{30, 7}), &Usage{Cores: 0.5, At: grid.Add(30 * time.Second), Window: 14 * time.Second}},
		{"clock set back", append(every(0, 15, 1), read{-100, 300}), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := NewEmulation()
			for _, r := range tc.reads {
				e.Observe(key, grid.Add(time.Duration(r.at*1e9)), time.Duration(r.cpu*1e9))
			}
			got, ok := e.Usage(key)
			if tc.want == nil {
				assert.False(t, ok, "%+v", got)
				return
			}
			require.True(t, ok)
			assert.InDelta(t, tc.want.Cores, got.Cores, 1e-9)
			assert.Equal(t, tc.want.At, got.At)
			assert.Equal(t, tc.want.Window, got.Window)
			assert.Equal(t, SourceEmulation, got.Source)
			assert.Equal(t, SourceEmulation, e.Name())
			e.Forget(key)
			_, ok = e.Usage(key)
			assert.False(t, ok)
		})
	}
}

func TestEmulationForgetsWhoIsNoLongerObserved(t *testing.T) {
	e := NewEmulation()
	start := time.Unix(1795132800, 0)
	gone, stays := Key{Container: "/gone"}, Key{Container: "/stays"}
	for s := range 200 {
		at := start.Add(time.Duration(s) * time.Second)
		if s < 20 {
			e.Observe(gone, at, time.Duration(s)*time.Second)
		}
		e.Observe(stays, at, time.Duration(s)*time.Second)
	}
	_, ok := e.Usage(gone)
	assert.False(t, ok)
	_, ok = e.Usage(stays)
	assert.True(t, ok)
	assert.Len(t, e.group, 1)
}

func TestEmulationIsSafeForConcurrentUse(t *testing.T) {
	e := NewEmulation()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { assert.NoError(t, e.Run(ctx)) })
	for g := range 4 {
		wg.Go(func() {
			key := Key{Container: string(rune('a' + g))}
			for s := range 100 {
				e.Observe(key, time.Unix(int64(1795132800+s), 0), time.Duration(s)*time.Second)
				_, _ = e.Usage(Key{Container: "a"})
			}
		})
	}
	cancel()
	wg.Wait()
}
