package bpf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// ErrNotAttached is what a reader returns whose probe is not attached; Status says why.
var ErrNotAttached = errors.New("probe is not attached")

// DefaultMaxGroups bounds the cgroups of each map: containers, their sandboxes, pods
// with a limit and services, several hundred on a full Kubernetes node. What a map may
// ever hold is allocated as it is made: 5.3 KiB a cgroup, and 1.2 KiB more for each CPU;
// besides, 1.1 MiB for the sockets that the network probe remembers, and 2.1 MiB for the
// processes of the security probe.
const DefaultMaxGroups = 1024

// Config says what to trace.
type Config struct {
	Log          *slog.Logger // default: slog.Default()
	Probes       []Probe      // which to try; default: all
	SyscallNames []string     // counted by name, at most MaxSyscallNames; the rest is "other"
	MaxGroups    int          // cgroups in each map; default: DefaultMaxGroups
	ProcFS       string       // where proc is mounted; default: /proc
}

// Tracer holds the attached probes. Its methods may be called concurrently.
type Tracer struct {
	log    *slog.Logger
	probes []*probe
	slots  slotTable
	stats  io.Closer // keeps the kernel counting run times

	mu     sync.Mutex
	series map[uint64]*series // Demand's place in each cgroup's ring
}

// probe is one concern in the kernel. The links keep it there: when the last
// reference goes, so does the attachment.
type probe struct {
	log    *slog.Logger
	status Status
	coll   *ebpf.Collection
	links  []link.Link
	birth  *birth // of ProbeBirth
}

// Open attaches what this kernel lets it. It never fails as a whole: a probe that
// can't be attached is logged once and told by Status. System-wide programs stay
// attached until Close.
func Open(ctx context.Context, cfg Config) *Tracer {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Probes == nil {
		cfg.Probes = AllProbes()
	}
	if cfg.MaxGroups <= 0 {
		cfg.MaxGroups = DefaultMaxGroups
	}
	if cfg.ProcFS == "" {
		cfg.ProcFS = "/proc"
	}
	t := &Tracer{log: cfg.Log, series: make(map[uint64]*series)}

	var unknown []string
	t.slots, unknown = newSlotTable(cfg.SyscallNames)
	if len(unknown) > 0 {
		cfg.Log.Warn("system calls that this architecture does not have, or beyond the bound, are counted as other",
			"names", strings.Join(unknown, ","), "max", MaxSyscallNames)
	}

	// Before 5.11 maps are charged to RLIMIT_MEMLOCK. A refusal shows as a failing
	// map, if at all.
	if err := rlimit.RemoveMemlock(); err != nil {
		cfg.Log.Debug("raising RLIMIT_MEMLOCK", "err", err)
	}
	host := examine(cfg.ProcFS)
	for _, name := range cfg.Probes {
		p := &probe{log: cfg.Log, status: Status{Probe: name, Lost: lostWithout(name)}}
		t.probes = append(t.probes, p)
		err := context.Cause(ctx)
		if err == nil {
			err = p.open(t.slots, cfg.MaxGroups, host)
		}
		if err != nil {
			p.status.Reason = host.explain(name, err)
			cfg.Log.Warn("probe is not attached", "probe", name, "reason", p.status.Reason, "lost", p.status.Lost, "err", err)
			continue
		}
		p.status.Attached = true
		if p.status.Lost != "" {
			cfg.Log.Warn("probe is attached, not in the best way", "probe", name, "mode", p.status.Mode, "lost", p.status.Lost)
			continue
		}
		cfg.Log.Info("probe is attached", "probe", name, "mode", p.status.Mode)
	}
	if slices.ContainsFunc(t.probes, func(p *probe) bool { return p.status.Attached }) {
		stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
		if err != nil {
			cfg.Log.Debug("run times of BPF programs are not counted (5.8, or kernel.bpf_stats_enabled=1)", "err", err)
		} else {
			t.stats = stats
		}
	}
	return t
}

// Close detaches everything.
func (t *Tracer) Close() error {
	var errs []error
	for _, p := range t.probes {
		errs = append(errs, p.close())
	}
	if t.stats != nil {
		errs = append(errs, t.stats.Close())
		t.stats = nil
	}
	return errors.Join(errs...)
}

// Status tells of each requested probe, in the order of Config.Probes.
func (t *Tracer) Status() []Status {
	all := make([]Status, len(t.probes))
	for i, p := range t.probes {
		all[i] = p.status
	}
	return all
}

