package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cilium/ebpf"
)

// SecurityEvent is a kind of what few containers do after their birth.
type SecurityEvent int

// The events, in the order of security.bpf.c. Calls are counted as they are attempted,
// whether the kernel lets them or not; Clone, ExecOutsideImage and what an execve gave
// as they are done.
const (
	SecuritySetns            SecurityEvent = iota
	SecurityUnshare                        // of namespaces
	SecurityClone                          // a child in namespaces of its own
	SecurityMount                          // mount, fsmount, and open_tree of a copy
	SecurityPtrace                         // a trace begins: TRACEME, ATTACH, SEIZE
	SecurityModuleLoad                     // init_module, finit_module
	SecurityBPF                            // the bpf system call
	SecurityExecOutsideImage               // of a file in overlayfs' upper layer, or of one without a name
	SecurityPrivilegeGain                  // uid 0 from another, or more capabilities, not by a new user namespace
	SecurityReleaseAgent                   // a file of that name is opened for writing
	SecurityCorePattern
	SecurityEvents // how many there are
)

func (e SecurityEvent) String() string {
	names := [SecurityEvents]string{
		"setns", "unshare", "clone", "mount", "ptrace", "module_load", "bpf", "exec_outside_image", "privilege_gain",
		"release_agent_write", "core_pattern_write",
	}
	if e < 0 || e >= SecurityEvents {
		return "unknown"
	}
	return names[e]
}

// Security is what a cgroup's processes did since attach, but those of the runtime.
type Security struct {
	Counts [SecurityEvents]uint64
	// ImageKnown tells that it executes files of an overlayfs: only there can it be
	// known which of them are not the image's.
	ImageKnown bool
	// Last is the last event of each kind that happened.
	Last map[SecurityEvent]SecurityEvidence
}

// SecurityEvidence is one event, as it was then. Its texts are what the process itself
// says, cut to a bounded length; what of them is not
// printable is escaped as in Go, \x07.
type SecurityEvidence struct {
	At     time.Duration // CLOCK_MONOTONIC
	PID    uint32        // in the host's PID namespace
	UID    uint32        // in the host's user namespace
	Comm   string
	Binary string // path of its executable within its mount; begins with … when that is long
	// Ancestry are the names of its parents, the nearest first.
	Ancestry []string
	Detail   string // what it did
}

func securityVariants(h host) []variant {
	rest := []string{
		securityProgSchedProcessFree, securityProgTaskNewtask, securityProgCgroupAttachTask, securityProgSchedProcessExec,
	}
	raw := make([]string, len(rest))
	for i, p := range rest {
		raw[i] = p + "_raw"
	}
	all := []variant{
		{mode: "tp_btf", programs: append(slices.Clone(rest), securityProgSysEnter)},
		{mode: "raw_tp", programs: append(raw, securityProgSysEnterRaw)},
	}
	if h.preemptsSyscallPrograms {
		for i := range all {
			all[i].lost = "what is called on a CPU where a thread was preempted in the program (counted as missed): all of it needs CONFIG_KPROBE_EVENTS here"
		}
		all = slices.Insert(all, 0, variant{mode: "kprobe", programs: append(slices.Clone(rest), securityProgSysEnterKprobe, securityProgSysEnterEmpty)})
	}
	return all
}

// watchedCalls are the system calls that are looked at and what for, in the order of
// security.bpf.c.
func watchedCalls() [][]string {
	return [][]string{
		{"setns"}, {"unshare"}, {"mount"}, {"fsmount"}, {"open_tree"}, {"ptrace"}, {"init_module"}, {"finit_module"},
		{"bpf"}, {"execve", "execveat"}, {"open"}, {"openat"}, {"openat2"}, {"creat"},
		{"setuid"}, {"setresuid", "setreuid"},
	}
}

// watchTable has what to look at a system call for by its number: in the low byte by
// this architecture's, in the high one by its 32-bit callers'.
func watchTable() (table [watchedNumbers]uint16) {
	compat := compatNumbers()
	for i, names := range watchedCalls() {
		for _, name := range names {
			if n, ok := syscallNumber(name); ok && n < len(table) {
				table[n] |= uint16(i + 1)
			}
			for _, n := range compat[name] {
				table[n] |= uint16(i+1) << 8
			}
		}
	}
	for n, name := range x32Numbers() {
		native, _ := syscallNumber(name)
		table[n] |= table[native] & 0xff
	}
	return table
}

const watchedNumbers = 1024 // NUMBERS of security.bpf.c

func prepareSecurity(spec *ebpf.CollectionSpec, maxGroups int) error {
	if err := spec.Variables[securityVarWatched].Set(watchTable()); err != nil {
		return fmt.Errorf("setting the table of watched system calls: %w", err)
	}
	// Few containers ever make such an event, and fewer all of them.
	spec.Maps[securityMapEvidences].MaxEntries = uint32(2 * maxGroups)
	return nil
}

