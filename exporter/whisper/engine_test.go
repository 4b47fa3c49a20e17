package whisper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// run feeds one observation a second and returns the second and the kind of each event.
func run(t *testing.T, cfg Config, each func(second int) []Observation, seconds int) []string {
	t.Helper()
	e, err := NewEngine(cfg)
	require.NoError(t, err)
	began := time.Unix(1_800_000_000, 0)
	var told []string
	for s := range seconds {
		now := began.Add(time.Duration(s) * time.Second)
		for _, ev := range e.Observe(now, each(s)) {
			kind := "active"
			if ev.Resolved {
				kind = "resolved"
			}
			told = append(told, now.Sub(began).String()+" "+kind)
		}
	}
	return told
}

func seen(periods, throttled uint64) Observation {
	return Observation{Target: Target{Namespace: "n", Pod: "p", Container: "c"}, Window: time.Minute, Periods: periods, Throttled: throttled}
}

func TestEngine(t *testing.T) {
	known := 0.2
	for _, tc := range []struct {
		name string
		each func(s int) []Observation
		want []string
	}{
		{"under the threshold nothing is told", func(int) []Observation { return []Observation{seen(100, 49)} }, nil},
		{"at the threshold it is, once", func(int) []Observation { return []Observation{seen(100, 50)} }, []string{"0s active"}},
		{"too few periods prove nothing", func(int) []Observation { return []Observation{seen(19, 19)} }, nil},
		{"twenty do", func(s int) []Observation { return []Observation{seen(uint64(10*s), uint64(10*s))} }, []string{"2s active"}},
		{"another band is another event", func(s int) []Observation {
			if s < 5 {
				return []Observation{seen(100, 60)}
			}
			return []Observation{seen(100, 95)}
		}, []string{"0s active", "5s active"}},
		{"jitter at a bound does not flap", func(s int) []Observation { return []Observation{seen(100, uint64(75-s%2))} }, []string{"0s active"}},
		{"calm for ten seconds is resolved", func(s int) []Observation {
			if s < 3 {
				return []Observation{seen(100, 60)}
			}
			return []Observation{seen(100, 10)}
		}, []string{"0s active", "13s resolved"}},
		{"gone for ten seconds is resolved", func(s int) []Observation {
			if s < 3 {
				return []Observation{seen(100, 60)}
			}
			return nil
		}, []string{"0s active", "12s resolved"}},
		{"what is reported completes the evidence", func(s int) []Observation {
			o := seen(100, 60)
			if s >= 7 {
				o.ReportedCores = &known
			}
			return []Observation{o}
		}, []string{"0s active", "7s active"}},
		{"a container without a name waits for it", func(s int) []Observation {
			o := seen(100, 60)
			if s < 4 {
				o.Target = Target{Container: "c"}
			}
			return []Observation{o}
		}, []string{"4s active"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, run(t, DefaultConfig(), tc.each, 30))
		})
	}
}

// The what-if model takes a minute to answer, and another one after the limit changed.
func TestEngineFollowsTheModel(t *testing.T) {
	began := time.Unix(1_800_000_000, 0)
	at := func(throttled uint64, limit float64, p wire.Prediction) []Observation {
		o := seen(100, throttled)
		o.LimitCores, o.Prediction = &limit, &p
		return []Observation{o}
	}
	tooShort, predicted := wire.Prediction{Outcome: "too_short"}, wire.Prediction{Outcome: "predicted"}
	check := func(second int) wire.Prediction {
		return wire.Prediction{Outcome: "predicted", Check: &wire.LimitCheck{Timestamp: began.Add(time.Duration(second) * time.Second)}}
	}
	for _, tc := range []struct {
		name    string
		each    func(second int) []Observation
		seconds int
		want    []string
	}{
		{"its first answer is told, once", func(s int) []Observation {
			if s < 60 {
				return at(60, 0.2, tooShort)
			}
			return at(60, 0.2, predicted)
		}, 200, []string{"0s active", "1m0s active"}},
		{"another answer is told, and one that sways not each second", func(s int) []Observation {
			if s%2 == 0 {
				return at(60, 0.2, wire.Prediction{Outcome: "saturated"})
			}
			return at(60, 0.2, predicted)
		}, 100, []string{"0s active", "1m1s active"}},
		{"a changed limit that did not help", func(s int) []Observation {
			switch {
			case s < 100:
				return at(60, 0.2, predicted)
			case s < 160:
				return at(60, 0.3, tooShort)
			}
			return at(60, 0.3, check(160))
		}, 250, []string{"0s active", "2m40s active"}},
		{"a changed limit that did, told after the calm", func(s int) []Observation {
			switch {
			case s < 100:
				return at(60, 0.2, predicted)
			case s < 160:
				return at(0, 0.3, tooShort)
			}
			return at(0, 0.3, check(160))
		}, 250, []string{"0s active", "1m50s resolved", "2m40s resolved"}},
		{"a change long after is nobody's", func(s int) []Observation {
			switch {
			case s < 100:
				return at(60, 0.2, predicted)
			case s < 800:
				return at(0, 0.2, predicted)
			}
			return at(0, 0.3, check(800))
		}, 900, []string{"0s active", "1m50s resolved"}},
		{"one that is throttled again is told as that", func(s int) []Observation {
			switch {
			case s < 100:
				return at(60, 0.2, predicted)
			case s < 130:
				return at(0, 0.3, tooShort)
			case s < 160:
				return at(60, 0.3, tooShort)
			}
			return at(60, 0.3, check(160))
		}, 250, []string{"0s active", "1m50s resolved", "2m10s active", "2m40s active"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, run(t, DefaultConfig(), tc.each, tc.seconds))
		})
	}
}

func TestEngineTellsAgain(t *testing.T) {
	told := run(t, DefaultConfig(), func(int) []Observation { return []Observation{seen(100, 60)} }, 601)
	assert.Equal(t, []string{"0s active", "5m0s active", "10m0s active"}, told)
}
