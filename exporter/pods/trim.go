package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Annotations of the API's copy of a static pod (pkg/kubelet/types/pod_update.go).
// The kubelet runs the pod under the hash, so the hash is what a cgroup path carries.
const (
	annotationConfigHash   = "kubernetes.io/config.hash"
	annotationConfigMirror = "kubernetes.io/config.mirror"
)

// trim is the informer's transform: it drops what Index never answers with, so
// that a node's pods cost kilobytes whatever their specs hold.
func trim(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Pod:
		return trimPod(o), nil
	case cache.DeletedFinalStateUnknown:
		pod, ok := o.Obj.(*corev1.Pod)
		if !ok {
			return obj, nil
		}
		o.Obj = trimPod(pod)
		return o, nil
	default:
		return nil, fmt.Errorf("pod informer got a %T", obj)
	}
}

func trimPod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       p.Namespace,
			Name:            p.Name,
			UID:             p.UID,
			ResourceVersion: p.ResourceVersion,
			Labels:          p.Labels,
		},
		Spec: corev1.PodSpec{NodeName: p.Spec.NodeName},
	}
	for _, key := range []string{annotationConfigHash, annotationConfigMirror} {
		if v, ok := p.Annotations[key]; ok {
			if out.Annotations == nil {
				out.Annotations = make(map[string]string, 2)
			}
			out.Annotations[key] = v
		}
	}
	trimBirth(out, p)
	out.Spec.InitContainers = trimContainers(p.Spec.InitContainers)
	out.Spec.Containers = trimContainers(p.Spec.Containers)
	for _, c := range p.Spec.EphemeralContainers {
		// Ephemeral containers may not have resources.
		out.Spec.EphemeralContainers = append(out.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: c.Name},
		})
	}
	if r := p.Spec.Resources; r != nil {
		trimmed := trimResources(*r)
		out.Spec.Resources = &trimmed
	}
	out.Status.InitContainerStatuses = trimStatuses(p.Status.InitContainerStatuses)
	out.Status.ContainerStatuses = trimStatuses(p.Status.ContainerStatuses)
	out.Status.EphemeralContainerStatuses = trimStatuses(p.Status.EphemeralContainerStatuses)
	return out
}

func trimContainers(in []corev1.Container) []corev1.Container {
	if len(in) == 0 {
		return nil
	}
	out := make([]corev1.Container, 0, len(in))
	for _, c := range in {
		out = append(out, corev1.Container{Name: c.Name, Resources: trimResources(c.Resources)})
	}
	return out
}

func trimResources(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Limits: onlyCPU(r.Limits), Requests: onlyCPU(r.Requests)}
}

func onlyCPU(l corev1.ResourceList) corev1.ResourceList {
	q, ok := l[corev1.ResourceCPU]
	if !ok {
		return nil
	}
	return corev1.ResourceList{corev1.ResourceCPU: q}
}

func trimStatuses(in []corev1.ContainerStatus) []corev1.ContainerStatus {
	if len(in) == 0 {
		return nil
	}
	out := make([]corev1.ContainerStatus, 0, len(in))
	for _, s := range in {
		out = append(out, corev1.ContainerStatus{
			Name: s.Name, ContainerID: s.ContainerID, RestartCount: s.RestartCount,
			State: trimState(s.State), LastTerminationState: trimState(s.LastTerminationState),
		})
	}
	return out
}
