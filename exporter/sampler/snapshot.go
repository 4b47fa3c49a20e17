package sampler

import (
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

// Snapshot is what one sample found. It is never changed once published: scrapes,
// pages and whispers share it. A nil pointer or slice is "not measured".
type Snapshot struct {
	At     time.Time     // wall clock, start of the sample
	Took   time.Duration // how long the sample took
	Window time.Duration // the trailing window that ratios look back on
	Since  time.Time     // when the kernel's instruments began to count

	// Containers by namespace, pod and container; each of these names occurs once.
	Containers []Container

	SyscallNames []string // slots of Container.Syscalls; the last is "other"

	Probes   []bpf.Status
	Programs []bpf.ProgramStats
	Maps     []bpf.MapStats
	// Unowned is the number of cgroups that the kernel counted and that belong to no
	// container or service. They are not told apart.
	Unowned int
	// NodeNetwork is what of the network belongs to no container that can be told.
	NodeNetwork *Network
	// Births is what became of the births since the start; nil where none are followed.
	Births *Births
	// Tree is the cgroup tree's own account, nil when it keeps none.
	Tree *cgroup.Stats
	// Predictions is nil where nothing is predicted.
	Predictions *Predictions
	// Errors counts failed reads by reader since the start, zero included. A cgroup
	// that is gone is no error.
	Errors map[string]uint64
}

// Container is one cgroup of interest, under the names that the cluster knows.
type Container struct {
	// Namespace, Pod and Container are as cAdvisor spells them. Outside Kubernetes
	// the first two are empty and Container is the cgroup's path. A pod's own cgroup
	// has an empty Container.
	Namespace, Pod, Container string
	PodUID                    string            // the API object's, else the path's
	Labels                    map[string]string // of the pod; never written again
	Group                     cgroup.Group

	CPU   *cgroup.CPUStat
	Limit *cgroup.CPULimit
	CPUs  int // that it may run on; 0: unknown
	// Request is the CPU in cores that the pod's spec asks for, now; nil off-cluster and
	// without a request.
	Request *float64
	// Throttling over the trailing window.
	Throttling *Throttling
	// Durations of throttles, per CPU.
	Durations *bpf.Histogram
	// Denied is, for each throttled period, the CPU time denied in it, summed over CPUs.
	Denied   *bpf.Histogram
	Runqueue *bpf.RunqueueWait
	Syscalls []uint64 // by Snapshot.SyscallNames

	Reported []reported.Usage // by preference
	// Gap is over the preferred report's own window, or over the trailing window
	// when nothing is reported.
	Gap *gap.Parts

	Memory Memory
	// Network is what became of its packets.
	Network *Network
	// Security is what it did that few should; nil for services of the host, too.
	Security *Security

	// WhatIf is what is predicted for other limits; nil without a limit.
	WhatIf *whatif.Result
	// LimitCheckedAt is when WhatIf.Check came about; zero without one.
	LimitCheckedAt time.Time
}

// Predictions is how what-if predictions turned out, since the start: whenever a
// limit was changed and then observed for long enough.
type Predictions struct {
	Checked  uint64
	AbsError float64 // sum of |predicted - measured| ratio
}

// Throttling is the growth of cpu.stat's figures over a window.
type Throttling struct {
	Window        time.Duration // from the first to the last sample of it
	Periods       uint64        // Δnr_periods
	Throttled     uint64        // Δnr_throttled
	ThrottledTime time.Duration // Δthrottled_usec, summed over CPUs
	Used          time.Duration // Δusage_usec; 0 where usage is not measured
}

// Ratio is Δnr_throttled / Δnr_periods; false when no period elapsed.
func (t *Throttling) Ratio() (float64, bool) {
	if t == nil || t.Periods == 0 {
		return 0, false
	}
	return float64(t.Throttled) / float64(t.Periods), true
}

// Cores is the limit that the kernel enforces; false when there is none or it is
// not known.
func (c *Container) Cores() (float64, bool) {
	if c.Limit == nil {
		return 0, false
	}
	return c.Limit.Cores()
}
