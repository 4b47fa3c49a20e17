package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// soon is how long the controller may take; a lease of a killed leader runs 15 s.
const soon = time.Minute

// event is of a container that is throttled, in a namespace.
func event(namespace, pod, container, uid string) wire.CPUThrottle {
	used, reported, limit := 0.31, 0.24, 0.5
	return wire.CPUThrottle{
		Head: wire.Head{
			Type: wire.TypeCPUThrottle, Namespace: namespace, PodName: pod, ContainerName: container, PodUID: uid, Timestamp: time.Now(),
		},
		ThrottlePercentage: 92.3, ActualCPUUsage: &used, ReportedCPUUsage: &reported, CPULimit: &limit, PeriodSeconds: 60,
	}
}

func (o *operator) send(t *testing.T, e wire.CPUThrottle) (int, string) {
	t.Helper()
	body, err := json.Marshal(e)
	require.NoError(t, err)
	code, answer, err := post(o.url+"/webhook/ebpf", string(body))
	require.NoError(t, err)
	return code, answer
}

func (b *bed) namespace(t *testing.T, name string) string {
	t.Helper()
	require.NoError(t, b.api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	return name
}

// pod makes a pod that no kubelet runs.
func (b *bed) pod(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	require.NoError(t, b.api.Create(t.Context(), p))
	return p
}

func (b *bed) whisper(ctx context.Context, namespace, name string) (*v1alpha1.KernelWhisper, error) {
	w := &v1alpha1.KernelWhisper{}
	return w, b.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, w)
}

func (b *bed) gone(t *testing.T, namespace, name string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := b.whisper(t.Context(), namespace, name)
		return apierrors.IsNotFound(err)
	}, soon, 100*time.Millisecond, "%s/%s is to be deleted", namespace, name)
}

// holder is the replica that has the controller's lease; empty when nobody has.
func (b *bed) holder(t *testing.T) string {
	t.Helper()
	lease := &coordinationv1.Lease{}
	err := b.api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "kernel-gossip-operator"}, lease)
	if apierrors.IsNotFound(err) || lease.Spec.HolderIdentity == nil {
		return ""
	}
	require.NoError(t, err)
	return *lease.Spec.HolderIdentity
}

func (b *bed) leads(t *testing.T, not string) string {
	t.Helper()
	var holder string
	require.Eventually(t, func() bool {
		holder = b.holder(t)
		return holder != "" && holder != not
	}, soon, 50*time.Millisecond, "a replica other than %q is to lead", not)
	return holder
}

// byHand applies a whisper's spec as a person would, and waits for its analysis.
func (b *bed) byHand(t *testing.T, namespace, name string) *v1alpha1.KernelWhisper {
	t.Helper()
	_, err := b.server.Kubectl(t.Context(), strings.NewReader(fmt.Sprintf(`apiVersion: kernel-gossip.dev/v1alpha1
kind: KernelWhisper
metadata: {name: %s, namespace: %s}
spec:
  signalType: cpu_throttle
  podName: by-hand
  containerName: app
  evidence: {throttlePercentage: 92.3, reportedCPUCores: 0.48, cpuLimitCores: 1}
`, name, namespace)), "apply", "-f", "-")
	require.NoError(t, err)
	var w *v1alpha1.KernelWhisper
	require.Eventually(t, func() bool {
		w, err = b.whisper(t.Context(), namespace, name)
		return err == nil && w.Status.Phase == v1alpha1.Active && w.Status.ObservedGeneration == w.Generation
	}, soon, 50*time.Millisecond, "%s is to be analysed", name)
	return w
}