// attached is the probe's collection, or ErrNotAttached.
func (t *Tracer) attached(name Probe) (*ebpf.Collection, error) {
	for _, p := range t.probes {
		if p.status.Probe == name && p.coll != nil {
			return p.coll, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNotAttached)
}

// variant is one way to attach a probe.
type variant struct {
	mode     string
	programs []string // in the order of attachment
	run      string   // a program that is attached to nothing and run by us; or ""
	without  []string // maps that only other variants use
	lost     string   // what it misses that a better variant has
}

// variants lists the ways to attach a probe, best first.
func variants(p Probe, h host) (load func() (*ebpf.CollectionSpec, error), all []variant) {
	switch p {
	case ProbeThrottle:
		return loadThrottle, []variant{
			{mode: "fentry", programs: []string{throttleProgUnthrottleExit, throttleProgUnthrottleEnter}},
		}
	case ProbeSyscalls:
		all := []variant{
			{mode: "tp_btf", programs: []string{syscallsProgSysEnter}},
			{mode: "raw_tp", programs: []string{syscallsProgSysEnterRaw}},
		}
		if h.preemptsSyscallPrograms {
			for i := range all {
				all[i].lost = "system calls on a CPU where a thread was preempted in the program (counted as missed): exact counts need CONFIG_KPROBE_EVENTS here"
			}
			all = slices.Insert(all, 0, variant{mode: "kprobe", programs: []string{syscallsProgSysEnterKprobe, keepsOn}})
		}
		return loadSyscalls, all
	case ProbeRunqueue:
		return loadRunqueue, []variant{{
			mode:     "tp_btf+task_storage",
			programs: []string{runqueueProgSchedWakeup, runqueueProgSchedWakeupNew, runqueueProgSchedSwitch},
			without:  []string{runqueueMapThreadsByPid},
		}, {
			mode: "tp_btf+thread_hash", // kernels before 5.13
			programs: []string{
				runqueueProgSchedProcessFreeByPid, runqueueProgSchedWakeupByPid,
				runqueueProgSchedWakeupNewByPid, runqueueProgSchedSwitchByPid,
			},
			without: []string{runqueueMapThreads},
		}}
	case ProbeDemand:
		return loadDemand, []variant{{mode: "tp_btf", programs: []string{demandProgSchedStatRuntime}}}
	case ProbeReclaim:
		return loadReclaim, reclaimVariants()
	case ProbeOOM:
		return loadOom, oomVariants(h)
	case ProbeNetwork:
		return loadNetwork, networkVariants(h)
	case ProbeBirth:
		return loadBirth, birthVariants()
	case ProbeSecurity:
		return loadSecurity, securityVariants(h)
	}
	return nil, nil
}

// keepsOn is the program that is attached for its side effect.
const keepsOn = syscallsProgSysEnterEmpty

// countsNothing tells of programs attached for their side effect: what of them the
// kernel skips is no loss.
func countsNothing(program string) bool {
	return program == keepsOn || program == birthCallsProgSysExitEmpty
}

// groupMap is the probe's map with an entry for each cgroup; empty where it has none.
func groupMap(p Probe) string {
	switch p {
	case ProbeThrottle:
		return throttleMapThrottles
	case ProbeSyscalls, ProbeRunqueue, ProbeDemand:
		return indexMap
	case ProbeReclaim:
		return reclaimMapReclaims
	case ProbeOOM:
		return oomMapOoms
	case ProbeNetwork:
		return networkMapNetworks
	case ProbeSecurity:
		return securityMapSecurities
	}
	return ""
}

func lostWithout(p Probe) string {
	switch p {
	case ProbeThrottle:
		return "the distribution of throttle durations; counts and sums still come from cpu.stat"
	case ProbeSyscalls:
		return "system call counts"
	case ProbeRunqueue:
		return "run queue wait, and with it contention"
	case ProbeDemand:
		return "used and denied time for each period, and with it the prediction for other limits"
	case ProbeReclaim:
		return "how long allocations waited for reclaim; that they did still shows in memory.pressure (cgroup v2)"
	case ProbeOOM:
		return "who was killed for memory and who asked for it; counts still come from memory.events"
	case ProbeNetwork:
		return "retransmits, resets, refusals, full accept queues and drops"
	case ProbeBirth:
		return "birth certificates: how each pod came to life"
	case ProbeSecurity:
		return "what containers do that few should: namespaces, mounts, ptrace, modules, BPF, foreign executables, gained privileges"
	}
	return "everything"
}

func (p *probe) open(slots slotTable, maxGroups int, h host) error {
	load, all := variants(p.status.Probe, h)
	if load == nil {
		return errUnknownProbe
	}
	if !h.btf {
		return errNoBTF
	}
	var err error
	for _, v := range all {
		if err = p.try(load, v, slots, maxGroups, h); err == nil {
			p.status.Mode, p.status.Lost = v.mode, v.lost
			return nil
		}
	}
	return err
}

func (p *probe) try(load func() (*ebpf.CollectionSpec, error), v variant, slots slotTable, maxGroups int, h host) (err error) {
	spec, err := load()
	if err != nil {
		return err
	}
	for name := range spec.Programs {
		if name != v.run && !slices.Contains(v.programs, name) {
			delete(spec.Programs, name)
		}
	}
	for _, name := range v.without {
		delete(spec.Maps, name)
	}
	// Preallocated, as it stands. Where programs may not wait for memory (under a run
	// queue's lock, with interrupts off) the allocator of other maps runs dry: of 256
	// cgroups made at once 6.1 lost the first events of a third.
	if name := groupMap(p.status.Probe); name != "" {
		spec.Maps[name].MaxEntries = uint32(maxGroups)
	}
	values := indexedMap(p.status.Probe)
	if values != "" {
		spec.Maps[unusedMap].MaxEntries, spec.Maps[values].MaxEntries = uint32(maxGroups), uint32(maxGroups)
	}
	if p.status.Probe == ProbeSyscalls {
		if err := slots.install(spec); err != nil {
			return err
		}
	}
	if p.status.Probe == ProbeNetwork {
		if err := prepareNetwork(spec, h); err != nil {
			return err
		}
	}
	if p.status.Probe == ProbeSecurity {
		if err := prepareSecurity(spec, maxGroups); err != nil {
			return err
		}
	}
	p.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: h.types})
	if err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if v.run != "" {
		if _, err := p.coll.Programs[v.run].Run(&ebpf.RunOptions{Context: networkSockets{}}); err != nil {
			return fmt.Errorf("running %s: %w", v.run, err)
		}
	}
	if values != "" {
		if err = openIndex(p.coll); err != nil {
			return err
		}
	}
	for _, name := range v.programs {
		l, err := attach(p.coll, name, spec.Programs[name])
		if err != nil {
			return fmt.Errorf("attaching %s: %w", name, err)
		}
		p.links = append(p.links, l)
	}
	if p.status.Probe == ProbeBirth {
		return p.openBirth(h)
	}
	return nil
}

