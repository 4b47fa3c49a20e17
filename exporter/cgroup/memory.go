package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// MemoryStat is what a cgroup and all below it hold, in bytes, and how often they had
// to fetch pages (mm/memcontrol.c; memory.current, memory.max and memory.stat, or
// v1's memory.usage_in_bytes, memory.limit_in_bytes and the totals of memory.stat).
type MemoryStat struct {
	At    time.Time
	Usage uint64
	// WorkingSet is usage less inactive file pages, as the kubelet works it out.
	WorkingSet uint64
	Anon       uint64
	Limit      uint64 // the cgroup's own; 0: none
	// Faults, of which Major had to wait for a disk.
	Faults, Major uint64
	// Refaults are faults of pages that had been evicted while they were in use.
	Refaults uint64
	// HasRefaults is false on v1 kernels that do not count them by cgroup.
	HasRefaults bool
}

// MemoryEvent is a line of memory.events, or its like on cgroup v1.
type MemoryEvent int

// The events: throttled at memory.high, memory.max reached, out of memory, killed for
// it; and v1's memory.failcnt, which also counts each retry of a charge.
const (
	EventHigh MemoryEvent = iota
	EventMax
	EventOOM
	EventOOMKill
	EventFailcnt
	MemoryEventKinds
)

// String is the event's name in the kernel's file.
func (e MemoryEvent) String() string {
	return [...]string{"high", "max", "oom", "oom_kill", "failcnt"}[e]
}

// MemoryEvents counts events since the cgroup was made; Told says which of them this
// kernel counts.
type MemoryEvents struct {
	Count [MemoryEventKinds]uint64
	Told  [MemoryEventKinds]bool
}

// MemoryCounts are the events of the cgroup and all below it, and of it alone.
type MemoryCounts struct {
	Group MemoryEvents // memory.events, or v1's memory.oom_control and memory.failcnt
	Own   MemoryEvents // memory.events.local (5.2)
}

// Stall is the time in which some, or all, of the tasks that had something to do
// waited for a resource (PSI, kernel/sched/psi.c).
type Stall struct {
	Some, Full       time.Duration
	HasSome, HasFull bool // full of cpu: from 5.13 on
}

// Pressure is what cpu.pressure, memory.pressure and io.pressure add up. What the
// kernel does not keep (cgroup v1, no PSI) has neither Some nor Full.
type Pressure struct {
	CPU, Memory, IO Stall
}

// Memory reads what the cgroup holds; false where the memory controller does not
// account for it.
func (r *Reader) Memory(g Group) (MemoryStat, bool, error) {
	if r.mounts.Memory == "" {
		return MemoryStat{}, false, nil
	}
	m := MemoryStat{At: time.Now()}
	var inactive uint64
	told, err := r.each(g, []control{
		{fileMemory, func(b []byte) (err error) { m.Usage, err = parseBytes("usage", b); return err }},
		{fileMemoryMax, func(b []byte) (err error) { m.Limit, err = parseBytes("limit", b); return err }},
		{fileMemoryStat, func(b []byte) (err error) {
			inactive, err = parseMemoryStat(b, r.mounts.Version, &m)
			return err
		}},
	})
	if err != nil || told < 3 { // v2's root has no limit
		return MemoryStat{}, false, err
	}
	if m.Limit >= unlimited {
		m.Limit = 0
	}
	// Read one after the other, so that one may be ahead.
	m.WorkingSet = m.Usage - min(inactive, m.Usage)
	return m, true, nil
}

// unlimited is where limits end to be some: v1 shows none as the largest multiple of
// a page (PAGE_COUNTER_MAX), v2 as "max".
const unlimited = 1 << 62

// MemoryCounts reads the cgroup's events; without a memory controller nothing is told.
func (r *Reader) MemoryCounts(g Group) (MemoryCounts, error) {
	var c MemoryCounts
	if r.mounts.Memory == "" {
		return c, nil
	}
	all := []control{
		{fileMemoryEvents, func(b []byte) error { return parseMemoryEvents(b, &c.Group) }},
		{fileMemoryEventsLocal, func(b []byte) error { return parseMemoryEvents(b, &c.Own) }},
	}
	if r.mounts.Version == 1 {
		all[1] = control{fileFailcnt, func(b []byte) (err error) {
			c.Group.Count[EventFailcnt], err = parseBytes("failcnt", b)
			c.Group.Told[EventFailcnt] = err == nil
			return err
		}}
	}
	_, err := r.each(g, all)
	return c, err
}

