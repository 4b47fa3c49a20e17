// Package wire is the JSON that travels from the exporter, Pixie scripts and
// hand-made requests to the operator's POST /webhook/pixie and /webhook/ebpf.
//
// An event is one object, or an array of them, either tagged
// {"type":"cpu_throttle", …} or wrapped {"cpu_throttle":{…}}. Optional numbers
// are pointers: absent is not 0.
package wire

import "time"

// The values of the tag.
const (
	TypeCPUThrottle    = "cpu_throttle"
	TypePodCreation    = "pod_creation"
	TypeMemoryPressure = "memory_pressure"
	TypeNetworkIssue   = "network_issue"
	TypeSecurityEvent  = "security_event"
	TypeCPUStarvation  = "cpu_starvation"
	TypeCPUReported    = "cpu_reported"
)

// Head names whom an event is about and when it was observed.
type Head struct {
	Type          string    `json:"type"`
	PodName       string    `json:"pod_name"`
	Namespace     string    `json:"namespace"`
	ContainerName string    `json:"container_name,omitempty"`
	PodUID        string    `json:"pod_uid,omitempty"`
	NodeName      string    `json:"node_name,omitempty"`
	Timestamp     time.Time `json:"timestamp"`
	// Resolved tells that the condition is over: the whisper turns Resolved.
	Resolved bool `json:"resolved,omitempty"`
	// Once tells that the sender may send the same again: events of one sender
	// and timestamp count once.
	Once bool `json:"once,omitempty"`
}

// About is the head: what every event has.
func (h Head) About() Head { return h }

// Event is any of the types below.
type Event interface{ About() Head }

// CPUThrottle is a container that the kernel throttles.
type CPUThrottle struct {
	Head
	// ThrottlePercentage is 100 · Δnr_throttled / Δnr_periods, 0 to 100.
	ThrottlePercentage float64 `json:"throttle_percentage"`
	// ActualCPUUsage and ReportedCPUUsage are in cores; nil when there is no
	// figure, as in the first seconds of a container's life.
	ActualCPUUsage   *float64 `json:"actual_cpu_usage,omitempty"`
	ReportedCPUUsage *float64 `json:"reported_cpu_usage,omitempty"`
	// PeriodSeconds is the length of the window that the figures rest on.
	PeriodSeconds float64 `json:"period_seconds"`

	// ThrottleNs is the throttled time of the window, summed over CPUs as cpu.stat does.
	ThrottleNs          *uint64  `json:"throttle_ns,omitempty"`
	EBPFDetection       bool     `json:"ebpf_detection,omitempty"`
	CPULimit            *float64 `json:"cpu_limit,omitempty"`             // cores
	RecommendedCPULimit *float64 `json:"recommended_cpu_limit,omitempty"` // cores
	WhatIf              []WhatIf `json:"whatif,omitempty"`
	// Prediction is what the what-if model says of the container beside these; nil
	// where it does not run.
	Prediction *Prediction `json:"prediction,omitempty"`
	// QOSClass of the pod, as Kubernetes spells it.
	QOSClass string `json:"qos_class,omitempty"`
	// RunqueueWaitPercent is that of CPUStarvation.
	RunqueueWaitPercent *float64 `json:"runqueue_wait_percent,omitempty"`
}

// WhatIf is the predicted share of throttled periods at another limit.
type WhatIf struct {
	LimitCores    float64  `json:"limit_cores"`
	ThrottleRatio float64  `json:"throttle_ratio"` // 0 to 1
	Low           *float64 `json:"low,omitempty"`
	High          *float64 `json:"high,omitempty"`
}

