package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone is returned for a cgroup that was removed, before or during the read.
// errors.Is(err, fs.ErrNotExist) holds as well.
var ErrGone = fmt.Errorf("the cgroup is gone: %w", fs.ErrNotExist)

// errAbsent: the directory is there, the file is not.
var errAbsent = errors.New("no such control file")

// The files that are read, each kept open once it was.
type fileKind int

const (
	fileStat fileKind = iota
	fileStatLocal
	fileUsage // v1, in the cpuacct hierarchy
	fileMax   // cpu.max, or cpu.cfs_quota_us
	filePeriod
	fileBurst
	fileCPUs // in the cpuset hierarchy
	fileMemory
	fileMemoryMax
	fileMemoryStat
	fileMemoryEvents // or memory.oom_control
	fileMemoryEventsLocal
	fileFailcnt // v1
	fileCPUPressure
	fileMemoryPressure
	fileIOPressure
	fileKinds
)

const (
	// absentRetry is how long a control file that was not there is taken to be absent;
	// it comes when its controller is enabled.
	absentRetry = 30 * time.Second
	// idleAge is how old the figures may be of a cgroup that has used no CPU since they
	// were read, and whose periods no longer come: with neither nothing changes them.
	idleAge = 5 * time.Second
	// settled is after how long without a change no more periods are to come: the longest
	// there is takes a second (kernel/sched/core.c, max_cfs_quota_period).
	settled = 3 * time.Second
	// ancestorAge is how old an ancestor's limit may be: siblings share the read.
	ancestorAge = time.Second
	// bufferSize holds any of the files except a CPU list on the very largest machines.
	bufferSize = 4096
)

// Reader reads the control files of cgroups. Descriptors are kept open between
// reads, at most maxOpen of them; beyond that a file is opened for each read. It is
// safe for concurrent use.
type Reader struct {
	mounts  Mounts
	sysfs   string
	maxOpen int64
	onGone  func(path string) // told of a cgroup that turned out to be gone; may be nil

	open    atomic.Int64
	buffers sync.Pool

	mu     sync.RWMutex
	sets   map[string]*fileSet
	closed bool
}

// fileSet is the open files of one cgroup.
type fileSet struct {
	mu    sync.Mutex
	path  string
	id    ID // 0: an ancestor that is known by its path only
	files [fileKinds]struct {
		fd     int // valid when opened
		opened bool
		absent time.Time // when the file was last found missing
	}
	dead  bool           // taken out of the map; its files are closed
	local *time.Duration // last HierarchicalThrottledTime, shared while the value stays
	last  CPUStat        // as all of it was last read
	moved time.Time      // when all of it was read and was not as before

	limit   CPULimit // memo for descendants
	limitAt time.Time
}

// NewReader returns a Reader for the hierarchies of m. sysfs tells the online CPUs
// where no cpuset hierarchy does; maxOpen bounds the open descriptors.
func NewReader(m Mounts, sysfs string, maxOpen int) *Reader {
	return &Reader{
		mounts: m, sysfs: sysfs, maxOpen: int64(maxOpen),
		sets:    map[string]*fileSet{},
		buffers: sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }},
	}
}

// CPU reads the cgroup's cpu.stat, cpu.stat.local where the kernel has it, and on v1
// cpuacct.usage. A cgroup that was removed gives ErrGone.
func (r *Reader) CPU(g Group) (CPUStat, error) {
	s, err := r.acquire(g.Path, g.ID)
	if err != nil {
		return CPUStat{}, err
	}
	defer s.mu.Unlock()
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)

	stat := CPUStat{At: time.Now()}
	if r.mounts.Version == 1 {
		b, err := r.read(s, fileUsage, buf)
		if err == nil {
			stat.Usage, err = parseUsage(b)
			stat.HasUsage = err == nil
		}
		if err != nil && !errors.Is(err, errAbsent) {
			return CPUStat{}, r.fail(s, fileUsage, err)
		}
		if last, idle := s.idle(stat); idle {
			return last, nil
		}
	}
	b, err := r.read(s, fileStat, buf)
	if err == nil {
		err = parseCPUStat(b, r.mounts.Version, &stat)
	}
	// A v1 kernel without CFS bandwidth has no cpu.stat; v2 always has one.
	if err != nil && (r.mounts.Version == 2 || !errors.Is(err, errAbsent)) {
		return CPUStat{}, r.fail(s, fileStat, err)
	}
	if last, idle := s.idle(stat); idle {
		return last, nil
	}
	b, err = r.read(s, fileStatLocal, buf)
	switch {
	case err == nil:
		d, err := parseCPUStatLocal(b, r.mounts.Version)
		if err != nil {
			return CPUStat{}, r.fail(s, fileStatLocal, err)
		}
		// v2 has the file whether or not the controller that fills it is enabled.
		if stat.HasBandwidth {
			if s.local == nil || *s.local != d {
				changed := d // so that d itself need not escape
				s.local = &changed
			}
			stat.HierarchicalThrottledTime = s.local
		}
	case !errors.Is(err, errAbsent):
		return CPUStat{}, r.fail(s, fileStatLocal, err)
	}
	// The last use is followed by the ends of periods, and of a throttle that may last for
	// some, which count as well.
	if stat.Usage != s.last.Usage || stat.Periods != s.last.Periods || stat.ThrottledTime != s.last.ThrottledTime {
		s.moved = stat.At
	}
	s.last = stat
	return stat, nil
}

