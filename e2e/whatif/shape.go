// Package whatif runs work of known shapes on the real scheduler under one CPU
// limit after the other, and records what the demand probe saw, so that
// predictions from one limit can be held against what happened at another.
//
// Work is counted in iterations, not in seconds: a shape is the same work at
// every limit, however long it takes there.
package whatif

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Job is work that arrives at a moment, of which each thread takes its share.
type Job struct {
	At      time.Duration
	Threads int
	Work    time.Duration // of one thread, on an undisturbed CPU
}

// Shape is a kind of work. It is either open, jobs that arrive whatever became of
// the ones before, or closed: each thread rests for a while after its work is done.
type Shape struct {
	Name    string
	Threads int
	jobs    func(rnd *rand.Rand, until time.Duration) []Job
	work    func(rnd *rand.Rand) (work, rest time.Duration) // closed
}

const ms = time.Millisecond

// Shapes returns the twelve shapes: what services, batch workers, garbage
// collectors and timers do to a CPU limit.
func Shapes() []Shape {
	every := func(interval, work time.Duration, threads int) func(*rand.Rand, time.Duration) []Job {
		return func(rnd *rand.Rand, until time.Duration) (jobs []Job) {
			phase := time.Duration(rnd.Int64N(int64(interval)))
			for at := phase; at < until; at += interval {
				jobs = append(jobs, Job{at, threads, work})
			}
			return jobs
		}
	}
	arrivals := func(mean time.Duration, work func(*rand.Rand) time.Duration) func(*rand.Rand, time.Duration) []Job {
		return func(rnd *rand.Rand, until time.Duration) (jobs []Job) {
			for at := time.Duration(0); at < until; at += time.Duration(rnd.ExpFloat64() * float64(mean)) {
				jobs = append(jobs, Job{at, 1, work(rnd)})
			}
			return jobs
		}
	}
	return []Shape{
		{Name: "steady", Threads: 1, jobs: every(10*ms, 3*ms, 1)},
		{Name: "single-burst", Threads: 1, jobs: every(500*ms, 70*ms, 1)},
		{Name: "parallel-burst", Threads: 2, jobs: every(310*ms, 45*ms, 2)},
		{Name: "requests", Threads: 4, jobs: arrivals(50*ms, func(r *rand.Rand) time.Duration {
			return time.Duration(r.ExpFloat64() * float64(12*ms))
		})},
		{Name: "heavy-tail", Threads: 2, jobs: arrivals(40*ms, func(r *rand.Rand) time.Duration {
			return min(time.Duration(float64(4*ms)/math.Pow(1-r.Float64(), 1/1.5)), 200*ms)
		})},
		{Name: "rare-spike", Threads: 2, jobs: every(2*time.Second, 120*ms, 2)},
		{Name: "sawtooth", Threads: 1, jobs: func(rnd *rand.Rand, until time.Duration) (jobs []Job) {
			step := rnd.IntN(12)
			for at := time.Duration(0); at < until; at += 100 * ms {
				jobs = append(jobs, Job{at, 1, time.Duration(5+5*(step%12)) * ms})
				step++
			}
			return jobs
		}},
		{Name: "on-off", Threads: 1, jobs: func(rnd *rand.Rand, until time.Duration) (jobs []Job) {
			phase := time.Duration(rnd.Int64N(int64(time.Second)))
			for at := time.Duration(0); at < until; at += 20 * ms {
				if (at+phase)/time.Second%2 == 0 {
					jobs = append(jobs, Job{at, 1, 10 * ms})
				}
			}
			return jobs
		}},
		{Name: "collector", Threads: 3, jobs: func(rnd *rand.Rand, until time.Duration) []Job {
			jobs := append(every(25*ms, 4*ms, 1)(rnd, until), every(900*ms, 60*ms, 2)(rnd, until)...)
			slices.SortFunc(jobs, func(a, b Job) int { return cmp.Compare(a.At, b.At) })
			return jobs
		}},
		{Name: "closed-loop", Threads: 1, work: func(r *rand.Rand) (time.Duration, time.Duration) {
			return time.Duration(5+r.IntN(20)) * ms, 35 * ms
		}},
		{Name: "closed-pair", Threads: 2, work: func(r *rand.Rand) (time.Duration, time.Duration) {
			return time.Duration(10+r.IntN(30)) * ms, time.Duration(40+r.IntN(80)) * ms
		}},
		{Name: "jitter", Threads: 1, jobs: func(rnd *rand.Rand, until time.Duration) (jobs []Job) {
			for at := time.Duration(0); at < until; at += 100 * ms {
				work := time.Duration((38 + 14*rnd.NormFloat64()) * float64(ms))
				jobs = append(jobs, Job{at, 1, max(work, ms)})
			}
			return jobs
		}},
	}
}

// ByName finds a shape.
func ByName(name string) (Shape, error) {
	for _, s := range Shapes() {
		if s.Name == name {
			return s, nil
		}
	}
	return Shape{}, fmt.Errorf("no shape is called %q", name)
}

// Run does the work until the time is over; work that waits then is left.
// perMS is how many iterations a millisecond of work is; see Calibrate.
func (s Shape) Run(ctx context.Context, seed uint64, perMS int, length time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var all sync.WaitGroup
	if s.work != nil {
		align()
		for i := range s.Threads {
			all.Go(func() {
				runtime.LockOSThread()
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				for ctx.Err() == nil {
					work, rest := s.work(rnd)
					spin(ctx, work, perMS)
					time.Sleep(rest)
				}
			})
		}
		all.Wait()
		return
	}
	jobs := s.jobs(rand.New(rand.NewPCG(seed, 0)), length)
	queue := make(chan time.Duration, s.Threads*len(jobs))
	for range s.Threads {
		all.Go(func() {
			runtime.LockOSThread()
			for work := range queue {
				spin(ctx, work, perMS)
			}
		})
	}
	align()
	start := time.Now()
	for _, j := range jobs {
		time.Sleep(j.At - time.Since(start))
		for range j.Threads {
			queue <- j.Work
		}
	}
	close(queue)
	all.Wait()
}

// align waits for the clock that the kernel's period timers run on to be at a whole
// number of periods: timers of a cgroup keep their phase to it.
func align() {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		time.Sleep(length - time.Duration(now.Nano())%length)
	}
}

// sink keeps the compiler from leaving the work out.
var sink atomic.Uint64

// spin does work, in steps small enough to end with ctx.
func spin(ctx context.Context, work time.Duration, perMS int) {
	for left := int(work.Seconds() * 1000 * float64(perMS)); left > 0 && ctx.Err() == nil; left -= perMS {
		iterate(min(left, perMS))
	}
}

func iterate(n int) {
	x := uint64(88172645463325252)
	for range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	sink.Store(x)
}

// Calibrate returns how many iterations this machine does in a millisecond when
// nothing disturbs it: the best of many tries.
func Calibrate() int {
	const n = 1_000_000
	best := time.Hour
	for range 200 {
		start := time.Now()
		iterate(n)
		best = min(best, time.Since(start))
	}
	return int(float64(n) / (best.Seconds() * 1000))
}
