// Package reported is what the cluster is told a container uses: the figure
// behind `kubectl top`, with its own time stamp and window.
package reported

import "time"

// The values of the source label.
const (
	SourceKubelet   = "kubelet"             // the node's own kubelet
	SourceMetrics   = "metrics-api"         // metrics.k8s.io
	SourceEmulation = "emulated-15s-window" // off-cluster, from the kernel's counters
)

// Key names a container as the reporter does: pod UID and container name on a
// cluster, the cgroup path (Container only) off-cluster.
type Key struct {
	PodUID    string
	Namespace string
	Pod       string
	Container string
}

// Usage is one reported figure.
type Usage struct {
	Source string
	Cores  float64
	// MemoryBytes is the working set at about At; nil where none is reported.
	MemoryBytes *float64
	// At is the end of the window that the figure averages, by the reporter's clock;
	// Window is its length.
	At     time.Time
	Window time.Duration
}
