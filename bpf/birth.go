package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// BirthKind is what a BirthEvent tells of (enum kind in headers/birth.h).
type BirthKind uint32

// The kinds of events.
const (
	BirthFork     BirthKind = iota + 1 // a process of a lineage, or of a daemon, forks
	BirthExec                          // a process executes: a new image
	BirthExit                          // its last thread ends
	BirthCall                          // a system call that makes a container, as it returns
	BirthNetlink                       // a netlink message was sent
	BirthMkdir                         // anybody makes a cgroup
	BirthAttach                        // a process of a lineage is moved into a cgroup
	BirthReturned                      // an entrypoint's execve has returned to user space
)

// BirthEvent is a step of a birth as the kernel saw it. Fields that a kind does not
// mention are zero.
type BirthEvent struct {
	Kind BirthKind
	At   time.Duration // CLOCK_MONOTONIC
	// Image is a process from its fork or execve to its next execve or end; 0 for one
	// that belongs to no lineage. Root is the process that its lineage began with.
	Image    uint64
	PID, TID uint32
	Root     uint32

	// Fork
	Child    uint64 // the child's image
	ChildPID uint32

	// Exec. Arguments are separated by NUL and cut at 1 KiB; an entrypoint's are left
	// out, they are the application's. CNI are the variables that begin with CNI_.
	Previous   uint64 // image, 0 where a lineage begins
	Daemon     bool   // also Fork: the parent is one
	Entrypoint bool
	Comm       string
	File       string
	Arguments  []byte
	CNI        []byte
	// Parent of an entrypoint, and the epochs that it and the root have come to by it;
	// 0 where they are not followed.
	Parent                 uint32
	ParentEpoch, RootEpoch uint32

	// Call
	Name   string // of the system call
	Args   [5]uint64
	Detail uint32 // clone, clone3, unshare, setns: CLONE_NEW… flags
	Text   [3]string

	Code unix.WaitStatus // Exit

	Result int64 // Call, Netlink

	// Netlink
	Protocol uint32
	Length   int // of what was sent, of which Message is the first KiB
	Message  []byte
	// Rules of nftables that are added by it. Unread is that not all of it was looked at.
	Rules  int
	Unread bool

	// Mkdir, Attach
	Hierarchy int32 // as in /proc/PID/cgroup, 0 is version 2
	Path      string
	Task      uint32 // who is moved
}

// BirthCount is how often an image made a system call.
type BirthCount struct {
	Image uint64
	Name  string // BirthCompat for those of a 32-bit program
	// Epoch grows with each entrypoint that came of the image's children: what a runtime
	// that stays does after the last one belongs to no birth.
	Epoch uint32
	N     uint64
	First time.Duration // CLOCK_MONOTONIC
}

// BirthCompat is the name under which the calls of 32-bit programs are counted.
const BirthCompat = "compat"

// BirthLosses is what the kernel's side could not tell, since attach.
type BirthLosses struct {
	Events     uint64 // the ring was full
	Processes  uint64 // the table of processes was full, or its program was skipped
	Counts     uint64 // the table of counters was full, or its program was skipped
	Unreadable uint64 // user memory was not there, or longer than what is kept
}

// BirthSeeds are the names that processes execute under which begin a lineage: daemons
// with each child, runtimes with themselves.
type BirthSeeds struct {
	Daemons, Runtimes []string
}

// DefaultBirthSeeds are what makes pods and containers as of today.
func DefaultBirthSeeds() BirthSeeds {
	return BirthSeeds{
		Daemons:  []string{"kubelet", "containerd", "crio", "dockerd"},
		Runtimes: []string{"containerd-shim", "runc", "crun", "youki", "runsc", "podman", "conmon"},
	}
}