// Prediction is what the what-if model rests on, and what it can tell. Ratios are
// shares of throttled periods, 0 to 1.
type Prediction struct {
	// Outcome is predicted; or too_short or saturated, when it can't be told yet.
	Outcome    string `json:"outcome"`
	Confidence string `json:"confidence,omitempty"` // high, medium or low; none without an answer

	Periods       uint64  `json:"periods"` // at the present limit, in the window
	WindowSeconds float64 `json:"window_seconds"`
	ThrottleRatio float64 `json:"throttle_ratio"` // measured in the window
	// PeakCores is the most that it would take in one period.
	PeakCores *float64 `json:"peak_cores,omitempty"`
	// NextCPULimit is, in cores, what to measure again at when saturated.
	NextCPULimit *float64 `json:"next_cpu_limit,omitempty"`
	// BurstRatio is predicted for the present limit with a burst (cpu.max.burst) of one
	// quota; ThreadsRatio with at most so many Threads at once.
	BurstRatio   *float64 `json:"burst_throttle_ratio,omitempty"`
	Threads      *uint64  `json:"threads,omitempty"`
	ThreadsRatio *float64 `json:"threads_throttle_ratio,omitempty"`

	// Check is the last change of the limit; nil when there was none that was seen.
	Check *LimitCheck `json:"check,omitempty"`
}

// LimitCheck is what a changed limit did, beside what was predicted for it.
type LimitCheck struct {
	Timestamp    time.Time `json:"timestamp"` // when enough was observed at the new limit
	FromCPULimit float64   `json:"from_cpu_limit"`
	CPULimit     float64   `json:"cpu_limit"`
	BeforeRatio  float64   `json:"before_ratio"`   // measured at the old limit
	Measured     float64   `json:"measured_ratio"` // and at the new one
	// Predicted, with its likely interval, is nil where it could not be told.
	Predicted *float64 `json:"predicted_ratio,omitempty"`
	Low       *float64 `json:"low,omitempty"`
	High      *float64 `json:"high,omitempty"`
}

// PodCreation is how a pod came to life. A pod is born once: what is told again
// of the same pod UID replaces what was told before only where it knows more.
type PodCreation struct {
	Head
	TotalSyscalls uint64 `json:"total_syscalls"`
	NamespaceOps  uint64 `json:"namespace_ops"` // namespaces made or entered
	CgroupWrites  uint64 `json:"cgroup_writes"`
	DurationNs    uint64 `json:"duration_ns"`
	Timeline      []Step `json:"timeline,omitempty"`
	// Syscalls may also be a list of plain names; a name counts once for each time it is listed.
	Syscalls []Syscall `json:"syscalls,omitempty"`

	// SetupSyscalls are those of TotalSyscalls that a process does not make for itself
	// wherever it runs (threads, signals, memory, waiting), which in Go programs vary
	// with the load.
	SetupSyscalls *uint64 `json:"setup_syscalls,omitempty"`
	// SharedSyscalls are daemons' while this pod and SharedBy others were being
	// born; nothing ties them to one of these, and they are not in TotalSyscalls.
	SharedSyscalls *uint64 `json:"shared_syscalls,omitempty"`
	SharedBy       *uint64 `json:"shared_by,omitempty"` // births in flight, this one included: at least 1
	// Complete is false when something of the birth was missed; the reasons say what.
	Complete          *bool    `json:"complete,omitempty"`
	IncompleteReasons []string `json:"incomplete_reasons,omitempty"`
	// Failed tells that a container never reached its entrypoint; Failure says in words why.
	Failed  bool   `json:"failed,omitempty"`
	Failure string `json:"failure,omitempty"`

	Mounts     *uint64          `json:"mounts,omitempty"` // mount, move_mount and the like that succeeded
	Execs      *uint64          `json:"execs,omitempty"`
	Namespaces []Namespaces     `json:"namespaces,omitempty"` // one entry a kind
	Network    *BirthNetwork    `json:"network,omitempty"`
	Containers []BirthContainer `json:"containers,omitempty"` // one entry a name
	Roles      []Role           `json:"roles,omitempty"`
	// IptablesRules is the short form of Network.FirewallRules.
	IptablesRules *uint64 `json:"iptables_rules,omitempty"`
}

