package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

const node = "worker-1.example"

// id makes a container ID as containerd does.
func id(c byte) string { return strings.Repeat(string(c), 64) }

func pod(name, uid string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)},
		Spec: corev1.PodSpec{
			NodeName: node,
			Containers: []corev1.Container{{
				Name: "app",
				Resources: corev1.ResourceRequirements{
					Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("1Gi")},
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("0.25")},
				},
			}},
		},
	}
}

func running(container string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "app", ContainerID: "containerd://" + container}
}

type bed struct {
	*Informer
	client *fake.Clientset
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// asked is the fake's pods, which tell as the fake does that they can't be streamed.
type asked struct {
	Client
	*fake.Clientset
}

func newBed(t *testing.T, pods ...runtime.Object) *bed {
	t.Helper()
	b := &bed{client: fake.NewClientset(pods...), log: &syncBuffer{}}
	var err error
	b.Informer, err = New(asked{b.client.CoreV1().Pods(metav1.NamespaceAll), b.client}, node, slog.New(slog.NewTextHandler(b.log, nil)))
	require.NoError(t, err)
	return b
}

// run starts the informer until the test ends.
func (b *bed) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
}

func (b *bed) start(t *testing.T) {
	t.Helper()
	assert.False(t, b.HasSynced())
	b.run(t)
	require.Eventually(t, b.HasSynced, 5*time.Second, time.Millisecond)
}

func (b *bed) update(t *testing.T, p *corev1.Pod) {
	t.Helper()
	_, err := b.client.CoreV1().Pods(p.Namespace).Update(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func (b *bed) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 5*time.Second, time.Millisecond, what)
}

func TestNewNodeName(t *testing.T) {
	for _, tc := range []struct{ name, want string }{
		{"", "set NODE_NAME"},
		{"Worker_1", `node name "Worker_1" is not a name that Kubernetes accepts`},
		{"a,spec.nodeName=b", "is not a name"},
		{strings.Repeat("a", 254), "no more than 253"},
	} {
		_, err := New(fake.NewClientset().CoreV1().Pods(metav1.NamespaceAll), tc.name, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, tc.want)
	}
}

func TestOnlyThisNodeIsAskedFor(t *testing.T) {
	elsewhere := pod("other", "uid-other")
	elsewhere.Spec.NodeName = "worker-2"
	elsewhere.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('e'))}
	b := newBed(t, pod("web", "uid-web"), elsewhere)
	b.start(t)

	var asked int
	for _, a := range b.client.Actions() {
		switch a := a.(type) {
		case k8stesting.ListAction:
			assert.Equal(t, "spec.nodeName="+node, a.GetListRestrictions().Fields.String())
			asked++
		case k8stesting.WatchAction:
			assert.Equal(t, "spec.nodeName="+node, a.GetWatchRestrictions().Fields.String())
			asked++
		}
	}
	assert.GreaterOrEqual(t, asked, 1)

	// A server that ignores the selector, as the fake one does, changes nothing.
	_, ok := b.ByPodUID("uid-web")
	assert.True(t, ok)
	_, ok = b.ByPodUID("uid-other")
	assert.False(t, ok)
	_, ok = b.ByContainerID(id('e'))
	assert.False(t, ok)
	assert.Equal(t, []string{"shop"}, b.Namespaces())
}

func TestEveryKindOfContainer(t *testing.T) {
	p := pod("web", "uid-web")
	p.Spec.InitContainers = []corev1.Container{{Name: "migrate", Resources: corev1.ResourceRequirements{
		Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
	}}}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: "migrate", ContainerID: "containerd://" + id('1'),
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id('1')}},
	}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('2'))}
	p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", ContainerID: "cri-o://" + id('3')}}
	b := newBed(t, p)
	b.start(t)

	half, quarter, two := 0.5, 0.25, 2.0
	base := Container{Namespace: "shop", Pod: "web", PodUID: "uid-web"}
	for _, want := range []Container{
		{Container: "migrate", ContainerID: id('1'), CPULimitCores: &two},
		{Container: "app", ContainerID: id('2'), CPULimitCores: &half, CPURequestCores: &quarter},
		{Container: "debug", ContainerID: id('3')},
	} {
		want.Namespace, want.Pod, want.PodUID = base.Namespace, base.Pod, base.PodUID
		got, ok := b.ByContainerID(want.ContainerID)
		require.True(t, ok, want.Container)
		assert.Equal(t, want, got)
	}
	got, ok := b.ByPodUID("uid-web")
	require.True(t, ok)
	assert.Equal(t, base, got)
}