func attach(coll *ebpf.Collection, name string, spec *ebpf.ProgramSpec) (link.Link, error) {
	prog := coll.Programs[name]
	_, hook, _ := strings.Cut(spec.SectionName, "/")
	switch spec.Type {
	case ebpf.RawTracepoint:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: hook, Program: prog})
	case ebpf.Kprobe:
		return link.Kprobe(hook, prog, nil)
	}
	return link.AttachTracing(link.TracingOptions{Program: prog})
}

func (p *probe) close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	if p.birth != nil {
		errs = append(errs, p.birth.close())
		p.birth = nil
	}
	if p.coll != nil {
		p.coll.Close()
		p.coll = nil
	}
	return errors.Join(errs...)
}

// host is what the machine offers to any probe.
type host struct {
	procfs   string
	types    *btf.Cache // the kernel's, decoded once for all probes
	btf      bool
	bpf      bool // CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN
	lockdown string
	// From about 7.0 on: see syscalls.bpf.c.
	preemptsSyscallPrograms bool
	// From about 6.9 on, and in some older stable kernels: see oom.bpf.c.
	victimIsTask bool
	cgroupV1     bool // the cpu controller is on cgroup v1
	// What kfree_skb tells: the packet and where, then why, then the receiving socket.
	dropArguments int
}

func examine(procfs string) host {
	h := host{procfs: procfs, types: btf.NewCache()}
	_, err := os.Stat(btfPath)
	h.btf = err == nil
	status, _ := os.ReadFile(filepath.Join(procfs, "self", "status"))
	h.bpf = mayTrace(status)
	lockdown, _ := os.ReadFile("/sys/kernel/security/lockdown")
	h.lockdown = lockdownMode(string(lockdown))
	h.preemptsSyscallPrograms = hasFunction(h.types, faultableCaller)
	h.victimIsTask = victimIsTask(h.types)
	h.cgroupV1 = cpuOnV1(procfs)
	h.dropArguments = tracepointArguments(h.types, "kfree_skb")
	return h
}

// faultableCaller is a function that came with programs that may be preempted on the
// tracepoints of system calls (kernel/trace/bpf_trace.c).
const faultableCaller = "trace_call_bpf_faultable"

func hasFunction(types *btf.Cache, name string) bool {
	kernel, err := types.Kernel()
	if err != nil {
		return false
	}
	var function *btf.Func
	return kernel.TypeByName(name, &function) == nil
}