// birthCalls says how a system call is told (enum how in birth_calls.bpf.c).
func birthCalls() map[string]uint8 {
	const (
		plain = iota + 1
		oneText
		twoTexts
		threeTexts
		secondText
		move
		configure
		newProcess
		unshare
		clone3
		join
		write
		send
		sendMessage
		filter
		replace
		execute
		executeAt
	)
	return map[string]uint8{
		"clone": newProcess, "clone3": clone3, "unshare": unshare, "setns": join,
		"mount": threeTexts, "umount2": oneText, "pivot_root": twoTexts, "chroot": oneText,
		"fsopen": oneText, "fsconfig": configure, "fsmount": plain, "open_tree": secondText,
		"move_mount": move, "mount_setattr": secondText,
		"write": write, "pwrite64": write, "writev": write,
		"sendto": send, "sendmsg": sendMessage, "setsockopt": replace,
		"capset": plain, "seccomp": plain, "prctl": filter,
		"execve": execute, "execveat": executeAt,
	}
}

// birth is what its probe has besides a collection of programs that stay attached.
type birth struct {
	calls  *ebpf.Collection
	hooks  []string // of calls, in the order of attachment
	specs  map[string]*ebpf.ProgramSpec
	reader *ringbuf.Reader
	names  [syscallNumbers]string

	daemons []BirthEvent // that were there before

	mu     sync.Mutex
	links  []link.Link
	counts int // entries when last read
}

func birthVariants() []variant {
	return []variant{{mode: "raw_tp", programs: []string{
		birthProgProcessExit, birthProgProcessExec, birthProgProcessFork, birthProgCgroupMkdir, birthProgCgroupAttachTask,
	}}}
}

// openBirth loads what counts system calls, without attaching it, and seeds the daemons
// that run already.
func (p *probe) openBirth(h host) (err error) {
	b := &birth{names: syscallNames()}
	p.birth = b
	seeds := DefaultBirthSeeds()
	for role, names := range map[uint32][]string{1: seeds.Daemons, 2: seeds.Runtimes} {
		for _, name := range names {
			if err := p.coll.Maps[birthMapSeeds].Put(commKey(name), role); err != nil {
				return fmt.Errorf("naming %s: %w", name, err)
			}
		}
	}
	if b.reader, err = ringbuf.NewReader(p.coll.Maps[birthMapBirths]); err != nil {
		return fmt.Errorf("opening the ring of events: %w", err)
	}
	if err := b.loadCalls(p.coll, h); err != nil {
		return fmt.Errorf("loading what counts system calls: %w", err)
	}
	return p.seedRunning(h.procfs, seeds.Daemons)
}

func (b *birth) loadCalls(lineage *ebpf.Collection, h host) error {
	ways := [][]string{{birthCallsProgSysExit, birthCallsProgSysEnter}}
	if h.preemptsSyscallPrograms {
		ways = slices.Insert(ways, 0, []string{
			birthCallsProgSysExitKprobe, birthCallsProgSysEnterKprobe,
			birthCallsProgSysExitEmpty, birthCallsProgSysEnterEmpty,
		})
	}
	var err error
	for _, hooks := range ways {
		if err = b.tryCalls(h.types, lineage, hooks); err == nil {
			return nil
		}
	}
	return err
}

func (b *birth) tryCalls(types *btf.Cache, lineage *ebpf.Collection, hooks []string) error {
	spec, err := loadBirthCalls()
	if err != nil {
		return err
	}
	for name := range spec.Programs {
		if !slices.Contains(hooks, name) {
			delete(spec.Programs, name)
		}
	}
	var how [syscallNumbers]uint8
	for name, way := range birthCalls() {
		if n, ok := syscallNumber(name); ok && n < len(how) {
			how[n] = way
		}
	}
	if err := spec.Variables[birthCallsVarHow].Set(how); err != nil {
		return fmt.Errorf("setting what is told of system calls: %w", err)
	}
	b.calls, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types, MapReplacements: map[string]*ebpf.Map{
		birthCallsMapBirths:    lineage.Maps[birthMapBirths],
		birthCallsMapLosses:    lineage.Maps[birthMapLosses],
		birthCallsMapMarks:     lineage.Maps[birthMapMarks],
		birthCallsMapProcesses: lineage.Maps[birthMapProcesses],
	}})
	if err != nil {
		return err
	}
	b.hooks, b.specs = hooks, spec.Programs
	// A kernel that lacks a hook is to be found out now, not at the first birth.
	if err = b.attach(); err == nil {
		err = b.detach()
	}
	if err != nil {
		b.calls.Close()
		b.calls = nil
	}
	return err
}

