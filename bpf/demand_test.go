package bpf

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Periods of 100 ms and a quota of 20 ms; times are in ms.
const ms = uint64(time.Millisecond)

func at(start, used uint64, periods, throttled uint32, throttledTime uint64) demandPeriod {
	return demandPeriod{
		Start: start * ms, Used: used * ms, NrPeriods: periods, NrThrottled: throttled,
		ThrottledTime: throttledTime * ms, Quota: 20 * ms, Length: 100 * ms,
	}
}

func TestSeries(t *testing.T) {
	type step struct {
		now, used uint64
		ring      []demandPeriod // what the kernel wrote until now
	}
	type told struct {
		start, used, denied uint64
		throttled           bool
	}
	for name, c := range map[string]struct {
		steps []step
		want  [][]told // per step
	}{
		"nothing yet":              {[]step{{now: 50}}, [][]told{nil}},
		"the open one is not told": {[]step{{now: 150, used: 20, ring: []demandPeriod{at(100, 0, 1, 0, 0)}}}, [][]told{nil}},
		"throttled in every period": {
			[]step{
				{now: 330, used: 60, ring: []demandPeriod{at(100, 0, 1, 0, 0), at(200, 20, 2, 1, 80), at(300, 40, 3, 2, 160)}},
				{now: 430, used: 80, ring: []demandPeriod{at(400, 60, 4, 3, 240)}},
			},
			[][]told{{{100, 20, 80, true}, {200, 20, 80, true}}, {{300, 20, 80, true}}},
		},
		"the counters of a period that has only begun may still move": {
			[]step{{now: 210, used: 25, ring: []demandPeriod{at(100, 0, 1, 0, 0), at(200, 20, 1, 0, 0)}}},
			[][]told{nil},
		},
		"throttled from end to end in between": {
			[]step{{now: 450, used: 45, ring: []demandPeriod{at(100, 0, 1, 0, 0), at(400, 40, 4, 3, 300)}}},
			[][]told{{{100, 40, 100, true}, {200, 0, 100, true}, {300, 0, 100, true}}},
		},
		"idle in between": {
			[]step{{now: 950, used: 20, ring: []demandPeriod{at(100, 0, 1, 0, 0), at(900, 10, 2, 0, 0)}}},
			[][]told{{{100, 10, 0, false}}},
		},
		"silence closes the last": {
			[]step{{now: 501, used: 15, ring: []demandPeriod{at(100, 0, 1, 0, 0)}}, {now: 900, used: 15}},
			[][]told{{{100, 15, 0, false}}, nil},
		},
		"throttled as it fell silent": { // known with the next event, told as soon as that one is
			[]step{
				{now: 501, used: 20, ring: []demandPeriod{at(100, 0, 1, 0, 0)}},
				{now: 2000, used: 21, ring: []demandPeriod{at(1500, 20, 2, 1, 70)}},
			},
			[][]told{{{100, 20, 0, false}}, {{1500, 1, 70, true}}},
		},
		"counted after it fell silent": { // the timer goes on for a while
			[]step{
				{now: 501, used: 20, ring: []demandPeriod{at(100, 0, 1, 0, 0)}},
				{now: 2000, used: 21, ring: []demandPeriod{at(1500, 20, 4, 1, 70)}},
			},
			[][]told{{{100, 20, 0, false}}, {{200, 0, 70, true}, {300, 0, 0, false}, {1500, 1, 0, false}}},
		},
		"overwritten": {
			[]step{
				{now: 230, used: 30, ring: []demandPeriod{at(100, 0, 1, 0, 0), at(200, 20, 2, 0, 0)}},
				{now: 90_130, used: 7020, ring: append(full(90_000), at(90_100, 7000, 900, 5, 400))},
			},
			[][]told{{{100, 20, 0, false}}, nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s series
			var d demandDemand
			for i, step := range c.steps {
				for _, p := range step.ring {
					d.Ring[p.Start/p.Length%uint64(len(d.Ring))] = p
				}
				d.Used = step.used * ms
				got := s.advance(&d, step.now*ms)
				if name == "overwritten" && i == 1 {
					assert.Less(t, len(got), len(d.Ring), "what was overwritten is not made up")
					continue
				}
				var want []Period
				for _, w := range c.want[i] {
					want = append(want, Period{
						Start: time.Duration(w.start * ms), Used: time.Duration(w.used * ms), Denied: time.Duration(w.denied * ms),
						Throttled: w.throttled, Quota: 20 * time.Millisecond, Length: 100 * time.Millisecond,
					})
				}
				assert.Equal(t, want, got, "step %d", i)
			}
		})
	}
}

