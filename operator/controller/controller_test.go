package controller

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

type teller []store.Outcome

func (a *teller) Announce(_ context.Context, o store.Outcome)      { *a = append(*a, o) }
func (*teller) Capped(context.Context, signal.Signal, string, int) {}
func (*teller) Resized(context.Context, *v1alpha1.KernelWhisper, resize.Phase, string) {
}
func at(d time.Duration) *metav1.Time { return &metav1.Time{Time: noon().Add(d)} }
func key(obj client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(obj)}
}
func (b *bed) exists(obj client.Object) bool {
	return b.api.Get(b.ctx, client.ObjectKeyFromObject(obj), obj) == nil
}

// bed is the reconcilers at noon, on objects that they find. What a real API server
// makes of their writes is tested in e2e/operator.
type bed struct {
	ctx      context.Context
	api      client.Client
	told     *teller
	metrics  *store.Metrics
	registry *prometheus.Registry
	whispers *whispers
	births   *births
}

func newBed(t *testing.T, faults interceptor.Funcs, objects ...client.Object) *bed {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	b := &bed{ctx: t.Context(), told: &teller{}, registry: prometheus.NewRegistry()}
	b.metrics = store.NewMetrics(b.registry)
	b.api = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(faults).
		WithStatusSubresource(&v1alpha1.KernelWhisper{}).Build()
	o := Options{
		Store: store.NewKubernetes(t.Context(), b.api, store.Options{}), Announcer: b.told, Metrics: b.metrics,
		Retention: store.Retention{TTL: time.Hour, ResolvedTTL: time.Minute}, PodCheck: 5 * time.Minute, Logger: slog.New(slog.DiscardHandler),
	}
	b.whispers = &whispers{Options: o, client: b.api, api: b.api, now: noon}
	b.births = &births{Options: o, client: b.api, now: noon}
	return b
}

// whisper is one that the intake wrote, seen a minute ago.
func whisper() *v1alpha1.KernelWhisper {
	throttled := 92.3
	return &v1alpha1.KernelWhisper{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0-kw", UID: "w", Generation: 1, CreationTimestamp: *at(-2 * time.Hour)},
		Spec: v1alpha1.KernelWhisperSpec{
			SignalType: "cpu_throttle", PodName: "web-0", ContainerName: "app", PodUID: "p", Source: v1alpha1.SourceEBPF,
			Evidence: v1alpha1.Evidence{ThrottlePercentage: &throttled},
		},
		Status: v1alpha1.KernelWhisperStatus{Phase: v1alpha1.Active, ObservedGeneration: 1, LastSeen: at(-time.Minute), Occurrences: 1,
			Sources: []v1alpha1.SourceStatus{{Name: v1alpha1.SourceEBPF, Active: true, ObservedAt: metav1.NewMicroTime(noon())}}},
	}
}

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "p"}}
}

func TestTimes(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *v1alpha1.KernelWhisper)
		gone   bool
		again  time.Duration
	}{
		"fresh: the pod is looked for first": {func(*v1alpha1.KernelWhisper) {}, false, 5 * time.Minute},
		"its end comes before":               {func(w *v1alpha1.KernelWhisper) { w.Status.LastSeen = at(-58 * time.Minute) }, false, 2*time.Minute + time.Millisecond},
		"stale":                              {func(w *v1alpha1.KernelWhisper) { w.Status.LastSeen = at(-time.Hour) }, true, 0},
		"resolved just now": {func(w *v1alpha1.KernelWhisper) {
			w.Status.Phase, w.Status.ResolvedAt = v1alpha1.Resolved, at(-30*time.Second)
		}, false, 30*time.Second + time.Millisecond},
		"resolved long ago": {func(w *v1alpha1.KernelWhisper) {
			w.Status.Phase, w.Status.ResolvedAt = v1alpha1.Resolved, at(-time.Minute)
		}, true, 0},
		"never seen, made long ago": {func(w *v1alpha1.KernelWhisper) { w.Status.LastSeen = nil }, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := whisper()
			c.change(w)
			b := newBed(t, interceptor.Funcs{}, w, pod())
			got, err := b.whispers.Reconcile(t.Context(), key(w))
			require.NoError(t, err)
			assert.Equal(t, c.again, got.RequeueAfter)
			assert.Equal(t, !c.gone, b.exists(w))
		})
	}
}

