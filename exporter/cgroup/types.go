package cgroup

import "time"

// ID is the kernel's id of the cpu controller's cgroup: kernfs_node.id, which is
// the inode number of its directory (fs/kernfs, 64-bit ino_t). It is the key that
// the BPF programs use, on cgroup v1 and v2 alike.
type ID uint64

// Kind tells what a cgroup holds.
type Kind string

// The kinds. Pod is the parent that holds a pod's containers.
const (
	KindContainer Kind = "container"
	KindPod       Kind = "pod"
	KindService   Kind = "service"
	KindOther     Kind = "other" // has processes or a quota, and none of the names we know
)

// QoS is the Kubernetes quality-of-service class that a path tells.
type QoS string

// The classes; empty outside Kubernetes.
const (
	QoSGuaranteed QoS = "guaranteed"
	QoSBurstable  QoS = "burstable"
	QoSBestEffort QoS = "besteffort"
)

// Identity is what a cgroup's path alone tells.
type Identity struct {
	Kind        Kind
	PodUID      string // as in the path, underscores turned to dashes; a static pod's config hash
	ContainerID string // 64 hex digits, no prefix
	Runtime     string // containerd, crio, docker, libpod, or empty
	QoS         QoS
}

// Group is one cgroup of interest.
type Group struct {
	ID   ID
	Path string // below the cpu controller's root, with a leading slash
	Identity
	Seen time.Time // when it was first found
	Gone time.Time // zero while it exists; kept as a tombstone for a grace period
}

// CPUStat is cpu.stat and, where the kernel has it, cpu.stat.local, of one instant.
// Usage covers the cgroup and all below it; the throttle counters are those of the
// cgroup's own quota only.
// Sources: kernel/sched/core.c cpu_cfs_stat_show, cpu_cfs_local_stat_show (6.6+).
type CPUStat struct {
	At        time.Time     // wall and monotonic time of the read
	Usage     time.Duration // usage_usec, or cpuacct.usage; hierarchical
	HasUsage  bool          // false on v1 where the cgroup has no counterpart in the cpuacct hierarchy
	Periods   uint64        // nr_periods
	Throttled uint64        // nr_throttled
	// ThrottledTime is throttled_usec (v2) or throttled_time (v1), summed over CPUs.
	ThrottledTime time.Duration
	// HierarchicalThrottledTime is cpu.stat.local's throttled_usec (v2) or throttled_time (v1): an ancestor's
	// throttling included. Nil before 6.6. The pointee is never written again.
	HierarchicalThrottledTime *time.Duration
	HasBandwidth              bool // the nr_* fields were there (cpu controller enabled)
}

// CPULimit is cpu.max and cpu.max.burst, or cfs_quota_us, cfs_period_us and cfs_burst_us.
type CPULimit struct {
	Quota  time.Duration // 0: no limit
	Period time.Duration
	Burst  time.Duration
}

// Cores is quota over period, and false when there is no limit.
func (l CPULimit) Cores() (float64, bool) {
	if l.Quota <= 0 || l.Period <= 0 {
		return 0, false
	}
	return float64(l.Quota) / float64(l.Period), true
}

// EffectiveLimit is the smallest limit that binds a cgroup: its own or an ancestor's.
type EffectiveLimit struct {
	CPULimit
	Path string // of the cgroup that sets it; empty when there is no limit on the path
}

// Stats is the tree's own account.
type Stats struct {
	Directories  int // known, cgroups of no interest included
	Groups       int // alive
	Tombstones   int
	Watches      int
	WatchLimited bool // some directories could not be watched; the fast walk is on
	Walks        uint64
	LastWalk     time.Duration // how long the last full walk took
	Overflows    uint64        // inotify queue overflows
	OpenFiles    int
}