func (b *birth) attach() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.links) > 0 {
		return nil
	}
	for _, name := range b.hooks {
		l, err := attach(b.calls, name, b.specs[name])
		if err != nil {
			for _, l := range b.links {
				err = errors.Join(err, l.Close())
			}
			b.links = nil
			return fmt.Errorf("attaching %s: %w", name, err)
		}
		b.links = append(b.links, l)
	}
	return nil
}

func (b *birth) detach() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, l := range b.links {
		errs = append(errs, l.Close())
	}
	b.links = nil
	return errors.Join(errs...)
}

func (b *birth) close() error {
	err := b.detach()
	if b.reader != nil {
		err = errors.Join(err, b.reader.Close())
	}
	if b.calls != nil {
		b.calls.Close()
	}
	return err
}

// seedRunning makes the daemons known that were there before.
func (p *probe) seedRunning(procfs string, daemons []string) error {
	files, err := filepath.Glob(filepath.Join(procfs, "[0-9]*", "comm"))
	if err != nil {
		return err
	}
	for _, file := range files {
		comm, err := os.ReadFile(file)
		name := strings.TrimSuffix(string(comm), "\n")
		if err != nil || !slices.Contains(daemons, name) {
			continue
		}
		pid, err := strconv.ParseUint(filepath.Base(filepath.Dir(file)), 10, 32)
		if err != nil {
			continue
		}
		// Never to be 0 again, whatever the programs count there meanwhile.
		const always = uint32(1) << 30
		marks := p.coll.Maps[birthMapMarks]
		if err := marks.Put(uint32(pid)%marks.MaxEntries(), always); err != nil {
			return fmt.Errorf("following %s: %w", name, err)
		}
		daemon := birthProcess{Image: pid<<40 | uint64(monotonic())&(1<<40-1), Root: uint32(pid), Role: 1}
		if err := p.coll.Maps[birthMapProcesses].Put(uint32(pid), daemon); err != nil {
			return fmt.Errorf("following %s: %w", name, err)
		}
		p.birth.daemons = append(p.birth.daemons, BirthEvent{
			Kind: BirthExec, At: monotonic(), Image: daemon.Image, PID: daemon.Root, TID: daemon.Root, Root: daemon.Root,
			Daemon: true, Comm: name, File: name,
		})
		p.log.Debug("births are followed from a daemon", "daemon", name, "pid", pid)
	}
	return nil
}

// monotonic is the clock of the kernel's events.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

func commKey(name string) (key [16]byte) {
	copy(key[:len(key)-1], name)
	return key
}

// Births is the probe's side that tells of births. Run, Counts and Forget are of one
// goroutine.
type Births struct {
	p *probe
	// handled is up to when all events that were told have been handled.
	handled time.Duration

	read   []counted // what Counts saw last
	keys   []birthCallsCounter
	values []birthCallsCount
	seen   map[birthCallsCounter]struct{}
}

// counted is a counter, and when it was begun.
type counted struct {
	key   birthCallsCounter
	first time.Duration
}