func TestController(t *testing.T) {
	t.Parallel()
	b := setUp(t)

	t.Run("what a person applies is analysed", func(t *testing.T) {
		ns := b.namespace(t, "by-hand")
		o := b.start(t, freeAddress(t))
		w := b.byHand(t, ns, "mine")
		assert.Equal(t, v1alpha1.SourceManual, w.Spec.Source)
		assert.Equal(t, []string{
			"CPU throttling detected: 92.3% throttled",
			"Metrics show 48% usage, kernel shows 92% throttled",
			"Application experiencing severe resource starvation",
		}, w.Spec.Insights)
		assert.Equal(t, v1alpha1.Severity("critical"), w.Spec.Severity)
		assert.NotEmpty(t, w.Status.Recommendations)
		assert.EqualValues(t, 1, w.Status.Occurrences)

		// What the person wrote stays the person's, and a change is analysed anew.
		generation := w.Generation
		_, err := b.server.Kubectl(t.Context(), nil, "patch", "kw", "mine", "-n", ns, "--type=merge", "-p", `{"spec":{"severity":"info","evidence":{"throttlePercentage":30}}}`)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			w, err = b.whisper(t.Context(), ns, "mine")
			return err == nil && w.Generation > generation && w.Status.ObservedGeneration == w.Generation
		}, soon, 50*time.Millisecond)
		assert.Equal(t, v1alpha1.Severity("info"), w.Spec.Severity)
		assert.Equal(t, "CPU throttling detected: 30.0% throttled", w.Spec.Insights[0])
		o.stop(t)
	})

	t.Run("a pod owns its whisper, and has an Event", func(t *testing.T) {
		ns := b.namespace(t, "owned")
		o := b.start(t, freeAddress(t))
		pod := b.pod(t, ns, "web")
		code, answer := o.send(t, event(ns, "web", "app", string(pod.UID)))
		require.Equal(t, http.StatusOK, code, answer)
		w, err := b.whisper(t.Context(), ns, "web-kw")
		require.NoError(t, err)
		assert.Equal(t, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: pod.UID}}, w.OwnerReferences)
		assert.Equal(t, string(pod.UID), w.Spec.PodUID)

		hears := func(reason, kind, note string) {
			t.Helper()
			require.Eventually(t, func() bool {
				list := &eventsv1.EventList{}
				require.NoError(t, b.api.List(t.Context(), list, client.InNamespace(ns)))
				for _, e := range list.Items {
					if e.Regarding.Kind == "Pod" && e.Regarding.UID == pod.UID && e.Reason == reason {
						assert.Equal(t, kind, e.Type)
						assert.Contains(t, e.Note, note)
						return true
					}
				}
				return false
			}, soon, 50*time.Millisecond, "an Event %s on the pod", reason)
		}
		hears("KernelWhisper", corev1.EventTypeWarning, "Metrics show 48% usage, kernel shows 92% throttled")
		over := event(ns, "web", "app", string(pod.UID))
		over.Resolved = true
		code, answer = o.send(t, over)
		require.Equal(t, http.StatusOK, code, answer)
		hears("KernelWhisperResolved", corev1.EventTypeNormal, "cpu_throttle is over (reports: 1)")

		// A signal of a pod that is no more, under the name of one that lives.
		code, answer = o.send(t, event(ns, "web", "other", "b1c0ffee-0000-4000-8000-000000000000"))
		require.Equal(t, http.StatusOK, code, answer)
		_, err = b.whisper(t.Context(), ns, "web-other-kw")
		assert.True(t, apierrors.IsNotFound(err), "%v", err)

		// A pod that the cluster does not know owns nothing.
		code, answer = o.send(t, event(ns, "unknown", "app", "b1c0ffee-0000-4000-8000-000000000000"))
		require.Equal(t, http.StatusOK, code, answer)
		w, err = b.whisper(t.Context(), ns, "unknown-kw")
		require.NoError(t, err)
		assert.Empty(t, w.OwnerReferences)

		// The name is given to another pod: the whisper is of that one, from the start.
		require.NoError(t, b.api.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
		again := b.pod(t, ns, "web")
		require.NotEqual(t, pod.UID, again.UID)
		code, answer = o.send(t, event(ns, "web", "app", string(again.UID)))
		require.Equal(t, http.StatusOK, code, answer)
		w, err = b.whisper(t.Context(), ns, "web-kw")
		require.NoError(t, err)
		assert.Equal(t, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: again.UID}}, w.OwnerReferences)
		assert.EqualValues(t, 1, w.Status.Occurrences)
		o.stop(t)
	})

	t.Run("kubectl get shows every column", func(t *testing.T) {
		ns := b.namespace(t, "columns")
		o := b.start(t, freeAddress(t))
		code, answer := o.send(t, event(ns, "web", "app", ""))
		require.Equal(t, http.StatusOK, code, answer)
		out, err := b.server.Kubectl(t.Context(), nil, "get", "kw", "-n", ns, "-o", "wide")
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		require.Len(t, lines, 2, out)
		heads := strings.NewReplacer("THROTTLED %", "THROTTLED%", "REPORTED %", "REPORTED%", "LAST SEEN", "LASTSEEN").Replace(lines[0])
		assert.Equal(t, []string{"NAME", "POD", "CONTAINER", "SIGNAL", "THROTTLED%", "REPORTED%", "SEVERITY", "PHASE", "OCCURRENCES", "LASTSEEN", "AGE"}, strings.Fields(heads))
		cells := strings.Fields(lines[1])
		require.Len(t, cells, 11, out)
		assert.Equal(t, []string{"web-kw", "web", "app", "cpu_throttle", "92.3", "48", "critical", "Active", "1"}, cells[:9])
		for _, age := range cells[9:] {
			assert.Regexp(t, `^\d+s$`, age)
		}
		t.Log("\n" + out)
		for _, name := range []string{"kernelwhispers", "kernel-gossip"} { // the plural, the category
			out, err := b.server.Kubectl(t.Context(), nil, "get", name, "-n", ns, "-o", "name")
			require.NoError(t, err)
			assert.Equal(t, "kernelwhisper.kernel-gossip.dev/web-kw\n", out)
		}
		o.stop(t)
	})

	t.Run("a killed leader's lease is taken over", func(t *testing.T) {
		ns := b.namespace(t, "leader")
		first := b.start(t, freeAddress(t))
		was := b.leads(t, "")
		second := b.start(t, freeAddress(t))
		began := time.Now()
		first.kill()
		is := b.leads(t, was)
		t.Logf("taken over after %.1f s", time.Since(began).Seconds())
		b.byHand(t, ns, "after") // by the one that leads now

		// One that is asked to end gives the lease back: nobody waits for its end.
		b.start(t, freeAddress(t))
		second.stop(t)
		began = time.Now()
		b.leads(t, is)
		t.Logf("given over after %.1f s", time.Since(began).Seconds())
		b.byHand(t, ns, "later")
	})

	t.Run("what is over its time is deleted", func(t *testing.T) {
		ns := b.namespace(t, "ttl")
		o := b.start(t, freeAddress(t), "--whisper.ttl=12s", "--whisper.resolved-ttl=1s")
		for _, pod := range []string{"over", "stale", "kept"} {
			code, answer := o.send(t, event(ns, pod, "app", ""))
			require.Equal(t, http.StatusOK, code, answer)
		}
		over := event(ns, "over", "app", "")
		over.Resolved = true
		code, answer := o.send(t, over)
		require.Equal(t, http.StatusOK, code, answer)
		b.gone(t, ns, "over-kw")
		// The others stand until nobody has told of them for the TTL.
		for until := time.Now().Add(13 * time.Second); time.Now().Before(until); time.Sleep(500 * time.Millisecond) {
			code, answer := o.send(t, event(ns, "kept", "app", ""))
			require.Equal(t, http.StatusOK, code, answer)
		}
		b.gone(t, ns, "stale-kw")
		w, err := b.whisper(t.Context(), ns, "kept-kw")
		require.NoError(t, err)
		assert.Equal(t, v1alpha1.Active, w.Status.Phase)
		assert.Greater(t, w.Status.Occurrences, int64(1))
		o.stop(t)
	})

	t.Run("a cap refuses what is new and takes what is known", func(t *testing.T) {
		list := &v1alpha1.KernelWhisperList{}
		require.NoError(t, b.api.List(t.Context(), list))
		full, room := b.namespace(t, "full"), b.namespace(t, "room")
		o := b.start(t, freeAddress(t), "--whisper.max-per-namespace=3", fmt.Sprintf("--whisper.max=%d", len(list.Items)+5))
		for i := range 3 {
			code, answer := o.send(t, event(full, fmt.Sprint("pod-", i), "app", ""))
			require.Equal(t, http.StatusOK, code, answer)
		}
		code, answer := o.send(t, event(full, "pod-3", "app", ""))
		assert.Equal(t, http.StatusTooManyRequests, code)
		assert.Contains(t, answer, "--whisper.max-per-namespace")
		code, answer = o.send(t, event(full, "pod-0", "app", ""))
		assert.Equal(t, http.StatusOK, code, answer)
		for i := range 2 {
			code, answer := o.send(t, event(room, fmt.Sprint("pod-", i), "app", ""))
			require.Equal(t, http.StatusOK, code, answer)
		}
		code, answer = o.send(t, event(room, "pod-2", "app", ""))
		assert.Equal(t, http.StatusTooManyRequests, code)
		assert.Contains(t, answer, "--whisper.max ")
		_, err := b.whisper(t.Context(), room, "pod-2-kw")
		assert.True(t, apierrors.IsNotFound(err), "%v", err)
		o.stop(t)
	})

	t.Run("a whisper of a pod that is deleted is resolved", func(t *testing.T) {
		ns := b.namespace(t, "deleted")
		o := b.start(t, freeAddress(t))
		pod := b.pod(t, ns, "web")
		code, answer := o.send(t, event(ns, "web", "app", string(pod.UID)))
		require.Equal(t, http.StatusOK, code, answer)
		require.NoError(t, b.api.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
		// Here nothing collects garbage, so the whisper outlives its owner.
		require.Eventually(t, func() bool {
			w, err := b.whisper(t.Context(), ns, "web-kw")
			return err == nil && w.Status.Phase == v1alpha1.Resolved
		}, 2*soon, 100*time.Millisecond)
		o.stop(t)
	})
}
