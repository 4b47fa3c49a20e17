package bpf

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Demand returns, for each cgroup that has or had a limit, the periods that closed
// since the last call, oldest first. A period in which nothing ran is told only if
// the kernel counted it (nr_periods). Read it at least every 60 periods: the kernel
// side keeps 64, and what was overwritten is lost. The first period of a cgroup that
// is older than the probe is cut short by its start.
//
// Sums are the kernel's since attach, but for the open period: Throttled adds up to
// nr_throttled, Denied to throttled_time, Used to the time charged to the cgroup and
// all below it.
func (t *Tracer) Demand() (map[uint64][]Period, error) {
	coll, err := t.attached(ProbeDemand)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("reading CLOCK_MONOTONIC: %w", err)
	}
	all := make(map[uint64][]Period)
	err = readIndexed(coll, coll.Maps[demandMapDemands], func(id uint64, v []demandDemand) {
		s := t.series[id]
		if s == nil {
			s = &series{}
			t.series[id] = s
		}
		if periods := s.advance(&v[0], uint64(now.Nano())); len(periods) > 0 {
			all[id] = periods
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading bandwidth periods: %w", err)
	}
	return all, nil
}

// quiet is how many periods without an event close the last one. A throttled cgroup
// has an event as soon as it is unthrottled, in most cases a period later.
const quiet = 4

// series is how far a cgroup's ring has been told.
type series struct {
	last   demandPeriod // the open period, with the totals as told
	closed bool         // told already, for want of events
	flags  int          // throttled periods that the kernel counted and no period was told for
	denied uint64
}

// advance returns the periods that closed up to now (CLOCK_MONOTONIC, ns).
func (s *series) advance(d *demandDemand, now uint64) []Period {
	ring := make([]demandPeriod, 0, len(d.Ring))
	for _, p := range d.Ring {
		// The counters a period begins with settle during its first part.
		if p.Start >= s.last.Start && p.Start > 0 && now > p.Start+p.Length/4 {
			ring = append(ring, p)
		}
	}
	slices.SortFunc(ring, func(a, b demandPeriod) int { return cmp.Compare(a.Start, b.Start) })
	if len(ring) == 0 {
		return nil
	}
	if ring[0].Start != s.last.Start { // the first call, or overwritten in between
		*s = series{last: ring[0]}
	}
	var told []Period
	for _, next := range ring[1:] {
		told = append(told, s.close(next)...)
	}
	if !s.closed && now > s.last.Start+quiet*s.last.Length {
		last := s.last.tell(0, d.Used-s.last.Used)
		// What came late: of a period that was closed like this before.
		last.Denied, s.denied = time.Duration(s.denied), 0
		if s.flags > 0 {
			last.Throttled = true
			s.flags--
		}
		told = append(told, last)
		s.last.Used, s.closed = d.Used, true
	}
	return told
}

// close tells the open period, unless silence has closed it already, and those that the
// kernel counted between it and the next one that had an event: trailing idle ones, or
// such as the cgroup was throttled in from end to end.
func (s *series) close(next demandPeriod) []Period {
	s.flags += int(int32(next.NrThrottled - s.last.NrThrottled))
	s.denied += next.ThrottledTime - s.last.ThrottledTime
	open, told := s.last, s.closed
	s.last, s.closed = next, false
	between := max(1, int((next.Start-open.Start)/open.Length))
	counted := int(int32(next.NrPeriods - open.NrPeriods))
	periods := make([]Period, min(between, max(1, counted, s.flags)))
	for i := range periods {
		periods[i] = open.tell(i, 0)
	}
	if told {
		s.last.Used = open.Used // what came after is the next one's
		if periods = periods[1:]; len(periods) == 0 {
			return nil
		}
	} else {
		periods[0].Used = time.Duration(next.Used - open.Used)
	}
	throttled := max(0, min(s.flags, len(periods)))
	s.flags -= throttled
	for i := range throttled {
		periods[i].Throttled = true
		periods[i].Denied = time.Duration(s.denied / uint64(throttled))
	}
	if throttled > 0 {
		s.denied %= uint64(throttled)
	}
	periods[0].Denied += time.Duration(s.denied) // unthrottled before the period's end
	s.denied = 0
	return periods
}

// tell is the i-th period from p on.
func (p demandPeriod) tell(i int, used uint64) Period {
	return Period{
		Start:  time.Duration(p.Start + uint64(i)*p.Length),
		Used:   time.Duration(used),
		Quota:  time.Duration(p.Quota),
		Length: time.Duration(p.Length),
	}
}