// Pressure reads the cgroup's PSI totals; on cgroup v1 there are none.
func (r *Reader) Pressure(g Group) (Pressure, error) {
	var p Pressure
	if r.mounts.Version == 1 {
		return p, nil
	}
	_, err := r.each(g, []control{
		{fileCPUPressure, func(b []byte) error { return parsePressure(b, &p.CPU) }},
		{fileMemoryPressure, func(b []byte) error { return parsePressure(b, &p.Memory) }},
		{fileIOPressure, func(b []byte) error { return parsePressure(b, &p.IO) }},
	})
	return p, err
}

// control is a file and what reads it.
type control struct {
	file  fileKind
	parse func([]byte) error
}

// each reads those of the files that are there, and tells how many.
func (r *Reader) each(g Group, files []control) (told int, err error) {
	s, err := r.acquire(g.Path, g.ID)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	for _, f := range files {
		b, err := r.read(s, f.file, buf)
		if errors.Is(err, errAbsent) || errors.Is(err, unix.EOPNOTSUPP) { // psi=0
			continue
		}
		if err == nil {
			err = f.parse(b)
		}
		if err != nil {
			return told, r.fail(s, f.file, err)
		}
		told++
	}
	return told, nil
}

// parseBytes reads a file of one number, or "max".
func parseBytes(field string, b []byte) (uint64, error) {
	line, err := oneLine(b)
	if err != nil {
		return 0, err
	}
	if string(line) == "max" {
		return math.MaxUint64, nil
	}
	return parseUint(field, line)
}

// parseKeyed calls visit for each line "key value" of a flat keyed file.
func parseKeyed(b []byte, visit func(key, value []byte) error) error {
	if len(b) > 0 && b[len(b)-1] != '\n' {
		return errTruncated
	}
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte{'\n'})
		key, value, _ := bytes.Cut(line, []byte{' '})
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// parseMemoryStat reads memory.stat into m. Inactive file pages are returned: they
// are no part of the working set.
func parseMemoryStat(b []byte, version int, m *MemoryStat) (inactive uint64, err error) {
	prefix := ""
	if version == 1 {
		prefix = "total_" // v1's plain figures leave out what is below
	}
	sawInactive, sawFaults := false, false
	err = parseKeyed(b, func(key, value []byte) error {
		rest, ok := bytes.CutPrefix(key, []byte(prefix))
		if !ok {
			return nil
		}
		var into *uint64
		add := false
		switch string(rest) {
		case "inactive_file":
			into, sawInactive = &inactive, true
		case "anon", "rss": // as v2 and v1 call it
			into = &m.Anon
		case "pgfault":
			into, sawFaults = &m.Faults, true
		case "pgmajfault":
			into = &m.Major
		case "workingset_refault", "workingset_refault_anon", "workingset_refault_file": // the first until 5.8
			into, add, m.HasRefaults = &m.Refaults, true, true
		default:
			return nil
		}
		n, err := parseUint(string(key), value)
		if add {
			n += *into
		}
		*into = n
		return err
	})
	switch {
	case err != nil:
	case !sawInactive:
		err = missing(prefix + "inactive_file")
	case !sawFaults:
		err = missing(prefix + "pgfault")
	}
	return inactive, err
}

// parseMemoryEvents reads memory.events, memory.events.local or v1's memory.oom_control.
func parseMemoryEvents(b []byte, e *MemoryEvents) error {
	return parseKeyed(b, func(key, value []byte) error {
		for kind := range MemoryEventKinds {
			if string(key) != kind.String() {
				continue
			}
			if e.Told[kind] {
				return fmt.Errorf("field %s appears twice", key)
			}
			n, err := parseUint(kind.String(), value)
			e.Count[kind], e.Told[kind] = n, err == nil
			return err
		}
		return nil
	})
}

// parsePressure reads the totals of a pressure file: "some avg10=0.00 avg60=0.00
// avg300=0.00 total=0", and full (Documentation/accounting/psi.rst). In µs.
func parsePressure(b []byte, s *Stall) error {
	return parseKeyed(b, func(kind, averages []byte) error {
		var into *time.Duration
		var has *bool
		switch string(kind) {
		case "some":
			into, has = &s.Some, &s.HasSome
		case "full":
			into, has = &s.Full, &s.HasFull
		default:
			return nil
		}
		_, total, ok := bytes.Cut(averages, []byte("total="))
		if !ok {
			return missing("total of " + string(kind))
		}
		d, err := parseDuration("total", total, time.Microsecond)
		*into, *has = d, err == nil
		return err
	})
}