// A cgroup is there before the kubelet told the API server of it.
func TestContainerIsKnownOnceItsStatusIs(t *testing.T) {
	p := pod("web", "uid-web")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app"}} // ContainerCreating
	b := newBed(t, p)
	b.start(t)
	_, ok := b.ByContainerID(id('a'))
	assert.False(t, ok)
	_, ok = b.ByContainerID("")
	assert.False(t, ok, "an empty ID must not name anyone")
	_, ok = b.ByPodUID("uid-web")
	assert.True(t, ok, "the pod has a name already")

	p = p.DeepCopy()
	p.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('a'))}
	b.update(t, p)
	b.eventually(t, "status arrives", func() bool { _, ok := b.ByContainerID(id('a')); return ok })
}

func TestRestartKeepsTheLastContainerForAWhile(t *testing.T) {
	p := pod("web", "uid-web")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('a'))}
	b := newBed(t, p)
	now := time.Now()
	var mu sync.Mutex
	b.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock(); b.sweep() }
	b.start(t)

	knows := func(c byte) bool { _, ok := b.ByContainerID(id(c)); return ok }
	restart := func(newID byte, last byte) {
		p = p.DeepCopy()
		s := running(id(newID))
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id(last)}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{s}
		b.update(t, p)
		b.eventually(t, "restart arrives", func() bool { return knows(newID) })
	}
	restart('b', 'a')
	pass(2 * keepGone)
	assert.True(t, knows('a'), "the status still names the last one")
	assert.True(t, knows('b'))

	restart('c', 'b')
	assert.True(t, knows('a'), "just forgotten by the API server, not yet by us")
	pass(keepGone - time.Second)
	assert.True(t, knows('a'))
	pass(2 * time.Second)
	assert.False(t, knows('a'))
	assert.True(t, knows('b'))
	assert.True(t, knows('c'))

	require.NoError(t, b.client.CoreV1().Pods("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	b.eventually(t, "deletion arrives", func() bool { return len(b.Namespaces()) == 0 })
	assert.True(t, knows('c'), "its cgroup may still be there")
	_, ok := b.ByPodUID("uid-web")
	assert.True(t, ok)
	pass(keepGone + time.Second)
	assert.False(t, knows('c'))
	_, ok = b.ByPodUID("uid-web")
	assert.False(t, ok)
	assert.Empty(t, b.containers)
	assert.Empty(t, b.pods)
}

func TestPodRecreatedUnderItsName(t *testing.T) {
	p := pod("db-0", "uid-1")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('a'))}
	b := newBed(t, p)
	b.start(t)
	p = pod("db-0", "uid-2")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('b'))}
	b.update(t, p) // what a watch that missed the deletion sees
	b.eventually(t, "new pod arrives", func() bool { _, ok := b.ByPodUID("uid-2"); return ok })
	was, _ := b.ByContainerID(id('a'))
	is, _ := b.ByContainerID(id('b'))
	assert.Equal(t, "uid-1", was.PodUID)
	assert.Equal(t, "uid-2", is.PodUID)
	b.mu.RLock()
	defer b.mu.RUnlock()
	assert.False(t, b.pods["uid-1"].gone.IsZero())
	assert.False(t, b.containers[id('a')].gone.IsZero())
	assert.True(t, b.containers[id('b')].gone.IsZero())
}

func TestStaticPod(t *testing.T) {
	const hash = "0bf2e0bf0c0d4a3c9f1f0a3d9d6d1c2e"
	p := pod("etcd-worker-1", "3c0f4f3e-0000-4000-8000-000000000001")
	p.Annotations = map[string]string{annotationConfigHash: hash, annotationConfigMirror: hash, "kubernetes.io/config.source": "file"}
	forged := pod("forger", "uid-forger")
	forged.Annotations = map[string]string{annotationConfigHash: string(p.UID)}
	b := newBed(t, p, forged)
	b.start(t)

	got, ok := b.ByPodUID(hash)
	require.True(t, ok)
	assert.Equal(t, Container{Namespace: "shop", Pod: "etcd-worker-1", PodUID: string(p.UID)}, got)

	got, ok = b.ByPodUID(string(p.UID))
	require.True(t, ok)
	assert.Equal(t, "etcd-worker-1", got.Pod, "an annotation must not take another pod's UID over")
}

func TestPodLevelLimit(t *testing.T) {
	p := pod("web", "uid-web")
	p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}}
	b := newBed(t, p)
	b.start(t)
	got, ok := b.ByPodUID("uid-web")
	require.True(t, ok)
	require.NotNil(t, got.CPULimitCores)
	assert.InDelta(t, 1.5, *got.CPULimitCores, 1e-9)
}

