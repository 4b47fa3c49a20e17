package pods

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func describePod(p *corev1.Pod) Container {
	c := Container{Namespace: p.Namespace, Pod: p.Name, PodUID: string(p.UID), Labels: p.Labels}
	if r := p.Spec.Resources; r != nil { // pod-level resources (KEP-2837)
		c.CPULimitCores, c.CPURequestCores = cores(r.Limits), cores(r.Requests)
	}
	return c
}

// staticHash is the UID under which the kubelet runs a static pod, empty for
// any other pod.
func staticHash(p *corev1.Pod) string {
	if hash := p.Annotations[annotationConfigMirror]; hash != "" {
		return hash
	}
	return p.Annotations[annotationConfigHash]
}

// describeContainers returns each container ID that the status names: what runs,
// and what ran before the last restart. A container without an ID yet has no entry.
func describeContainers(p *corev1.Pod, pod Container) []Container {
	type resources struct{ limit, request *float64 }
	spec := make(map[string]resources, len(p.Spec.Containers)+len(p.Spec.InitContainers))
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			spec[c.Name] = resources{cores(c.Resources.Limits), cores(c.Resources.Requests)}
		}
	}
	var out []Container
	add := func(name, id string) {
		if id = bareID(id); id == "" {
			return
		}
		c := pod
		c.Container, c.ContainerID = name, id
		c.CPULimitCores, c.CPURequestCores = spec[name].limit, spec[name].request
		out = append(out, c)
	}
	for _, list := range [][]corev1.ContainerStatus{
		p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses,
	} {
		for _, s := range list {
			if t := s.LastTerminationState.Terminated; t != nil {
				add(s.Name, t.ContainerID)
			}
			if t := s.State.Terminated; t != nil {
				add(s.Name, t.ContainerID)
			}
			add(s.Name, s.ContainerID)
		}
	}
	return out
}

// bareID cuts the runtime's prefix off, as in containerd://<64 hex digits>.
func bareID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}

func cores(l corev1.ResourceList) *float64 {
	q, ok := l[corev1.ResourceCPU]
	if !ok {
		return nil
	}
	v := q.AsApproximateFloat64()
	return &v
}
