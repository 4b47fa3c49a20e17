package pods

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// Resolution of the API's times: a metav1.Time is cut to the second, so what
// happened lies within the second that begins there, by the clock of who set it.
const Resolution = time.Second

// maxMessage bounds what is kept of the kubelet's words about a container.
const maxMessage = 512

// Birth is what the API server knows of how a pod came to life. A time that is
// zero is not known, or has not come yet. When images were pulled only Events
// tell, which the exporter has no right to read.
type Birth struct {
	Node      string
	Created   time.Time // metadata.creationTimestamp; unset for a static pod, whose mirror comes late
	Scheduled time.Time // condition PodScheduled: bound to a node
	Accepted  time.Time // status.startTime: the kubelet took it
	// SandboxReady is the condition PodReadyToStartContainers: sandbox and network
	// are there (KEP-3085, Kubernetes 1.29).
	SandboxReady time.Time
	Initialized  time.Time // condition Initialized, where there are init containers
	Ready        time.Time // condition Ready
	Containers   []ContainerBirth
}

// ContainerBirth is what the API server knows of one container's first start.
type ContainerBirth struct {
	Name string
	Init bool
	// Started is when it was first started; zero when it was not, or was
	// restarted so often that the API has forgotten.
	Started time.Time
	// Problem is why the kubelet can't start it, e.g. "RunContainerError: exec: …".
	Problem  string
	Restarts int32
}

// Births tells how pods were born. Implementations are safe for concurrent use.
type Births interface {
	// Birth takes the UID that a cgroup path carries, as Index.ByPodUID does.
	Birth(uid string) (Birth, bool)
}

var (
	_ Births = (*Informer)(nil)
	_ Births = None{}
)

// Birth returns what is known by now; the kubelet reports with a delay of some
// hundred milliseconds to seconds.
func (i *Informer) Birth(uid string) (Birth, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	e, ok := i.pods[uid]
	if !ok {
		e, ok = i.static[uid]
	}
	return e.birth, ok
}

// Birth knows none.
func (None) Birth(string) (Birth, bool) { return Birth{}, false }

// Steps are the stages of a birth that the API server knows, by offset from
// began, the first sign of it in the kernel: what came before is negative. Each has
// the API's resolution as its precision.
func (b Birth) Steps(began time.Time) []wire.Step {
	var steps []wire.Step
	precision := float64(Resolution.Milliseconds())
	add := func(at time.Time, actor, action, details, container string) {
		if at.IsZero() {
			return
		}
		steps = append(steps, wire.Step{
			TimestampMs: float64(at.Sub(began).Microseconds()) / 1000, PrecisionMs: &precision,
			Actor: actor, Action: action, Details: details, Container: container,
		})
	}
	if !b.Created.IsZero() && !b.Scheduled.IsZero() && !b.Scheduled.Before(b.Created) {
		add(b.Created, "scheduler", "find a node", "bound to "+b.Node, "")
		waited := float64(b.Scheduled.Sub(b.Created).Milliseconds())
		steps[len(steps)-1].DurationMs = &waited
	} else {
		add(b.Created, "scheduler", "pod created", "", "")
		add(b.Scheduled, "scheduler", "bound to "+b.Node, "", "")
	}
	add(b.Accepted, "kubelet", "pod accepted", "status.startTime", "")
	add(b.SandboxReady, "kubelet", "sandbox ready", "condition PodReadyToStartContainers", "")
	add(b.Initialized, "kubelet", "initialized", "condition Initialized", "")
	for _, c := range b.Containers {
		what := "container started"
		if c.Init {
			what = "init container started"
		}
		add(c.Started, "kubelet", what, "", c.Name)
	}
	add(b.Ready, "kubelet", "ready", "condition Ready", "")
	return steps
}

func describeBirth(p *corev1.Pod) Birth {
	b := Birth{Node: p.Spec.NodeName}
	mirror := staticHash(p) != ""
	if !mirror {
		b.Created = p.CreationTimestamp.Time
	}
	if p.Status.StartTime != nil {
		b.Accepted = p.Status.StartTime.Time
	}
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch at := c.LastTransitionTime.Time; {
		case c.Type == corev1.PodScheduled && !mirror:
			b.Scheduled = at
		case c.Type == corev1.PodReadyToStartContainers:
			b.SandboxReady = at
		case c.Type == corev1.PodInitialized && len(p.Spec.InitContainers) > 0:
			b.Initialized = at
		case c.Type == corev1.PodReady:
			b.Ready = at
		}
	}
	restarted := false
	for n, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, s := range list {
			c := describeStart(s)
			c.Init = n == 0
			b.Containers = append(b.Containers, c)
			restarted = restarted || s.RestartCount > 0
		}
	}
	if restarted {
		b.Ready = time.Time{} // of a later start than the first
	}
	return b
}

func describeStart(s corev1.ContainerStatus) ContainerBirth {
	c := ContainerBirth{Name: s.Name, Restarts: s.RestartCount}
	first := s.State
	if s.RestartCount > 0 {
		first = s.LastTerminationState
	}
	if s.RestartCount <= 1 {
		switch {
		case first.Running != nil:
			c.Started = first.Running.StartedAt.Time
		case first.Terminated != nil:
			c.Started = first.Terminated.StartedAt.Time
		}
	}
	// A container that the runtime could not start is Terminated, too: with a
	// reason of the kubelet's, and started at the epoch.
	if !c.Started.After(time.Unix(0, 0)) {
		c.Started = time.Time{}
	}
	if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
		c.Problem = w.Reason
		if w.Message != "" {
			c.Problem = fmt.Sprintf("%s: %s", w.Reason, w.Message)
		}
	}
	return c
}

// trimBirth keeps of a pod what describeBirth reads.
func trimBirth(out, p *corev1.Pod) {
	out.CreationTimestamp = p.CreationTimestamp
	out.Status.StartTime = p.Status.StartTime
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady} {
		for _, c := range p.Status.Conditions {
			if c.Type == kind && c.Status == corev1.ConditionTrue {
				out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{
					Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime,
				})
				break
			}
		}
	}
}

// trimState keeps of a container's state its times and IDs, and why it waits.
func trimState(s corev1.ContainerState) corev1.ContainerState {
	var out corev1.ContainerState
	if r := s.Running; r != nil {
		out.Running = &corev1.ContainerStateRunning{StartedAt: r.StartedAt}
	}
	if t := s.Terminated; t != nil {
		out.Terminated = &corev1.ContainerStateTerminated{ContainerID: t.ContainerID, StartedAt: t.StartedAt}
	}
	if w := s.Waiting; w != nil {
		message := w.Message
		if len(message) > maxMessage {
			message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
		}
		out.Waiting = &corev1.ContainerStateWaiting{Reason: w.Reason, Message: message}
	}
	return out
}