// Step is one stage of a birth.
type Step struct {
	// TimestampMs is milliseconds since the birth began, negative for what was before,
	// such as the scheduler's work. Values that can only be a Unix time are taken as
	// that, relative to the first step.
	TimestampMs float64 `json:"timestamp_ms"`
	// PrecisionMs is how far TimestampMs may be behind the truth: 1000 for what the
	// API server tells, whose times are cut to the second. Absent: exact.
	PrecisionMs *float64 `json:"precision_ms,omitempty"`
	// DurationMs is absent where the step is a moment, or its end was not seen.
	DurationMs *float64 `json:"duration_ms,omitempty"`
	Actor      string   `json:"actor"` // scheduler, kubelet, runtime, cni or kernel
	Action     string   `json:"action"`
	Details    string   `json:"details,omitempty"`
	Container  string   `json:"container,omitempty"` // that the step is of; empty: of the pod
}

// Namespaces is how many namespaces of one kind were made and entered.
type Namespaces struct {
	Kind    string `json:"kind"`    // as in /proc/PID/ns: mnt, net, pid, uts, ipc, user, cgroup, time
	Created uint64 `json:"created"` // clone, clone3, unshare
	Entered uint64 `json:"entered"` // setns
}

// BirthNetwork is what was set up in the pod's network namespace.
type BirthNetwork struct {
	Interfaces []string `json:"interfaces,omitempty"` // names
	Addresses  []string `json:"addresses,omitempty"`  // in CIDR notation
	Routes     []string `json:"routes,omitempty"`     // as ip route shows them
	// FirewallRules is how many rules were added for the pod, of netfilter's either kind.
	FirewallRules *uint64 `json:"firewall_rules,omitempty"`
}

// BirthContainer is one container's part of a birth. Times are milliseconds since
// the birth began; absent: it did not come to that, or was not seen.
type BirthContainer struct {
	Name        string   `json:"name"`
	ContainerID string   `json:"container_id,omitempty"`
	Init        bool     `json:"init,omitempty"`
	CreatedMs   *float64 `json:"created_ms,omitempty"` // the runtime began to create it
	StartedMs   *float64 `json:"started_ms,omitempty"` // the runtime began to start it
	// EntrypointMs is when its own program was executed.
	EntrypointMs  *float64 `json:"entrypoint_ms,omitempty"`
	Entrypoint    string   `json:"entrypoint,omitempty"` // path of that program
	Failure       string   `json:"failure,omitempty"`    // why it never came to that, in words
	Syscalls      *uint64  `json:"syscalls,omitempty"`
	SetupSyscalls *uint64  `json:"setup_syscalls,omitempty"`
}

// Role is one part of the work, as a program has it: containerd-shim, runc create,
// runc init, a CNI plugin by its name.
type Role struct {
	Role      string `json:"role"`
	Container string `json:"container,omitempty"` // empty: of the pod
	Syscalls  uint64 `json:"syscalls"`
}

// Syscall is how often a syscall was made, and when first.
type Syscall struct {
	Name      string    `json:"name"`
	Timestamp time.Time `json:"timestamp,omitzero"`
	Count     uint64    `json:"count,omitempty"`
}

// MemoryPressure is a container that the kernel makes wait for memory, or kills for it.
// Here and in the events below any further number whose name is of a-z, 0-9
// and _ is taken as evidence too.
type MemoryPressure struct {
	Head
	PeriodSeconds       *float64 `json:"period_seconds,omitempty"`
	OOMKills            *uint64  `json:"oom_kills,omitempty"`
	SomePressurePercent *float64 `json:"some_pressure_percent,omitempty"` // of the window, PSI
	FullPressurePercent *float64 `json:"full_pressure_percent,omitempty"`
	ReclaimStallSeconds *float64 `json:"reclaim_stall_seconds,omitempty"` // summed over threads
	// ReclaimStallPercent is that of the window; more than 100 with several threads.
	ReclaimStallPercent *float64 `json:"reclaim_stall_percent,omitempty"`

	WorkingSetBytes     *float64 `json:"working_set_bytes,omitempty"`     // the highest of the window
	ReportedMemoryBytes *float64 `json:"reported_memory_bytes,omitempty"` // what kubectl top shows
	MemoryLimitBytes    *float64 `json:"memory_limit_bytes,omitempty"`
	RefaultedBytes      *float64 `json:"refaulted_bytes,omitempty"` // pages of the window that came back after eviction
	// GrowthBytesPerHour is how fast the working set grows, when it did nothing else
	// for minutes.
	GrowthBytesPerHour *float64 `json:"growth_bytes_per_hour,omitempty"`

	// Of the last kill: the victim and whose allocation asked for it. OOMNode is 1 when
	// the node and not a cgroup was out of memory.
	OOMVictimPID      *uint64  `json:"oom_victim_pid,omitempty"`
	OOMVictimRSSBytes *float64 `json:"oom_victim_rss_bytes,omitempty"`
	OOMTriggerPID     *uint64  `json:"oom_trigger_pid,omitempty"`
	OOMLimitBytes     *float64 `json:"oom_limit_bytes,omitempty"`
	OOMNode           *uint64  `json:"oom_node,omitempty"`
}