// idle is what was read before, as of now, where it has stood still and no CPU has been used
// since; false where it has, or where that was too long ago. On v2 now has all but what ancestors did.
func (s *fileSet) idle(now CPUStat) (CPUStat, bool) {
	if now.At.Sub(s.moved) < settled || !now.HasUsage || !s.last.HasUsage || now.Usage != s.last.Usage || now.At.Sub(s.last.At) >= idleAge {
		return CPUStat{}, false
	}
	out := s.last
	if out.At = now.At; now.HasBandwidth {
		now.HierarchicalThrottledTime = out.HierarchicalThrottledTime
		out = now
	}
	return out, true
}

// Limit reads the cgroup's own limit; the zero CPULimit means that it has none.
func (r *Reader) Limit(g Group) (CPULimit, error) {
	s, err := r.acquire(g.Path, g.ID)
	if err != nil {
		return CPULimit{}, err
	}
	defer s.mu.Unlock()
	return r.readLimit(s)
}

// EffectiveLimit is the smallest limit, in cores, among the cgroup's own and its
// ancestors' up to the root that is visible. Ancestors' are up to a second old.
func (r *Reader) EffectiveLimit(g Group) (EffectiveLimit, error) {
	own, err := r.Limit(g)
	if err != nil {
		return EffectiveLimit{}, err
	}
	smallest := EffectiveLimit{CPULimit: own}
	cores, limited := own.Cores()
	if limited {
		smallest.Path = g.Path
	}
	for path := g.Path; path != "/"; {
		path = parentPath(path)
		l, err := r.ancestorLimit(path)
		if err != nil {
			return EffectiveLimit{}, err
		}
		if c, ok := l.Cores(); ok && (!limited || c < cores) {
			smallest, cores, limited = EffectiveLimit{CPULimit: l, Path: path}, c, true
		}
	}
	return smallest, nil
}

// CPUs is the number of CPUs that the cgroup may run on, by its cpuset or the
// nearest ancestor's, or the number online where there is no cpuset controller.
func (r *Reader) CPUs(g Group) (int, error) {
	if r.mounts.CPUSet != "" {
		id := g.ID
		for path := g.Path; ; path, id = parentPath(path), 0 {
			n, err := r.readCPUs(path, id)
			if err != nil {
				return 0, err
			}
			if n > 0 {
				return n, nil
			}
			if path == "/" {
				break
			}
		}
	}
	file := filepath.Join(r.sysfs, "devices/system/cpu/online")
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("counting the CPUs online: %w", err)
	}
	n, err := parseCPUList(b)
	if err == nil && n == 0 {
		err = errEmpty
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}

// OpenFiles is the number of descriptors kept open.
func (r *Reader) OpenFiles() int { return int(r.open.Load()) }

// Close closes every file. Reads fail with fs.ErrClosed from then on.
func (r *Reader) Close() error {
	r.mu.Lock()
	sets := r.sets
	r.sets, r.closed = nil, true
	r.mu.Unlock()
	for _, s := range sets { // not under r.mu: a failing read takes both, the other way round
		r.kill(s)
	}
	return nil
}

func (r *Reader) isClosed() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.closed
}

// forget closes the files of a cgroup that was removed.
func (r *Reader) forget(path string) {
	r.mu.Lock()
	s := r.sets[path]
	delete(r.sets, path)
	r.mu.Unlock()
	if s != nil {
		r.kill(s)
	}
}

func (r *Reader) kill(s *fileSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.bury(s)
}