// Security returns what was done since attach, by cgroup.
func (t *Tracer) Security() (map[uint64]Security, error) {
	coll, err := t.attached(ProbeSecurity)
	if err != nil {
		return nil, err
	}
	last := make(map[uint64]map[SecurityEvent]SecurityEvidence)
	// Before the counts: what has evidence is counted.
	err = readMap(coll.Maps[securityMapEvidences], func(key uint64, v []securityEvidence) {
		id, event := key>>4, SecurityEvent(key&15)
		if event >= SecurityEvents {
			return
		}
		if last[id] == nil {
			last[id] = make(map[SecurityEvent]SecurityEvidence)
		}
		last[id][event] = evidenceOf(event, &v[0])
	})
	if err != nil {
		return nil, fmt.Errorf("reading the evidence of security events: %w", err)
	}
	all := make(map[uint64]Security)
	err = readMap(coll.Maps[securityMapSecurities], func(id uint64, cpus []securityCounts) {
		s := Security{Last: last[id]}
		for i := range cpus {
			for e, n := range cpus[i].N {
				s.Counts[e] += n
			}
			s.ImageKnown = s.ImageKnown || cpus[i].OnOverlay > 0
		}
		all[id] = s
	})
	if err != nil {
		return nil, fmt.Errorf("reading security events: %w", err)
	}
	return all, nil
}

// forgetEvidence deletes what is kept of a cgroup besides its counts.
func forgetEvidence(coll *ebpf.Collection, id uint64) error {
	var errs []error
	for e := range SecurityEvents {
		if err := coll.Maps[securityMapEvidences].Delete(id<<4 | uint64(e)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func evidenceOf(event SecurityEvent, e *securityEvidence) SecurityEvidence {
	out := SecurityEvidence{
		At: time.Duration(e.At), PID: e.Pid, UID: e.Uid, Comm: printable(e.Comm[:]),
		Detail: securityDetail(event, e),
	}
	for i := range e.Ancestors {
		if name := printable(e.Ancestors[i][:]); name != "" {
			out.Ancestry = append(out.Ancestry, name)
		}
	}
	out.Binary = binary(e)
	return out
}

// binary joins the names of a path, which come from its end. The last is that of the
// mount's root, unless there are more.
func binary(e *securityEvidence) string {
	var path string
	for i := range e.Binary {
		name := printable(e.Binary[i][:])
		if name == "" || name == "/" {
			return path
		}
		path = "/" + name + path
	}
	return "…" + path
}

func securityDetail(event SecurityEvent, e *securityEvidence) string {
	text, from := printable(e.Text[:]), printable(e.From[:])
	switch event {
	case SecuritySetns, SecurityUnshare, SecurityClone:
		if kinds := namespaceKinds(e.Flags); kinds != "" {
			return kinds
		}
		return "namespace not told"
	case SecurityMount:
		switch {
		case text != "" && from != "":
			return from + " on " + text
		case text != "":
			return "on " + text
		case from != "":
			return from
		}
		return "by fsmount"
	case SecurityPtrace:
		switch e.Flags {
		case 0:
			return "TRACEME"
		case 16:
			return fmt.Sprintf("ATTACH to %d", e.Number)
		}
		return fmt.Sprintf("SEIZE of %d", e.Number)
	case SecurityModuleLoad:
		if text == "" {
			return "from memory"
		}
		return text
	case SecurityBPF:
		return bpfCommand(e.Number)
	case SecurityPrivilegeGain:
		return gain(e, text)
	default:
		return text
	}
}

// printable is what comes before the first NUL, which the process chose: fit for a line
// of a log and of a terminal.
func printable(b []int8) string {
	var out strings.Builder
	for _, r := range comm(b) {
		if unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		out.WriteString(quoted[1 : len(quoted)-1])
	}
	return out.String()
}

func gain(e *securityEvidence, file string) string {
	var parts []string
	if e.Number != 0 {
		parts = append(parts, fmt.Sprintf("from uid %d", e.Number))
	}
	if e.Flags != 0 {
		parts = append(parts, fmt.Sprintf("capabilities %#x", e.Flags))
	}
	if file != "" {
		parts = append(parts, "by "+file)
	}
	return strings.Join(parts, ", ")
}

// namespaceKinds names flags (include/uapi/linux/sched.h, CLONE_NEW…) as /proc/PID/ns does.
func namespaceKinds(flags uint64) string {
	kinds := []struct {
		flag uint64
		name string
	}{
		{0x00020000, "mnt"}, {0x02000000, "cgroup"}, {0x04000000, "uts"}, {0x08000000, "ipc"},
		{0x10000000, "user"}, {0x20000000, "pid"}, {0x40000000, "net"}, {0x00000080, "time"},
	}
	var names []string
	for _, k := range kinds {
		if flags&k.flag != 0 {
			names = append(names, k.name)
		}
	}
	return strings.Join(names, ",")
}

// bpfCommand names those that matter most (include/uapi/linux/bpf.h, enum bpf_cmd).
func bpfCommand(n uint32) string {
	names := map[uint32]string{
		0: "MAP_CREATE", 1: "MAP_LOOKUP_ELEM", 2: "MAP_UPDATE_ELEM", 3: "MAP_DELETE_ELEM", 4: "MAP_GET_NEXT_KEY",
		5: "PROG_LOAD", 6: "OBJ_PIN", 7: "OBJ_GET", 8: "PROG_ATTACH", 9: "PROG_DETACH", 10: "PROG_TEST_RUN",
		13: "PROG_GET_FD_BY_ID", 14: "MAP_GET_FD_BY_ID", 15: "OBJ_GET_INFO_BY_FD", 17: "RAW_TRACEPOINT_OPEN",
		18: "BTF_LOAD", 28: "LINK_CREATE",
	}
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf("command %d", n)
}