// NetworkIssue is a container whose packets are lost or sent again, or whose
// connections are turned away. Counts are of the period; a sender that has shares
// instead gives retransmit_percent, accept_overflow_percent (of the connections that
// came about or were turned away), refused_percent (likewise) and drop_percent.
type NetworkIssue struct {
	Head
	PeriodSeconds    *float64 `json:"period_seconds,omitempty"`
	SegmentsSent     *uint64  `json:"segments_sent,omitempty"` // TCP, retransmits included
	SegmentsReceived *uint64  `json:"segments_received,omitempty"`
	TCPRetransmits   *uint64  `json:"tcp_retransmits,omitempty"`
	Connections      *uint64  `json:"connections,omitempty"` // established, either way
	// AcceptQueueOverflows are connections that its listeners turned away.
	AcceptQueueOverflows *uint64 `json:"accept_queue_overflows,omitempty"`
	ConnectionsRefused   *uint64 `json:"connections_refused,omitempty"`
	ResetsReceived       *uint64 `json:"resets_received,omitempty"`
	// Drops are packets that the kernel dropped; DropReasons by its own reason, which
	// become evidence as drops_<reason>.
	Drops       *uint64           `json:"drops,omitempty"`
	DropReasons map[string]uint64 `json:"drop_reasons,omitempty"`
}

// SecurityEvent is what a container seldom does after its birth.
type SecurityEvent struct {
	Head
	// Event is the gravest: setns, unshare, mount, ptrace, …
	Event string `json:"event"`
	// Count is how often; nil is once.
	Count *uint64 `json:"count,omitempty"`
	// Events are how often each happened, in the period. They become evidence by their names.
	Events        map[string]uint64 `json:"events,omitempty"`
	PeriodSeconds *float64          `json:"period_seconds,omitempty"`

	// Of the process that last did Event. Texts are what it says of itself: bounded, and
	// without control characters.
	Binary   string   `json:"binary,omitempty"` // path of its executable
	Comm     string   `json:"comm,omitempty"`
	PID      *uint64  `json:"pid,omitempty"`      // the node's
	UID      *uint64  `json:"uid,omitempty"`      // the node's
	Ancestry []string `json:"ancestry,omitempty"` // names of its parents, the nearest first
	Detail   string   `json:"detail,omitempty"`   // what it did it to
}

// CPUReported is what another observer, such as Pixie, says that a container
// uses. It joins the container's cpu_throttle and makes no object of its own.
type CPUReported struct {
	Head
	ReportedCPUUsage float64  `json:"reported_cpu_usage"` // cores, an average
	PeriodSeconds    *float64 `json:"period_seconds,omitempty"`
}

// CPUStarvation is a container that waits on run queues without being throttled.
type CPUStarvation struct {
	Head
	// RunqueueWaitPercent is the share of the time its threads wanted a CPU in
	// which they waited for one: 100 · waited / (waited + ran).
	RunqueueWaitPercent float64  `json:"runqueue_wait_percent"`
	PeriodSeconds       *float64 `json:"period_seconds,omitempty"`
}
