package pods

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func after(seconds int) metav1.Time {
	return metav1.NewTime(noon.Add(time.Duration(seconds) * time.Second))
}

// born is a pod with an init container, as the API server has it once it is ready.
func born() *corev1.Pod {
	p := pod("web", "uid-web")
	p.CreationTimestamp = after(0)
	p.Spec.InitContainers = []corev1.Container{{Name: "migrate"}}
	start := after(3)
	p.Status.StartTime = &start
	condition := func(kind corev1.PodConditionType, at metav1.Time) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at, Message: strings.Repeat("m", 4096)})
	}
	condition(corev1.PodReadyToStartContainers, after(4))
	condition(corev1.PodInitialized, after(6))
	condition(corev1.PodReady, after(8))
	condition(corev1.ContainersReady, after(8))
	condition(corev1.PodScheduled, after(3))
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: after(5), FinishedAt: after(6), ContainerID: id('a')}}}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: after(7)}}}}
	return p
}

func TestBirthSteps(t *testing.T) {
	b := newBed(t)
	b.changed(nil, trimPod(born()))
	birth, ok := b.Birth("uid-web")
	require.True(t, ok)

	second := 1000.0
	waited := 3000.0
	// The kernel's first sign came 3.5 s after the pod was created.
	assert.Equal(t, []wire.Step{
		{TimestampMs: -3500, DurationMs: &waited, PrecisionMs: &second, Actor: "scheduler", Action: "find a node", Details: "bound to " + node},
		{TimestampMs: -500, PrecisionMs: &second, Actor: "kubelet", Action: "pod accepted", Details: "status.startTime"},
		{TimestampMs: 500, PrecisionMs: &second, Actor: "kubelet", Action: "sandbox ready", Details: "condition PodReadyToStartContainers"},
		{TimestampMs: 2500, PrecisionMs: &second, Actor: "kubelet", Action: "initialized", Details: "condition Initialized"},
		{TimestampMs: 1500, PrecisionMs: &second, Actor: "kubelet", Action: "init container started", Container: "migrate"},
		{TimestampMs: 3500, PrecisionMs: &second, Actor: "kubelet", Action: "container started", Container: "app"},
		{TimestampMs: 4500, PrecisionMs: &second, Actor: "kubelet", Action: "ready", Details: "condition Ready"},
	}, birth.Steps(noon.Add(3500*time.Millisecond)))

	_, ok = b.Birth("uid-other")
	assert.False(t, ok)
	_, ok = None{}.Birth("uid-web")
	assert.False(t, ok)
}

func TestBirthTellsOnlyWhatIsKnown(t *testing.T) {
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	ran := func(at metav1.Time) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at, ContainerID: id('b')}}
	}
	for name, c := range map[string]struct {
		status corev1.ContainerStatus
		want   ContainerBirth
	}{
		"not yet":                {corev1.ContainerStatus{State: waiting("ContainerCreating", "")}, ContainerBirth{}},
		"its init containers":    {corev1.ContainerStatus{State: waiting("PodInitializing", "")}, ContainerBirth{}},
		"no image":               {corev1.ContainerStatus{State: waiting("ImagePullBackOff", "Back-off pulling image \"x\"")}, ContainerBirth{Problem: "ImagePullBackOff: Back-off pulling image \"x\""}},
		"runs":                   {corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: after(1)}}}, ContainerBirth{Started: after(1).Time}},
		"never ran":              {corev1.ContainerStatus{State: ran(metav1.NewTime(time.Unix(0, 0)))}, ContainerBirth{}},
		"crashed once":           {corev1.ContainerStatus{RestartCount: 1, State: waiting("CrashLoopBackOff", ""), LastTerminationState: ran(after(1))}, ContainerBirth{Started: after(1).Time, Restarts: 1, Problem: "CrashLoopBackOff"}},
		"restarted once":         {corev1.ContainerStatus{RestartCount: 1, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: after(9)}}, LastTerminationState: ran(after(1))}, ContainerBirth{Started: after(1).Time, Restarts: 1}},
		"its first is forgotten": {corev1.ContainerStatus{RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: after(9)}}, LastTerminationState: ran(after(5))}, ContainerBirth{Restarts: 2}},
	} {
		p := born()
		c.status.Name, c.want.Name = "app", "app"
		p.Status.ContainerStatuses = []corev1.ContainerStatus{c.status}
		b := describeBirth(trimPod(p))
		require.Len(t, b.Containers, 2, name)
		assert.Equal(t, ContainerBirth{Name: "migrate", Init: true, Started: after(5).Time}, b.Containers[0], name)
		assert.Equal(t, c.want, b.Containers[1], name)
		assert.Equal(t, c.want.Restarts > 0, b.Ready.IsZero(), "%s: Ready may be of a later start", name)
	}

	assert.Empty(t, Birth{}.Steps(noon))
	p := pod("new", "uid-new")
	p.CreationTimestamp = after(0)
	steps := describeBirth(trimPod(p)).Steps(noon)
	require.Len(t, steps, 1)
	assert.Equal(t, "pod created", steps[0].Action, "not bound by the API server's word, though it is here")
}

// A static pod runs before the API server hears of it: its mirror's times are not its own.
func TestBirthOfAStaticPod(t *testing.T) {
	p := born()
	p.Annotations = map[string]string{annotationConfigHash: "hash"}
	b := newBed(t)
	b.changed(nil, trimPod(p))
	birth, ok := b.Birth("hash")
	require.True(t, ok)
	assert.True(t, birth.Created.IsZero())
	assert.True(t, birth.Scheduled.IsZero())
	assert.Equal(t, after(3).Time, birth.Accepted)
}

func TestALongWordIsCut(t *testing.T) {
	p := born()
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "RunContainerError", Message: strings.Repeat("é", maxMessage)}}
	problem := describeBirth(trimPod(p)).Containers[1].Problem
	assert.Less(t, len(problem), maxMessage+32)
	assert.Equal(t, strings.ToValidUTF8(problem, "?"), problem)
}