func TestExpiryIsCounted(t *testing.T) {
	w := whisper()
	w.Status.LastSeen = at(-time.Hour)
	b := newBed(t, interceptor.Funcs{}, w)
	_, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	n, err := testutil.GatherAndCount(b.registry, "kernel_gossip_operator_store_expired_total")
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	_, err = b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err, "one that is gone is no fault")
}

// One that a signal wakes between the look and the deletion stays.
func TestAWhisperThatSpeaksAgainStays(t *testing.T) {
	w := whisper()
	w.Status.LastSeen = at(-time.Hour)
	b := newBed(t, interceptor.Funcs{Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "kernelwhispers"}, "web-0-kw", errors.New("the resourceVersion differs"))
	}}, w)
	_, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	assert.True(t, b.exists(w))
}

func TestAFailingDeletionIsTriedAgain(t *testing.T) {
	w := whisper()
	w.Status.LastSeen = at(-time.Hour)
	b := newBed(t, interceptor.Funcs{Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
		return errors.New("connection refused")
	}}, w)
	_, err := b.whispers.Reconcile(t.Context(), key(w))
	require.ErrorContains(t, err, "deleting KernelWhisper shop/web-0-kw, which is over its time")
}

func TestPodsThatAreGone(t *testing.T) {
	mirror := pod()
	mirror.UID, mirror.Annotations = "mirror", map[string]string{store.ConfigHash: "p"}
	other := pod()
	other.UID = "other"
	for name, c := range map[string]struct {
		pods     []client.Object
		uid      string
		resolved bool
	}{
		"it lives":                     {[]client.Object{pod()}, "p", false},
		"it is gone":                   {nil, "p", true},
		"another has its name":         {[]client.Object{other}, "p", true},
		"a static pod, by its hash":    {[]client.Object{mirror}, "p", false},
		"the cluster never knew it":    {nil, "", false},
		"of no UID, but of a live pod": {[]client.Object{pod()}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := whisper()
			w.Spec.PodUID = c.uid
			b := newBed(t, interceptor.Funcs{}, append(c.pods, w)...)
			_, err := b.whispers.Reconcile(t.Context(), key(w))
			require.NoError(t, err)
			require.True(t, b.exists(w))
			assert.Equal(t, c.resolved, w.Status.Phase == v1alpha1.Resolved)
			if c.resolved {
				require.Len(t, *b.told, 1)
				assert.Equal(t, noon(), w.Status.ResolvedAt.UTC())
				assert.False(t, w.Status.Sources[0].Active)
			} else {
				assert.Empty(t, *b.told)
			}
		})
	}
}

func TestAPodThatCannotBeReadIsNotGone(t *testing.T) {
	w := whisper()
	b := newBed(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
		if _, ok := obj.(*metav1.PartialObjectMetadata); ok {
			return errors.New("connection refused")
		}
		return c.Get(ctx, key, obj, opts...)
	}}, w)
	_, err := b.whispers.Reconcile(t.Context(), key(w))
	require.ErrorContains(t, err, "looking for pod shop/web-0")
	require.True(t, b.exists(w))
	assert.Equal(t, v1alpha1.Active, w.Status.Phase)
}

func TestAPersonsWhisperIsAnalysed(t *testing.T) {
	w := whisper()
	w.Spec.Source, w.Spec.PodUID, w.Status = v1alpha1.SourceManual, "", v1alpha1.KernelWhisperStatus{}
	w.CreationTimestamp = *at(0)
	b := newBed(t, interceptor.Funcs{}, w)
	_, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	require.True(t, b.exists(w))
	assert.Equal(t, v1alpha1.Active, w.Status.Phase)
	assert.NotEmpty(t, w.Status.Recommendations) // the fake refuses a part of a spec; e2e/operator sees the insights
	require.Len(t, *b.told, 1)
	assert.True(t, (*b.told)[0].Created)
}

// Between the intake's write of the spec and that of the status there is a moment;
// only one that lasts is the controller's to mend.
func TestTheIntakeIsGivenTime(t *testing.T) {
	w := whisper()
	w.Generation, w.CreationTimestamp = 2, *at(-2 * time.Second)
	b := newBed(t, interceptor.Funcs{}, w, pod())
	got, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	assert.Equal(t, grace-2*time.Second, got.RequeueAfter)
	assert.Empty(t, *b.told)

	b.whispers.now = func() time.Time { return noon().Add(time.Minute) }
	_, err = b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	require.True(t, b.exists(w))
	assert.NotEmpty(t, w.Status.Recommendations)
	assert.Len(t, *b.told, 1)
}