// A resize in place changes the spec of a pod that runs on.
func TestResizeChangesWhatIsAskedFor(t *testing.T) {
	p := pod("web", "uid-web")
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{running(id('a'))}
	b := newBed(t, p)
	b.start(t)
	asked := func() float64 {
		c, ok := b.ByContainerID(id('a'))
		require.True(t, ok)
		if c.CPURequestCores == nil {
			return -1
		}
		return *c.CPURequestCores
	}
	assert.InDelta(t, 0.25, asked(), 1e-9)

	p = p.DeepCopy()
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1500m")
	b.update(t, p)
	b.eventually(t, "the new request arrives", func() bool { return asked() == 1.5 })

	p = p.DeepCopy()
	p.Spec.Containers[0].Resources.Requests = nil
	b.update(t, p)
	b.eventually(t, "no request is none, not 0", func() bool { return asked() == -1 })
}

func TestForbiddenIsToldOnceAndRetried(t *testing.T) {
	p := pod("web", "uid-web")
	b := newBed(t, p)
	var mu sync.Mutex
	refused, allowed := 0, false
	refuse := func(k8stesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if allowed {
			return false, nil, nil
		}
		refused++
		return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "", fmt.Errorf("User %q cannot list resource", "exporter"))
	}
	b.client.PrependReactor("list", "pods", refuse)
	b.run(t)
	b.eventually(t, "it goes on trying", func() bool { mu.Lock(); defer mu.Unlock(); return refused >= 2 })
	assert.False(t, b.HasSynced())
	out := b.log.String()
	assert.Equal(t, 1, strings.Count(out, "\n"), out)
	assert.Contains(t, out, `the verbs \"list\" and \"watch\" on resource \"pods\"`)
	assert.Contains(t, out, node)

	mu.Lock()
	allowed = true
	mu.Unlock()
	require.Eventually(t, b.HasSynced, 20*time.Second, 10*time.Millisecond)
	_, ok := b.ByPodUID("uid-web")
	assert.True(t, ok)
}

// bigPod is a pod as operators of service meshes see it: some 50 KB of JSON.
func bigPod() *corev1.Pod {
	p := pod("web", "uid-web")
	p.Annotations = map[string]string{
		annotationConfigHash: "abc",
		"kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("x", 16<<10),
	}
	p.Labels = map[string]string{"app": "web"}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1(`{"f":"` + strings.Repeat("y", 8<<10) + `"}`)}}
	for i := range 300 {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: strings.Repeat("z", 50)})
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Message: "ready"})
	}
	p.Spec.Containers[0].Command = []string{"/bin/sh", "-c", strings.Repeat("true;", 1000)}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "app", ContainerID: "containerd://" + id('a'), Image: "registry.example/web", ImageID: strings.Repeat("i", 100),
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ContainerID: "containerd://" + id('b'), Message: strings.Repeat("m", 4096),
		}},
	}}
	return p
}

func TestOnlyWhatIsNeededStaysInMemory(t *testing.T) {
	big := bigPod()
	before, err := json.Marshal(big)
	require.NoError(t, err)
	require.Greater(t, len(before), 50<<10)
	b := newBed(t, big)
	b.start(t)

	stored := b.informer.GetStore().List()
	require.Len(t, stored, 1)
	after, err := json.Marshal(stored[0])
	require.NoError(t, err)
	assert.Less(t, len(after), 1200, string(after))
	// And nothing that look-ups need was lost.
	assert.Equal(t, describeContainers(big, describePod(big)), describeContainers(stored[0].(*corev1.Pod), describePod(stored[0].(*corev1.Pod))))
	assert.Len(t, describeContainers(big, describePod(big)), 2)
	assert.Equal(t, "abc", staticHash(stored[0].(*corev1.Pod)))
}

func TestTrimTombstone(t *testing.T) {
	out, err := trim(cache.DeletedFinalStateUnknown{Key: "shop/web", Obj: bigPod()})
	require.NoError(t, err)
	d, ok := out.(cache.DeletedFinalStateUnknown)
	require.True(t, ok)
	assert.Empty(t, d.Obj.(*corev1.Pod).Spec.Containers[0].Env)

	_, err = trim("nonsense")
	require.ErrorContains(t, err, "string")

	b := newBed(t, bigPod())
	b.changed(nil, trimPod(bigPod()))
	b.deleted(d)
	assert.False(t, b.pods["uid-web"].gone.IsZero())
}

func TestNone(t *testing.T) {
	_, ok := None{}.ByContainerID(id('a'))
	assert.False(t, ok)
	_, ok = None{}.ByPodUID("uid-web")
	assert.False(t, ok)
}
