package gap

import (
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// series builds a sample a second from the CPU seconds used, throttled, waited and
// waited-while-throttled in each.
func series(rows ...[4]float64) Series {
	s := Series{HasUsed: true, HasThrottled: true, HasWaited: true, Points: []Point{{}}}
	p := Point{}
	for _, r := range rows {
		p.At += time.Second
		p.Used += seconds(r[0])
		p.Throttled += seconds(r[1])
		p.Waited += seconds(r[2])
		p.WaitedThrottled += seconds(r[3])
		s.Points = append(s.Points, p)
	}
	return s
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

func TestParts(t *testing.T) {
	bursty := series(
		[4]float64{0, 0, 0, 0},
		[4]float64{1, 0.5, 0.6, 0.5},
		[4]float64{0.2, 0, 0, 0},
		[4]float64{0, 0, 0, 0},
	)
	tests := map[string]struct {
		series   Series
		window   Window
		cpus     float64
		reported *float64
		want     Parts
	}{
		"a burst that a mean hides": {
			series: bursty, window: Window{0, 4 * time.Second}, cpus: 4, reported: ptr(0.3),
			want: Parts{Used: ptr(0.3), Accounting: ptr(0), Averaging: ptr(0.7),
				Throttled: ptr(0.125), Contended: ptr(0.025), Demand: ptr(0.45)},
		},
		"the reporter says more than the kernel": {
			series: bursty, window: Window{0, 4 * time.Second}, cpus: 4, reported: ptr(0.5),
			want: Parts{Used: ptr(0.3), Accounting: ptr(-0.2), Averaging: ptr(0.7),
				Throttled: ptr(0.125), Contended: ptr(0.025), Demand: ptr(0.45)},
		},
		"window ends between samples": {
			// half of the burst second, all of the next, half of the idle one
			series: bursty, window: Window{1500 * time.Millisecond, 3500 * time.Millisecond}, cpus: 4, reported: ptr(0.35),
			want: Parts{Used: ptr(0.35), Accounting: ptr(0), Averaging: ptr(0.25),
				Throttled: ptr(0.125), Contended: ptr(0.025), Demand: ptr(0.5)},
		},
		"nothing reported": {
			series: bursty, window: Window{0, 4 * time.Second}, cpus: 4,
			want: Parts{Used: ptr(0.3), Averaging: ptr(0.7),
				Throttled: ptr(0.125), Contended: ptr(0.025), Demand: ptr(0.45)},
		},
		"throttled is summed over CPUs and not clamped, demand is": {
			series: series([4]float64{0.4, 7, 0, 0}, [4]float64{0.4, 7, 0, 0}), window: Window{0, 2 * time.Second}, cpus: 4,
			want: Parts{Used: ptr(0.4), Averaging: ptr(0), Throttled: ptr(7), Contended: ptr(0), Demand: ptr(4)},
		},
		"100 threads that wait for 2 CPUs are not 100 CPUs": {
			series: series([4]float64{1.5, 0, 98, 0}, [4]float64{1.5, 0, 98, 0}), window: Window{0, 2 * time.Second}, cpus: 2,
			want: Parts{Used: ptr(1.5), Averaging: ptr(0), Throttled: ptr(0), Contended: ptr(0.5), Demand: ptr(2)},
		},
		"wait that throttling explains is counted once": {
			series: series([4]float64{0.5, 1, 3, 3}, [4]float64{0.5, 1, 3, 3}), window: Window{0, 2 * time.Second}, cpus: 8,
			want: Parts{Used: ptr(0.5), Averaging: ptr(0), Throttled: ptr(1), Contended: ptr(0), Demand: ptr(1.5)},
		},
		"no run-queue probe": {
			series: Series{Points: bursty.Points, HasUsed: true, HasThrottled: true}, window: Window{0, 4 * time.Second}, cpus: 4,
			want: Parts{Used: ptr(0.3), Averaging: ptr(0.7), Throttled: ptr(0.125), Demand: ptr(0.425)},
		},
		"no bandwidth figures": {
			series: Series{Points: bursty.Points, HasUsed: true, HasWaited: true}, window: Window{0, 4 * time.Second}, cpus: 4,
			want: Parts{Used: ptr(0.3), Averaging: ptr(0.7), Contended: ptr(0.025)},
		},
		"no usage": {
			series: Series{Points: bursty.Points, HasThrottled: true, HasWaited: true}, window: Window{0, 4 * time.Second}, cpus: 4, reported: ptr(0.3),
			want: Parts{Throttled: ptr(0.125)},
		},
		"samples too far apart for a busiest second": {
			series: Series{HasUsed: true, Points: []Point{{}, {At: 5 * time.Second, Used: time.Second}}}, window: Window{0, 5 * time.Second}, cpus: 1,
			want: Parts{Used: ptr(0.2)},
		},
		"shorter than a second": {
			series: bursty, window: Window{time.Second, 1500 * time.Millisecond}, cpus: 4,
			want: Parts{Used: ptr(1), Throttled: ptr(0.5), Contended: ptr(0.1), Demand: ptr(1.6)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := tt.series.Parts(tt.window, tt.cpus, tt.reported)
			require.True(t, ok)
			assert.Equal(t, tt.window, got.Window)
			near(t, "used", tt.want.Used, got.Used)
			near(t, "accounting", tt.want.Accounting, got.Accounting)
			near(t, "averaging", tt.want.Averaging, got.Averaging)
			near(t, "throttled", tt.want.Throttled, got.Throttled)
			near(t, "contended", tt.want.Contended, got.Contended)
			near(t, "demand", tt.want.Demand, got.Demand)
		})
	}
}

func near(t *testing.T, part string, want, got *float64) {
	t.Helper()
	if want == nil {
		assert.Nil(t, got, part)
		return
	}
	if assert.NotNil(t, got, part) {
		assert.InDelta(t, *want, *got, 1e-6, part)
	}
}

func TestPartsNeedsTheWholeWindow(t *testing.T) {
	s := series([4]float64{1, 0, 0, 0}, [4]float64{1, 0, 0, 0})
	for name, w := range map[string]Window{
		"starts before the samples": {-time.Second, time.Second},
		"ends after them":           {0, 3 * time.Second},
		"empty":                     {time.Second, time.Second},
		"reversed":                  {2 * time.Second, time.Second},
	} {
		_, ok := s.Parts(w, 1, nil)
		assert.False(t, ok, name)
	}
	_, ok := Series{HasUsed: true}.Parts(Window{0, time.Second}, 1, nil)
	assert.False(t, ok, "no samples")
}

// random is a monotonic series with jittered samples, as a busy machine gives them.
func random(r *rand.Rand) Series {
	s := Series{HasUsed: true, HasThrottled: true, HasWaited: true}
	p := Point{}
	for range 20 {
		s.Points = append(s.Points, p)
		step := 700*time.Millisecond + time.Duration(r.Int64N(int64(600*time.Millisecond)))
		p.At += step
		p.Used += time.Duration(r.Float64() * 2 * float64(step))
		p.Throttled += time.Duration(r.Float64() * 3 * float64(step))
		wait := time.Duration(r.Float64() * 9 * float64(step))
		p.Waited += wait
		p.WaitedThrottled += time.Duration(r.Float64() * float64(wait))
	}
	return s
}

func TestProperties(t *testing.T) {
	const cpus, tiny = 2.0, 1e-6
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		s := random(r)
		end := s.Points[len(s.Points)-1].At
		from := time.Duration(r.Int64N(int64(end / 2)))
		w := Window{from, from + time.Second + time.Duration(r.Int64N(int64(end-from-time.Second)))}
		reported := r.Float64() * 3
		got, ok := s.Parts(w, cpus, &reported)
		if !ok {
			return false
		}
		first, _ := s.At(w.From)
		last, _ := s.At(w.To)
		used := (last.Used - first.Used).Seconds() / w.Length().Seconds()
		sum := *got.Used + *got.Throttled + *got.Contended
		return abs(*got.Used-used) < tiny &&
			abs(*got.Accounting+reported-used) < tiny && // reported + accounting is the kernel's mean
			*got.Averaging >= 0 &&
			*got.Used+*got.Averaging <= cpus+tiny && // no second is busier than the CPUs
			*got.Throttled >= 0 &&
			*got.Contended >= 0 && *got.Used+*got.Contended <= cpus+tiny &&
			*got.Demand >= *got.Used-tiny && *got.Demand <= cpus+tiny && *got.Demand <= sum+tiny
	}
	require.NoError(t, quick.Check(check, &quick.Config{MaxCount: 2000}))
}

// The parts of a window must not depend on where its origin lies.
func TestPartsAreShiftInvariant(t *testing.T) {
	check := func(seed uint64, shift int32) bool {
		s := random(rand.New(rand.NewPCG(seed, 2)))
		moved := Series{HasUsed: true, HasThrottled: true, HasWaited: true}
		d := time.Duration(shift) * time.Second
		for _, p := range s.Points {
			p.At += d
			p.Used += 5 * time.Hour
			moved.Points = append(moved.Points, p)
		}
		a, okA := s.Parts(Window{2 * time.Second, 9 * time.Second}, 2, nil)
		b, okB := moved.Parts(Window{2*time.Second + d, 9*time.Second + d}, 2, nil)
		return okA && okB && abs(*a.Used-*b.Used) < 1e-6 && abs(*a.Averaging-*b.Averaging) < 1e-6 && abs(*a.Demand-*b.Demand) < 1e-6
	}
	require.NoError(t, quick.Check(check, &quick.Config{MaxCount: 500}))
}

func abs(x float64) float64 {
	if x < 0 {
		return -x
	}
	return x
}
