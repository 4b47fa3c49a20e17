package whatif

import (
	"math"
	"time"
)

const (
	// slice is what a period may use beyond its quota before the kernel throttles
	// it: CPUs draw runtime in slices and give the rest back late.
	slice = 0.2e6 // ns
	// active is the least use that makes the kernel's timer count the period.
	active = 0.3e6 // ns
)

// slot is a period on an unbroken grid; times in ns.
type slot struct {
	used, denied float64
	throttled    bool
}

// trace is an observation at one limit.
type trace struct {
	slots   []slot
	counted int     // by the kernel, of which
	cut     int     // were throttled
	mean    float64 // used per slot
	free    float64 // used per slot outside of episodes
	clear   float64 // share of counted periods outside of episodes
}

// episode is a run of throttled slots and the first free one after it, or what
// there is of it at the end.
type episode struct{ from, to int }

// grid places periods on slots; those that the kernel did not count were idle.
func grid(ps []Period) trace {
	var t trace
	for i, p := range ps {
		if i > 0 {
			idle := int(math.Round(float64(p.Start-ps[i-1].Start)/float64(p.Length))) - 1
			for range max(idle, 0) {
				t.slots = append(t.slots, slot{})
			}
		}
		t.slots = append(t.slots, slot{float64(p.Used), float64(p.Denied), p.Throttled})
		t.counted++
		if p.Throttled {
			t.cut++
		}
		t.mean += float64(p.Used)
	}
	if t.counted == 0 {
		return t
	}
	t.mean /= float64(len(t.slots))

	var inside, counted int
	used := 0.0
	for _, e := range t.episodes() {
		for _, s := range t.slots[e.from:e.to] {
			used += s.used
			inside++
			if s.used > 0 || s.throttled {
				counted++
			}
		}
	}
	if outside := len(t.slots) - inside; outside > 0 {
		t.free = (t.mean*float64(len(t.slots)) - used) / float64(outside)
	}
	t.clear = max(0, float64(t.counted-counted)/float64(t.counted))
	return t
}

func (t *trace) episodes() []episode {
	var out []episode
	for i := 0; i < len(t.slots); i++ {
		if !t.slots[i].throttled {
			continue
		}
		e := episode{from: i}
		for i < len(t.slots) && t.slots[i].throttled {
			i++
		}
		e.to = min(i+1, len(t.slots))
		out = append(out, e)
	}
	return out
}

// demand is when the work arrived, per slot. Outside of episodes that is when it
// was done. Within one, the first period's use and rate in each later one arrived
// in their place; the rest was put off, and arrived as early as the denied time
// allows. The smaller the rate, the earlier and the more at once.
func (t *trace) demand(rate, most float64) []float64 {
	d := make([]float64, len(t.slots))
	for i, s := range t.slots {
		d[i] = s.used
	}
	for _, e := range t.episodes() {
		after := e.to - e.from - 1
		if after == 0 {
			continue
		}
		later := 0.0
		for _, s := range t.slots[e.from+1 : e.to] {
			later += s.used
		}
		base := min(rate, later/float64(after))
		rest := later - base*float64(after)
		for k := e.from; k < e.to; k++ {
			own := base
			if k == e.from {
				own = t.slots[k].used
			}
			early := rest
			if k < e.to-1 {
				early = min(rest, max(0, min(t.slots[k].used+t.slots[k].denied, most)-own))
			}
			d[k] = own + early
			rest -= early
		}
	}
	return d
}

// replay runs demand against a limit as the kernel does: the pool is filled to
// quota at each period, and by burst more with what was left over; what does not
// fit waits. most is what the threads can use of a period. It returns throttled
// and counted periods; the latter change with the limit, because backlog makes
// periods active.
func replay(demand []float64, scale, quota, burst, most float64) (throttled, counted int) {
	backlog, pool, running := 0.0, quota, false
	for _, d := range demand {
		want := backlog + d*scale
		if want > active {
			counted++
			running = true
		} else if running { // the timer runs once more before it stops
			counted++
			running = false
		}
		able := min(want, most)
		if able > pool+slice {
			throttled++
		}
		served := min(able, pool)
		backlog = want - served
		pool = min(pool-served+quota, quota+burst)
	}
	return throttled, counted
}

func ratio(throttled, counted int) float64 {
	if counted == 0 {
		return 0
	}
	return float64(throttled) / float64(counted)
}

// wilson is the interval of a share that was seen k times in n, at z standard errors.
func wilson(k, n int, z float64) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	p, m := float64(k)/float64(n), float64(n)
	centre := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, centre-half), min(1, centre+half)
}

// smallest is the least of limits from lo to hi (ns per period) that holds, to a
// hundredth. hi is taken to hold.
func smallest(lo, hi float64, holds func(quota float64) bool) float64 {
	for hi > lo*1.01 {
		mid := math.Sqrt(lo * hi)
		if holds(mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi
}

func span(ps []Period) time.Duration {
	if len(ps) == 0 {
		return 0
	}
	last := ps[len(ps)-1]
	return last.Start + last.Length - ps[0].Start
}