// Births returns ErrNotAttached where the probe is not.
func (t *Tracer) Births() (*Births, error) {
	for _, p := range t.probes {
		if p.status.Probe == ProbeBirth && p.birth != nil {
			return &Births{p: p}, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", ProbeBirth, ErrNotAttached)
}

// Count attaches or detaches what counts system calls. It costs every system call of
// the machine, so let it be attached while a birth is in flight.
func (b *Births) Count(on bool) error {
	if on {
		return b.p.birth.attach()
	}
	return b.p.birth.detach()
}

// Run calls handle with each event, in order, the daemons that were there before first, until ctx ends or the tracer is closed.
// What it is given is valid during the call only. tick is called every so often with
// the time by the events' clock, when all events until then have been handled: most of
// them wake nobody, and are handled then.
func (b *Births) Run(ctx context.Context, every time.Duration, handle func(*BirthEvent), tick func(now time.Duration)) error {
	reader := b.p.birth.reader
	var record ringbuf.Record
	var event BirthEvent
	for i := range b.p.birth.daemons {
		handle(&b.p.birth.daemons[i])
	}
	clock, began := monotonic(), time.Now() // time.Now costs no system call
	tickAt := func(now time.Time) { tick(clock + now.Sub(began)) }
	next := began.Add(every)
	for ctx.Err() == nil {
		reader.SetDeadline(next)
		asked := time.Now()
		if asked.Sub(next) > every { // there is always something in the ring
			tickAt(asked)
			next = asked.Add(every)
		}
		err := reader.ReadInto(&record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // it found the ring empty
			b.handled = clock + asked.Sub(began)
			tickAt(time.Now())
			next = asked.Add(every)
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("reading the ring of births: %w", err)
		default:
			if err := b.p.birth.decode(record.RawSample, &event); err != nil {
				b.p.log.Error("An event of a birth can't be read.", "err", err)
				continue
			}
			handle(&event)
		}
	}
	return nil
}

// cast is the record as the structure that the kernel's side wrote. The ring's memory
// is aligned, and so is a copy of it.
func cast[T any](raw []byte) (*T, error) {
	var t T
	if len(raw) < int(unsafe.Sizeof(t)) {
		return nil, fmt.Errorf("an event of %d bytes is to be %d long", len(raw), unsafe.Sizeof(t))
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(raw))), nil
}

func (b *birth) decode(raw []byte, e *BirthEvent) error {
	head, err := cast[birthHead](raw)
	if err != nil {
		return err
	}
	*e = BirthEvent{
		Kind: BirthKind(head.Kind), At: time.Duration(head.At), Image: head.Image,
		PID: head.Tgid, TID: head.Tid, Root: head.Root,
	}
	switch e.Kind {
	case BirthFork:
		f, err := cast[birthFork](raw)
		if err != nil {
			return err
		}
		e.Child, e.ChildPID, e.Daemon = f.ChildImage, f.Child, f.Role == 1
	case BirthExec:
		x, err := cast[birthExec](raw)
		if err != nil {
			return err
		}
		e.Previous, e.Daemon, e.Entrypoint = x.Previous, x.Role == 1, x.Flags&2 != 0
		e.Parent, e.ParentEpoch, e.RootEpoch = x.Parent, x.ParentEpoch, x.RootEpoch
		e.Comm, e.File = comm(x.Comm[:]), comm(x.File[:])
		e.Arguments = bytesOf(x.Argv[:])[:min(int(x.Arguments), len(x.Argv))]
		e.CNI = bytesOf(x.Env[:])[:min(int(x.Environment), len(x.Env))]
	case BirthCall:
		c, err := cast[birthCallsCall](raw)
		if err != nil {
			return err
		}
		e.Name, e.Args, e.Result, e.Detail = b.names[c.Number%syscallNumbers], c.Args, c.Result, c.Detail
		for i := range e.Text {
			e.Text[i] = comm(c.Text[i][:])
		}
	case BirthNetlink:
		n, err := cast[birthCallsNetlink](raw)
		if err != nil {
			return err
		}
		e.Protocol, e.Result, e.Length = n.Protocol, n.Result, int(n.Length)
		e.Message = n.Message[:min(e.Length, len(n.Message)-1)]
		e.Rules, e.Unread = int(n.Rules), n.Unread != 0
	case BirthMkdir, BirthAttach:
		g, err := cast[birthGroup](raw)
		if err != nil {
			return err
		}
		e.Task, e.Hierarchy, e.Path = g.Task, g.Hierarchy, comm(g.Path[:])
	case BirthExit:
		x, err := cast[birthExit](raw)
		if err != nil {
			return err
		}
		e.Code = unix.WaitStatus(x.Code)
	case BirthReturned:
	default:
		return fmt.Errorf("an event of a kind that is not known: %d", head.Kind)
	}
	return nil
}

func bytesOf(b []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}

// Now is the time by the events' clock.
func (b *Births) Now() time.Duration { return monotonic() }

// Counts calls visit for each counter that the kernel holds.
func (b *Births) Counts(visit func(BirthCount)) error {
	b.read = b.read[:0]
	err := b.each(func(key birthCallsCounter, value birthCallsCount) {
		b.read = append(b.read, counted{key, time.Duration(value.First)})
		name := BirthCompat
		if key.Number < syscallNumbers-1 {
			name = b.p.birth.names[key.Number]
		}
		visit(BirthCount{Image: key.Image, Name: name, Epoch: key.Epoch, N: value.N, First: time.Duration(value.First)})
	})
	if err != nil {
		return fmt.Errorf("reading the system calls of births: %w", err)
	}
	b.p.birth.mu.Lock()
	b.p.birth.counts = len(b.read)
	b.p.birth.mu.Unlock()
	return nil
}

// each reads in batches: there are hundreds of counters to a birth.
func (b *Births) each(visit func(birthCallsCounter, birthCallsCount)) error {
	const size = 2048
	m := b.p.birth.calls.Maps[birthCallsMapCounts]
	if b.keys == nil {
		b.keys, b.values = make([]birthCallsCounter, size), make([]birthCallsCount, size)
		b.seen = make(map[birthCallsCounter]struct{}, size)
	}
	clear(b.seen)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, b.keys, b.values, nil)
		done := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !done {
			return err
		}
		for i := range n {
			if _, again := b.seen[b.keys[i]]; !again {
				b.seen[b.keys[i]] = struct{}{}
				visit(b.keys[i], b.values[i])
			}
		}
		if done {
			return nil
		}
	}
}

