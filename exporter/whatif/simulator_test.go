package whatif

import (
	"math"
	"math/rand/v2"
	"time"
)

// A discrete-event simulator of CFS bandwidth control, written from
// kernel/sched/fair.c and not from the estimator: a global pool that a timer
// refills, CPUs that draw slices of it and keep what they have not used, threads
// that stay on a CPU that is throttled. All times in ms.
const (
	simPeriod = 100.0
	simSlice  = 5.0 // sched_cfs_bandwidth_slice_us
	simKeep   = 1.0 // min_cfs_rq_runtime: what an idle CPU does not give back
)

type simJob struct{ at, work float64 }

type simCPU struct {
	local     float64
	left      float64 // of the job that it runs
	throttled bool
	since     float64
}

type simulator struct {
	quota, burst float64
	pool         float64
	cpus         []simCPU
	queue        []float64
	idle         bool // cfs_b->idle: nobody drew since the timer last ran
	active       bool // the timer runs

	used, denied float64
	out          []Period
}

// simulate runs jobs, which any of the CPUs takes in the order of arrival.
func simulate(jobs []simJob, cpus int, quota, burst, until float64) []Period {
	s := &simulator{quota: quota, burst: burst, pool: quota, cpus: make([]simCPU, cpus)}
	now, boundary := 0.0, simPeriod
	for now < until {
		for len(jobs) > 0 && jobs[0].at <= now+1e-9 {
			s.queue = append(s.queue, jobs[0].work)
			jobs = jobs[1:]
		}
		s.dispatch(now)
		step := boundary - now
		if len(jobs) > 0 {
			step = min(step, jobs[0].at-now)
		}
		for _, c := range s.cpus {
			if c.left > 0 && !c.throttled {
				step = min(step, c.left, c.local)
			}
		}
		now += step
		for i := range s.cpus {
			if c := &s.cpus[i]; c.left > 0 && !c.throttled {
				c.left -= step
				c.local -= step
				s.used += step
				if c.left < 1e-9 {
					c.left = 0
				}
			}
		}
		if now >= boundary-1e-9 {
			s.timer(now)
			boundary += simPeriod
		}
	}
	return s.out
}

func (s *simulator) dispatch(now float64) {
	for i := range s.cpus {
		c := &s.cpus[i]
		if c.throttled {
			continue
		}
		if c.left == 0 && len(s.queue) > 0 {
			c.left, s.queue = s.queue[0], s.queue[1:]
		}
		if c.left == 0 {
			if c.local > simKeep {
				s.pool = min(s.pool+c.local-simKeep, s.quota+s.burst)
				c.local = simKeep
			}
			continue
		}
		if c.local < 1e-9 {
			draw := min(simSlice, s.pool)
			s.pool -= draw
			c.local = draw
			s.idle = false
			s.active = true
			if draw < 1e-9 {
				c.throttled, c.since = true, now
			}
		}
	}
}

// timer is do_sched_cfs_period_timer.
func (s *simulator) timer(now float64) {
	throttled := false
	for _, c := range s.cpus {
		throttled = throttled || c.throttled
	}
	counted := s.active
	if s.active && s.idle && !throttled {
		s.active = false
	}
	s.pool = min(s.pool+s.quota, s.quota+s.burst)
	s.idle = true
	for i := range s.cpus {
		if c := &s.cpus[i]; c.throttled {
			s.denied += now - c.since
			c.throttled = false
			s.idle = false
		}
	}
	if counted {
		ns := func(ms float64) time.Duration { return time.Duration(math.Round(ms * 1e6)) }
		s.out = append(s.out, Period{
			Start: ns(now - simPeriod), Used: ns(s.used), Denied: ns(s.denied), Throttled: throttled,
			Quota: ns(s.quota), Length: ns(simPeriod),
		})
	}
	s.used, s.denied = 0, 0
}

// randomJobs draws a kind of load and its figures: regular, random, heavy-tailed
// or in bursts, on one thread or more.
func randomJobs(rnd *rand.Rand, until float64) []simJob {
	var jobs []simJob
	interval, work := 10+rnd.Float64()*400, 2+rnd.Float64()*40
	threads, kind := 1+rnd.IntN(3), rnd.IntN(4)
	for at := rnd.Float64() * interval; at < until; {
		w := work
		switch kind {
		case 1:
			w = rnd.ExpFloat64() * work
		case 2:
			w = min(work/3/math.Pow(1-rnd.Float64(), 1/1.5), 300)
		}
		for range threads {
			jobs = append(jobs, simJob{at, max(w, 0.05)})
		}
		if kind == 0 || kind == 3 && int(at/1000)%2 == 0 {
			at += interval
		} else {
			at += rnd.ExpFloat64() * interval
		}
	}
	return jobs
}