func TestAConflictIsLookedAtAgain(t *testing.T) {
	w := whisper()
	b := newBed(t, interceptor.Funcs{SubResourceApply: func(context.Context, client.Client, string, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "kernelwhispers"}, "web-0-kw", errors.New("the intake was ahead"))
	}}, w)
	got, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	assert.Equal(t, time.Second, got.RequeueAfter)
	assert.Empty(t, *b.told)
}

func TestWhatIsBeingDeletedIsLeftAlone(t *testing.T) {
	w := whisper()
	w.Finalizers, w.DeletionTimestamp = []string{"someone.example/else"}, at(-time.Minute)
	w.Status.LastSeen = at(-time.Hour)
	b := newBed(t, interceptor.Funcs{}, w)
	got, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	assert.Zero(t, got)
	assert.Empty(t, *b.told)
}

func TestBirths(t *testing.T) {
	for name, c := range map[string]struct {
		age   time.Duration
		gone  bool
		again time.Duration
	}{
		"young": {10 * time.Minute, false, 50*time.Minute + time.Millisecond},
		"old":   {time.Hour, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := &v1alpha1.PodBirthCertificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0-birth", CreationTimestamp: *at(-c.age)}}
			b := newBed(t, interceptor.Funcs{}, o)
			got, err := b.births.Reconcile(t.Context(), key(o))
			require.NoError(t, err)
			assert.Equal(t, c.again, got.RequeueAfter)
			assert.Equal(t, !c.gone, b.exists(o))
			got, err = b.births.Reconcile(t.Context(), key(o))
			require.NoError(t, err)
			assert.Equal(t, c.again, got.RequeueAfter)
		})
	}
	b := newBed(t, interceptor.Funcs{})
	b.births.Retention = store.Retention{}
	o := &v1alpha1.PodBirthCertificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "kept", CreationTimestamp: *at(-1000 * time.Hour)}}
	require.NoError(t, b.api.Create(t.Context(), o))
	got, err := b.births.Reconcile(t.Context(), key(o))
	require.NoError(t, err)
	assert.Zero(t, got, "0 keeps for ever")
	assert.True(t, b.exists(o))
}

// Without the CRDs, or without an API server, the controller waits and says why.
func TestRunWaitsForAStoreThatIsReady(t *testing.T) {
	b := newBed(t, interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
		return errors.New("connection refused")
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	Run(ctx, b.whispers.Options) // returns with the context, else the test hangs
	require.Error(t, ctx.Err())
}

func TestActiveWhispersAreTold(t *testing.T) {
	w, second := whisper(), whisper()
	second.Name, second.UID = "by-hand", "s"
	b := newBed(t, interceptor.Funcs{}, w, second, pod())
	told := func() string {
		t.Helper()
		families, err := b.registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "kernel_gossip_operator_active_whispers" {
				return f.String()
			}
		}
		return ""
	}
	reconciled := func(w *v1alpha1.KernelWhisper) {
		t.Helper()
		_, err := b.whispers.Reconcile(t.Context(), key(w))
		require.NoError(t, err)
	}
	const metric = `# HELP kernel_gossip_operator_active_whispers KernelWhispers that are Active, by what they are about. Only of the replica that holds the lease, in a cluster.
# TYPE kernel_gossip_operator_active_whispers gauge
kernel_gossip_operator_active_whispers{container="app",namespace="shop",pod="web-0",severity="",signal_type="cpu_throttle"} `
	expect := func(value string) {
		t.Helper()
		require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(metric+value+"\n"), "kernel_gossip_operator_active_whispers"))
	}
	require.Empty(t, told())
	reconciled(w)
	expect("1")
	reconciled(second)
	expect("2")

	require.NoError(t, b.api.Get(t.Context(), client.ObjectKeyFromObject(second), second))
	require.NoError(t, b.api.Delete(t.Context(), second))
	reconciled(second)
	expect("1")

	require.NoError(t, b.api.Get(t.Context(), client.ObjectKeyFromObject(w), w))
	w.Status.Phase, w.Status.ResolvedAt = v1alpha1.Resolved, at(-30*time.Second)
	require.NoError(t, b.api.Status().Update(t.Context(), w))
	reconciled(w)
	require.Empty(t, told(), "a resolved one is none")
}