// Forget deletes the counters of images that are told or belong to no birth, of those
// that Counts has read. It leaves those of an image whose beginning may still be in the ring.
func (b *Births) Forget(gone func(image uint64) bool) error {
	m := b.p.birth.calls.Maps[birthCallsMapCounts]
	for _, c := range b.read {
		if c.first >= b.handled || !gone(c.key.Image) {
			continue
		}
		if err := m.Delete(c.key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forgetting system calls of births: %w", err)
		}
	}
	return nil
}

// Losses are cumulative.
func (b *Births) Losses() (BirthLosses, error) {
	var l BirthLosses
	for i, to := range []*uint64{&l.Events, &l.Processes, &l.Counts, &l.Unreadable} {
		var cpus []uint64
		if err := b.p.coll.Maps[birthMapLosses].Lookup(uint32(i), &cpus); err != nil {
			return l, fmt.Errorf("reading what was lost of births: %w", err)
		}
		for _, n := range cpus {
			*to += n
		}
	}
	for program, to := range map[*ebpf.Program]*uint64{
		b.p.coll.Programs[birthProgProcessFork]:      &l.Processes,
		b.p.coll.Programs[birthProgProcessExec]:      &l.Processes,
		b.p.birth.calls.Programs[b.p.birth.hooks[0]]: &l.Events,
		b.p.birth.calls.Programs[b.p.birth.hooks[1]]: &l.Counts,
	} {
		if s, err := program.Stats(); err == nil {
			*to += s.RecursionMisses
		}
	}
	return l, nil
}

// maps is the occupancy of what the probe keeps.
func (p *probe) birthMaps() []MapStats {
	l, err := (&Births{p: p}).Losses()
	if err != nil {
		return nil
	}
	processes, counts := p.coll.Maps[birthMapProcesses], p.birth.calls.Maps[birthCallsMapCounts]
	n := 0
	var key uint32
	var value birthProcess
	for each := processes.Iterate(); each.Next(&key, &value); {
		n++
	}
	p.birth.mu.Lock()
	counted := p.birth.counts
	p.birth.mu.Unlock()
	return []MapStats{
		{Probe: ProbeBirth, Map: birthMapProcesses, Entries: n, Capacity: int(processes.MaxEntries()), Lost: l.Processes},
		{Probe: ProbeBirth, Map: birthCallsMapCounts, Entries: counted, Capacity: int(counts.MaxEntries()), Lost: l.Counts},
		{Probe: ProbeBirth, Map: birthMapBirths, Entries: p.birth.reader.AvailableBytes(), Capacity: p.birth.reader.BufferSize(), Lost: l.Events, Ring: true},
	}
}

// syscallNames has the names of this architecture's system calls by number.
func syscallNames() (names [syscallNumbers]string) {
	for i := range names {
		if names[i] = syscallName(i); names[i] == "" {
			names[i] = "syscall_" + strconv.Itoa(i)
		}
	}
	return names
}
