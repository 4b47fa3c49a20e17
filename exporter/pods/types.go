// Package pods names the container that a cgroup belongs to.
package pods

// Container is what Kubernetes knows of a container on this node.
type Container struct {
	Namespace string
	Pod       string
	Container string
	PodUID    string // the API object's UID, also for static pods
	// ContainerID without its runtime prefix.
	ContainerID string
	// Labels of the pod; never written again.
	Labels          map[string]string
	CPULimitCores   *float64 // spec.containers[].resources.limits.cpu
	CPURequestCores *float64
}

// Index looks containers up. Implementations are safe for concurrent use.
type Index interface {
	// ByContainerID returns the container that runs (or last ran) as id.
	ByContainerID(id string) (Container, bool)
	// ByPodUID returns the pod (Container empty) whose cgroup path carries uid:
	// the UID, or for a static pod the config hash.
	ByPodUID(uid string) (Container, bool)
}