// bury closes the files of a set that is locked.
func (r *Reader) bury(s *fileSet) {
	s.dead = true
	for k := range s.files {
		r.closeFile(s, fileKind(k))
	}
}

// acquire returns the set of the cgroup, locked.
func (r *Reader) acquire(path string, id ID) (*fileSet, error) {
	for {
		r.mu.RLock()
		s, closed := r.sets[path], r.closed
		r.mu.RUnlock()
		if closed {
			return nil, fmt.Errorf("reading cgroup %s: %w", path, fs.ErrClosed)
		}
		if s == nil {
			s = &fileSet{path: path, id: id}
			r.mu.Lock()
			if other := r.sets[path]; other != nil {
				s = other
			} else if r.closed {
				s.dead = true
			} else {
				r.sets[path] = s
			}
			r.mu.Unlock()
		}
		s.mu.Lock()
		if s.dead {
			s.mu.Unlock()
			continue
		}
		if id != 0 && s.id != id { // another directory had this path, or nobody asked which
			for k := range s.files {
				r.closeFile(s, fileKind(k))
				s.files[k].absent = time.Time{}
			}
			s.id, s.local, s.last, s.limitAt = id, nil, CPUStat{}, time.Time{}
		}
		return s, nil
	}
}

// fail wraps err with what was read; a cgroup that is gone loses its set.
func (r *Reader) fail(s *fileSet, k fileKind, err error) error {
	if errors.Is(err, ErrGone) {
		r.mu.Lock()
		if r.sets[s.path] == s {
			delete(r.sets, s.path)
		}
		r.mu.Unlock()
		r.bury(s)
		if r.onGone != nil {
			r.onGone(s.path)
		}
	}
	dir, name := r.locate(k)
	return fmt.Errorf("reading %s: %w", filepath.Join(dir, s.path, name), err)
}

func (r *Reader) readLimit(s *fileSet) (CPULimit, error) {
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	b, err := r.read(s, fileMax, buf)
	if errors.Is(err, errAbsent) {
		return CPULimit{}, nil // the controller that would limit is not enabled here
	}
	var l CPULimit
	if err == nil && r.mounts.Version == 2 {
		l, err = parseCPUMax(b)
	} else if err == nil {
		l.Quota, err = parseQuota(b)
	}
	if err != nil {
		return CPULimit{}, r.fail(s, fileMax, err)
	}
	if r.mounts.Version == 1 {
		if b, err = r.read(s, filePeriod, buf); err == nil {
			var line []byte
			if line, err = oneLine(b); err == nil {
				l.Period, err = parsePositive("period", line)
			}
		}
		if err != nil {
			return CPULimit{}, r.fail(s, filePeriod, err)
		}
	}
	b, err = r.read(s, fileBurst, buf)
	if err == nil {
		l.Burst, err = parseMicroseconds("burst", b)
	}
	if err != nil && !errors.Is(err, errAbsent) { // 5.14 and newer have it
		return CPULimit{}, r.fail(s, fileBurst, err)
	}
	return l, nil
}

func (r *Reader) ancestorLimit(path string) (CPULimit, error) {
	s, err := r.acquire(path, 0)
	if err != nil {
		return CPULimit{}, err
	}
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.limitAt) >= ancestorAge {
		if s.limit, err = r.readLimit(s); err != nil {
			return CPULimit{}, err
		}
		s.limitAt = now
	}
	return s.limit, nil
}

// readCPUs counts the cgroup's own cpuset; 0 where it has none.
func (r *Reader) readCPUs(path string, id ID) (int, error) {
	s, err := r.acquire(path, id)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	b, err := r.read(s, fileCPUs, buf)
	if errors.Is(err, errAbsent) {
		return 0, nil
	}
	n := 0
	if err == nil {
		n, err = parseCPUList(b)
	}
	if err != nil {
		return 0, r.fail(s, fileCPUs, err)
	}
	return n, nil
}

