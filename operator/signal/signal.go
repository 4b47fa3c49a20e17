// Package signal is the one domain type that every intake produces and that
// advice and the stores consume. A Signal that passed Validate is safe to name
// objects, files and log fields after.
package signal

import "time"

// Type is what was observed; its values are those of KernelWhisper's spec.signalType.
type Type string

// The signals.
const (
	CPUThrottle    Type = "cpu_throttle"
	CPUStarvation  Type = "cpu_starvation" // runnable, waiting for a CPU, not throttled
	PodCreation    Type = "pod_creation"
	MemoryPressure Type = "memory_pressure"
	NetworkIssue   Type = "network_issue"
	SecurityEvent  Type = "security_event"

	// CPUReported is what another observer says that a container uses. It makes
	// no whisper of its own: it joins what the kernel says of the same container.
	CPUReported Type = "cpu_reported"
)

// Source is the door by which a signal came.
type Source string

// The doors; Manual is a whisper that a person applied.
const (
	SourceEBPF         Source = "ebpf"
	SourcePixie        Source = "pixie"
	SourceAlertmanager Source = "alertmanager"
	SourceManual       Source = "manual"
)

// Signal is one observation about one container (or pod, when Container is empty).
type Signal struct {
	Type      Type
	Source    Source
	Namespace string
	Pod       string
	Container string
	PodUID    string
	Node      string
	// Observed is when the condition was seen, by the sender's clock.
	Observed time.Time
	// Resolved tells that the condition is over.
	Resolved bool
	// Once tells that the sender may say the same again, as exports whose windows
	// overlap do: a word of the same source and time counts once.
	Once bool

	// CPU is set for CPUThrottle; it may be nil when Resolved.
	CPU *CPU
	// Reported is set for CPUReported.
	Reported *Reported
	// Creation is set for PodCreation.
	Creation *Creation
	// Process may be set for SecurityEvent.
	Process *Process
	// Values is the evidence of the other types: a bounded set of named numbers,
	// among them runqueue_wait_percent for CPUStarvation.
	Values map[string]float64
}

// CPU is the evidence of throttling. Nil is "not measured".
type CPU struct {
	ThrottlePercent  float64 // 0 to 100
	ActualCores      *float64
	ReportedCores    *float64
	LimitCores       *float64
	RecommendedCores *float64 // by the what-if model
	PeriodSeconds    float64  // 0: not told
	ThrottledSeconds *float64 // summed over CPUs
	// ReportedPercent is what the cluster is told, in % of the limit, where the
	// sender worked it out; else see LimitCores and ReportedCores.
	ReportedPercent *float64
	// RunqueueWaitPercent is 100 · waited / (waited + ran), waiting on run queues.
	RunqueueWaitPercent *float64
	WhatIf              []WhatIf
	Prediction          *Prediction // the what-if model's; nil where it does not run
	QOSClass            string      // of the pod, as Kubernetes spells it; empty: not known
	KernelInstrumented  bool        // the numbers come from eBPF, not from cpu.stat alone
	// Others is what further observers say, one figure of each.
	Others []Reported
}

// Process is who did a security event. Texts are the process's own words.
type Process struct {
	Event    string // that it did, by its name among the values
	Binary   string // path of its executable
	Comm     string
	PID, UID *uint64  // the node's
	Ancestry []string // names of its parents, the nearest first
	Detail   string
}

// Reported is an average that somebody reports of a container's CPU.
type Reported struct {
	Source        Source
	Cores         float64
	PeriodSeconds float64 // that the average is over; 0: not told
	Observed      time.Time
}

// WhatIf is the predicted share (0 to 1) of throttled periods at another limit.
type WhatIf struct {
	LimitCores    float64
	ThrottleRatio float64
	Low, High     *float64
}

// Outcome tells whether the what-if model has an answer, and if not, why.
type Outcome string

// The outcomes.
const (
	Predicted Outcome = "predicted"
	TooShort  Outcome = "too_short" // observed for too short a time at this limit
	Saturated Outcome = "saturated" // so throttled that demand can't be told
)

// Prediction is what the what-if model rests on, and what it can tell beside WhatIf
// and RecommendedCores. Ratios are shares of throttled periods, 0 to 1.
type Prediction struct {
	Outcome       Outcome
	Confidence    string // high, medium or low; empty without an answer
	Periods       uint64 // at the present limit
	WindowSeconds float64
	ThrottleRatio float64  // measured in them
	PeakCores     *float64 // the most that it would take in one period
	NextCores     *float64 // the limit to measure again at, when saturated
	BurstRatio    *float64 // with a burst of one quota at the present limit
	Threads       *uint64  // at once; ThreadsRatio with no more than these
	ThreadsRatio  *float64
	Check         *LimitCheck // of the last change of the limit
}

// LimitCheck is what a changed limit did, beside what was predicted for it.
type LimitCheck struct {
	Observed  time.Time
	FromCores float64
	Cores     float64
	Before    float64 // ratio at the old limit
	Measured  float64 // and at the new one
	// Predicted, with its likely interval, is nil where it could not be told.
	Predicted, Low, High *float64
}

// Creation is the evidence of a pod's birth. Nil is "not measured".
type Creation struct {
	TotalSyscalls uint64
	SetupSyscalls *uint64 // without what a process does for itself
	NamespaceOps  uint64
	CgroupWrites  uint64
	Duration      time.Duration
	Timeline      []Step
	Syscalls      []SyscallCount

	// SharedSyscalls are daemons', for SharedBy births that were in flight.
	SharedSyscalls, SharedBy *uint64
	Complete                 *bool
	IncompleteReasons        []string
	Failed                   bool // a container never reached its entrypoint
	Failure                  string
	Mounts, Execs            *uint64
	Namespaces               []Namespaces
	Network                  *BirthNetwork
	Containers               []BirthContainer
	Roles                    []Role
}

// Step is one stage of a birth.
type Step struct {
	Offset    time.Duration  // negative: before the birth began on the node
	Precision *time.Duration // how far Offset may be behind the truth; nil: exact
	Duration  *time.Duration // nil: a moment, or its end was not seen
	Actor     string         // scheduler, kubelet, runtime, cni or kernel
	Action    string
	Details   string
	Container string // empty: of the pod
}

// Namespaces is how many namespaces of one kind were made and entered.
type Namespaces struct {
	Kind             string // as in /proc/PID/ns
	Created, Entered uint64
}

// BirthNetwork is what was set up in the pod's network namespace.
type BirthNetwork struct {
	Interfaces, Addresses, Routes []string
	FirewallRules                 *uint64
}

// BirthContainer is one container's part of a birth. Offsets are from the birth's
// begin; nil: it did not come to that, or was not seen.
type BirthContainer struct {
	Name, ContainerID         string
	Init                      bool
	Created, Started, Entered *time.Duration // Entered: its own program was executed
	Entrypoint                string
	Failure                   string
	Syscalls, SetupSyscalls   *uint64
}

// Role is one part of the work, by the program that did it.
type Role struct {
	Role, Container string
	Syscalls        uint64
}

// SyscallCount is how often a syscall was made, and when first.
type SyscallCount struct {
	Name  string
	First time.Time
	Count uint64
}