// full is a ring's worth of periods up to and with last.
func full(last uint64) []demandPeriod {
	var all []demandPeriod
	for start := last - 62*100; start <= last; start += 100 {
		all = append(all, at(start, start/100, uint32(start/100), 0, 0))
	}
	return all
}

// loop is a shell that counts down from what it is told.
const loop = `while read n; do m=$n; while [ $m -gt 0 ]; do m=$((m-1)); done; echo $n; done`

// As many limited cgroups as a large node has, all throttled at the same time: each
// throttled period of each is told, and all time denied.
func TestDemandOfManyGroups(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 20 s")
	}
	var node unix.Sysinfo_t
	require.NoError(t, unix.Sysinfo(&node))
	if node.Totalram*uint64(node.Unit) < 2<<30 {
		t.Skip("1,000 processes need 2 GiB")
	}
	const count = 1000
	tracer := open(t, Config{Probes: []Probe{ProbeDemand}, MaxGroups: 4096})
	if !attached(t, tracer, ProbeDemand) {
		return
	}
	// The shortest quota of the longest period: together they want one CPU, and one tick
	// uses up more than a quota.
	const quota, period = time.Millisecond, time.Second
	const rounds = 100_000
	idle := newGroup(t)
	pace := idle.run(t, exec.Command("/bin/sh", "-c", loop))
	before := idle.stat(t).used
	pace.order(t, "%d", rounds)
	pace.answer(t)
	work := max(1, int(rounds*int64(5*quota)/int64(idle.stat(t).used-before)))

	cases := make(map[uint64]*limited)
	for range count {
		c := &limited{group: newGroup(t)}
		c.group.limit(t, quota, period)
		c.process = c.group.run(t, exec.Command("/bin/sh", "-c", loop))
		cases[c.group.id] = c
	}
	collect := func() {
		demand, err := tracer.Demand()
		require.NoError(t, err)
		for id, periods := range demand {
			if c := cases[id]; c != nil {
				c.periods = append(c.periods, periods...)
			}
		}
	}
	order := func(n int) {
		for _, c := range cases {
			c.process.order(t, "%d", n)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, c := range cases {
				c.process.out.Scan()
			}
		}()
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			case <-time.After(period):
			}
			collect()
		}
		time.Sleep(period + period/2) // the timers close what is open
	}
	order(work)
	order(1) // one more event closes each one's last period
	order(1) // and one that of which the kernel counted more than it had events
	collect()

	var throttled, kernelThrottled, periods, kernelPeriods int
	var denied, kernelDenied time.Duration
	for id, c := range cases {
		kernel := c.group.stat(t)
		require.NotZero(t, kernel.throttledPeriods, "cgroup %d", id)
		flags := 0
		for _, p := range c.periods {
			if p.Throttled {
				flags++
			}
			denied += p.Denied
		}
		assert.Equal(t, kernel.throttledPeriods, flags, "throttled periods of cgroup %d", id)
		throttled, kernelThrottled = throttled+flags, kernelThrottled+kernel.throttledPeriods
		periods, kernelPeriods = periods+len(c.periods), kernelPeriods+kernel.periods
		kernelDenied += kernel.throttled
	}
	t.Logf("%d cgroups: %d periods, the kernel counted %d; %d throttled, %d; denied %s, %s",
		count, periods, kernelPeriods, throttled, kernelThrottled, denied, kernelDenied)
	assert.Equal(t, kernelThrottled, throttled)
	assert.InEpsilon(t, kernelDenied, denied, 0.001)
	for _, m := range tracer.Maps() {
		assert.Zero(t, m.Lost, m.Map)
	}
	report(tracer, ProbeDemand, fmt.Sprintf("throttled periods of %d cgroups at once, nr_throttled", count),
		agreement(time.Duration(throttled), time.Duration(kernelThrottled)))
	info, err := tracer.probes[0].coll.Maps[demandMapDemands].Info()
	require.NoError(t, err)
	bytes, known := info.Memlock()
	t.Logf("%d bytes a cgroup; with what the kernel keeps beside it %d (known: %t)", info.ValueSize, bytes/uint64(info.MaxEntries), known)
}