// locate gives the hierarchy and name of a file.
func (r *Reader) locate(k fileKind) (dir, name string) {
	v2 := r.mounts.Version == 2
	switch k {
	case fileStat:
		return r.mounts.CPU, "cpu.stat"
	case fileStatLocal:
		return r.mounts.CPU, "cpu.stat.local"
	case fileUsage:
		return r.mounts.CPUAcct, "cpuacct.usage"
	case fileMax:
		if v2 {
			return r.mounts.CPU, "cpu.max"
		}
		return r.mounts.CPU, "cpu.cfs_quota_us"
	case filePeriod:
		return r.mounts.CPU, "cpu.cfs_period_us"
	case fileBurst:
		if v2 {
			return r.mounts.CPU, "cpu.max.burst"
		}
		return r.mounts.CPU, "cpu.cfs_burst_us"
	case fileCPUPressure:
		return r.mounts.CPU, "cpu.pressure"
	case fileMemoryPressure:
		return r.mounts.CPU, "memory.pressure"
	case fileIOPressure:
		return r.mounts.CPU, "io.pressure"
	case fileMemoryStat:
		return r.mounts.Memory, "memory.stat"
	case fileMemoryEventsLocal:
		return r.mounts.Memory, "memory.events.local"
	case fileFailcnt:
		return r.mounts.Memory, "memory.failcnt"
	case fileMemory, fileMemoryMax, fileMemoryEvents:
		names := [2]string{"memory.usage_in_bytes", "memory.current"}
		switch k {
		case fileMemoryMax:
			names = [2]string{"memory.limit_in_bytes", "memory.max"}
		case fileMemoryEvents:
			names = [2]string{"memory.oom_control", "memory.events"}
		}
		if v2 {
			return r.mounts.Memory, names[1]
		}
		return r.mounts.Memory, names[0]
	default:
		if v2 {
			return r.mounts.CPUSet, "cpuset.cpus.effective"
		}
		return r.mounts.CPUSet, "cpuset.effective_cpus"
	}
}

// read returns the file's content in buf, which grows where it must. Errors are
// errAbsent, ErrGone or the system's.
func (r *Reader) read(s *fileSet, k fileKind, buf *[]byte) ([]byte, error) {
	f := &s.files[k]
	if f.opened {
		b, err := pread(f.fd, buf)
		if !errors.Is(err, unix.ENODEV) {
			return b, err
		}
		// The directory was removed, or the controller disabled in it.
		r.closeFile(s, k)
	} else if !f.absent.IsZero() && time.Since(f.absent) < absentRetry {
		return nil, errAbsent
	}
	fd, err := r.openFile(s, k)
	if err != nil {
		if errors.Is(err, errAbsent) {
			f.absent = time.Now()
		}
		return nil, err
	}
	b, err := pread(fd, buf)
	if err != nil || r.open.Load() >= r.maxOpen {
		_ = unix.Close(fd)
		if errors.Is(err, unix.ENODEV) {
			err = ErrGone
		}
		return b, err
	}
	f.fd, f.opened, f.absent = fd, true, time.Time{}
	r.open.Add(1)
	return b, nil
}

// openFile opens the file through its directory, and makes sure that this is still
// the directory with the set's ID.
func (r *Reader) openFile(s *fileSet, k fileKind) (int, error) {
	hierarchy, name := r.locate(k)
	path := filepath.Join(hierarchy, s.path)
	inCPU := hierarchy == r.mounts.CPU
	dir, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ENOENT) {
		if inCPU {
			return -1, ErrGone
		}
		return -1, r.absentUnlessGone(s)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	if inCPU && s.id != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(dir, &st); err != nil {
			return -1, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		if ID(st.Ino) != s.id {
			return -1, ErrGone
		}
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, r.absentUnlessGone(s)
	case errors.Is(err, unix.ENODEV):
		return -1, ErrGone
	case err != nil:
		return -1, &fs.PathError{Op: "open", Path: filepath.Join(path, name), Err: err}
	}
	return fd, nil
}

// absentUnlessGone tells a control file that does not exist from one that just went
// with its cgroup.
func (r *Reader) absentUnlessGone(s *fileSet) error {
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(r.mounts.CPU, s.path), &st)
	if errors.Is(err, unix.ENOENT) || err == nil && s.id != 0 && ID(st.Ino) != s.id {
		return ErrGone
	}
	return errAbsent
}

func (r *Reader) closeFile(s *fileSet, k fileKind) {
	if f := &s.files[k]; f.opened {
		_ = unix.Close(f.fd)
		f.opened = false
		r.open.Add(-1)
	}
}

// pread reads the whole file from its start. A control file is rendered by the read
// at offset 0 and comes in one piece when the buffer is larger than it.
func pread(fd int, buf *[]byte) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, *buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n < len(*buf):
			return (*buf)[:n], nil
		default:
			*buf = make([]byte, 2*len(*buf))
		}
	}
}

func openat(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// parentPath is the path above, "/" for the topmost.
func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}
