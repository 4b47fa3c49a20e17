package birth

import "time"

// Actors of steps.
const (
	ActorKubelet = "kubelet"
	ActorRuntime = "runtime"
	ActorCNI     = "cni"
	ActorKernel  = "kernel"
)

// Stages whose durations are worth a histogram.
const (
	StageTotal     = "total"     // from the first event to the last entrypoint
	StagePrepare   = "prepare"   // from the pod's cgroup to the first process of the runtime or of CNI
	StageNetwork   = "network"   // from the first CNI plugin's execve to the end of the last one
	StageSandbox   = "sandbox"   // from the runtime's create to the sandbox's entrypoint
	StageContainer = "container" // the same of each other container
)

// Stages lists them.
func Stages() []string {
	return []string{StagePrepare, StageNetwork, StageSandbox, StageContainer, StageTotal}
}

// Certificate is how a pod, or off-cluster a container, came to life.
type Certificate struct {
	PodUID         string // as in the cgroup's path; empty off-cluster
	Namespace, Pod string // as CNI was told; empty where it was not called
	Container      string // ID, off-cluster

	Begin    time.Duration // CLOCK_MONOTONIC
	Duration time.Duration // to the last entrypoint, or where there is none to the last event

	Steps      []Step
	Containers []Container
	Roles      []Role

	Total, Setup uint64 // system calls of the birth's own processes
	Syscalls     []Syscall
	// Shared is what the daemons did meanwhile, for SharedBy births (this one included).
	Shared   uint64
	SharedBy int

	Execs        uint64 // execves that succeeded
	Mounts       uint64 // file systems mounted, bind mounts and remounts included: successful mount and move_mount
	CgroupWrites uint64
	Namespaces   []Namespaces
	Network      Network

	// Incomplete says what is missing, and why; empty where nothing is.
	Incomplete []string
	Failure    string // why it counts as failed; empty where every container came to life

	Stages map[string][]time.Duration
}

// Step is a stage of a birth.
type Step struct {
	Offset    time.Duration
	Duration  time.Duration // 0 where it is a moment
	Actor     string
	Action    string
	Details   string
	Container string // ID
}

// Container is one that was to come to life.
type Container struct {
	ID         string
	Sandbox    bool
	Created    *time.Duration // offset of the runtime's execve; nil where it was not seen
	Started    *time.Duration // offset of runc start's execve; nil where create and start are one
	Entered    *time.Duration // offset of the entrypoint's execve; nil where it was never reached
	Returned   *time.Duration // offset of its return to user space; nil where that was not seen
	Entrypoint string         // the file
	Syscalls   uint64
	Setup      uint64
	Failed     bool
	Cause      string // why, as far as its runtime's processes show it
}

// Role is what the processes of one purpose did.
type Role struct {
	Name      string // shim, runc create, runc init, cni bridge, …
	Container string // ID
	Syscalls  uint64
}

// Syscall is how often one was made, and when first.
type Syscall struct {
	Name  string
	N     uint64
	First time.Duration // offset
}

// Namespaces of a kind, made and entered.
type Namespaces struct {
	Kind             string
	Created, Entered uint64
}

// Network is what was asked of the kernel for the birth's network.
type Network struct {
	Interfaces, Addresses, Routes []string
	// Rules of the firewall that were added, by nftables' netlink or by the legacy
	// iptables; nil where some of it could not be read.
	Rules *uint64
}

// isOwn tells of the system calls that a process makes for itself, whatever it is there
// for: threads, signals, memory, waiting, clocks. The Go runtime's share of them varies
// with the load of the machine.
func isOwn(name string) bool {
	switch name {
	case "futex", "nanosleep", "clock_nanosleep", "sched_yield", "sched_getaffinity", "gettid", "tgkill", "getrandom",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
		"mmap", "munmap", "mprotect", "madvise", "brk", "mremap",
		"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2",
		"timer_create", "timer_settime", "timer_delete", "clock_gettime", "gettimeofday",
		"set_robust_list", "set_tid_address", "rseq", "arch_prctl", "membarrier":
		return true
	}
	return false
}

// kinds is how many kinds of namespaces there are.
const kinds = 8

type namespaceKind struct {
	flag uint32
	name string
}

// namespaceKinds are the CLONE_NEW… flags (include/uapi/linux/sched.h).
func namespaceKinds() [kinds]namespaceKind {
	return [...]namespaceKind{
		{0x40000000, "net"}, {0x00020000, "mnt"}, {0x20000000, "pid"}, {0x08000000, "ipc"},
		{0x04000000, "uts"}, {0x02000000, "cgroup"}, {0x10000000, "user"}, {0x00000080, "time"},
	}
}
