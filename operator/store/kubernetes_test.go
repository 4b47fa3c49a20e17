package store

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Here are the store's own decisions, and faults that a healthy API server does
// not make; what a real one does with the writes is tested in e2e/operator.
func newCluster(t *testing.T, opts Options, faults interceptor.Funcs, objects ...client.Object) (*Kubernetes, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(faults).
		WithStatusSubresource(&v1alpha1.KernelWhisper{}).Build()
	return NewKubernetes(t.Context(), api, opts), api
}

// living is a pod with the UID "living"; a static one has a hash.
func living(hash string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "living"}}
	if hash != "" {
		p.Annotations = map[string]string{ConfigHash: hash}
	}
	return p
}

func stored(t *testing.T, api client.Client, name string) *v1alpha1.KernelWhisper {
	t.Helper()
	w := &v1alpha1.KernelWhisper{}
	require.NoError(t, api.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, w))
	return w
}

func TestSpecAndStatusAreWritten(t *testing.T) {
	a := &teller{}
	k, api := newCluster(t, Options{Announcer: a}, interceptor.Funcs{})
	require.NoError(t, k.Ready(t.Context()))
	require.NoError(t, k.Accept(t.Context(), throttled(noon())))
	require.NoError(t, k.Accept(t.Context(), throttled(noon())))
	w := stored(t, api, "web-0-kw")
	assert.Equal(t, "web-0", w.Spec.PodName)
	assert.Equal(t, v1alpha1.Active, w.Status.Phase)
	assert.EqualValues(t, 2, w.Status.Occurrences)
	assert.Equal(t, map[string]string{labelSignal: "cpu_throttle", labelManagedBy: managedBy}, w.Labels)
	assert.EqualValues(t, 1, testutil.ToFloat64(k.opts.Metrics.writes.WithLabelValues("spec")), "the same spec is not written again")
	assert.EqualValues(t, 2, testutil.ToFloat64(k.opts.Metrics.writes.WithLabelValues("status")))
	require.Len(t, a.outcomes, 1)
	assert.True(t, a.outcomes[0].Created)

	require.NoError(t, k.Accept(t.Context(), over(throttled(noon().Add(time.Second)))))
	assert.Equal(t, v1alpha1.Resolved, stored(t, api, "web-0-kw").Status.Phase)
	assert.Len(t, a.outcomes, 2)
}

func TestOwnersAndNamesakes(t *testing.T) {
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		tells  string // the signal's UID
		exists bool
		uid    string
		owned  bool
	}{
		"a pod that lives":                {living(""), "living", true, "living", true},
		"a signal that knows no UID":      {living(""), "", true, "living", true},
		"a static pod by its config hash": {living("hash"), "hash", true, "living", true},
		"a namesake of one that lives":    {living(""), "dead", false, "", false},
		"a pod that the cluster lacks":    {nil, "told", true, "told", false},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if c.pod != nil {
				objects = append(objects, c.pod)
			}
			k, api := newCluster(t, Options{}, interceptor.Funcs{}, objects...)
			s := throttled(noon())
			s.PodUID = c.tells
			require.NoError(t, k.Accept(t.Context(), s))
			w := &v1alpha1.KernelWhisper{}
			err := api.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web-0-kw"}, w)
			if !c.exists {
				assert.True(t, apierrors.IsNotFound(err), "%v", err)
				assert.EqualValues(t, 1, testutil.ToFloat64(k.opts.Metrics.signals.WithLabelValues("ignored")))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.uid, w.Spec.PodUID)
			if c.owned {
				require.Len(t, w.OwnerReferences, 1)
				assert.EqualValues(t, c.uid, w.OwnerReferences[0].UID)
			} else {
				assert.Empty(t, w.OwnerReferences)
			}
		})
	}
}

func TestAnObjectOfAnEarlierPodGivesWay(t *testing.T) {
	k, api := newCluster(t, Options{}, interceptor.Funcs{})
	s := throttled(noon())
	s.PodUID = "first"
	require.NoError(t, k.Accept(t.Context(), s))
	require.NoError(t, k.Accept(t.Context(), s))
	s.PodUID, s.Observed = "second", noon().Add(time.Minute)
	require.NoError(t, k.Accept(t.Context(), s))
	w := stored(t, api, "web-0-kw")
	assert.Equal(t, "second", w.Spec.PodUID)
	assert.EqualValues(t, 1, w.Status.Occurrences)
}

// Another replica may be ahead at any of the writes; nothing is lost nor counted twice.
func TestConflictsAreRetried(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "kernelwhispers"}, "web-0-kw", errors.New("changed"))
	missing := apierrors.NewNotFound(schema.GroupResource{Group: v1alpha1.Group, Resource: "kernelwhispers"}, "web-0-kw")
	for name, fault := range map[string]error{"it changed": conflict, "it was deleted": missing} {
		t.Run(name, func(t *testing.T) {
			left := 3
			k, api := newCluster(t, Options{}, interceptor.Funcs{
				SubResourceApply: func(ctx context.Context, c client.Client, sub string, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
					if left--; left >= 0 {
						return fault
					}
					return c.SubResource(sub).Apply(ctx, obj, opts...)
				},
			})
			require.NoError(t, k.Accept(t.Context(), throttled(noon())))
			assert.EqualValues(t, 1, stored(t, api, "web-0-kw").Status.Occurrences)
			assert.EqualValues(t, 3, testutil.ToFloat64(k.opts.Metrics.conflict))
		})
	}
}

func TestANameThatWentToAnotherIsNotTaken(t *testing.T) {
	taken := false
	k, api := newCluster(t, Options{}, interceptor.Funcs{
		Apply: func(ctx context.Context, c client.WithWatch, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if !taken { // another replica's, between our look and our write
				taken = true
				require.NoError(t, c.Create(ctx, &v1alpha1.KernelWhisper{
					ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0-kw"},
					Spec:       v1alpha1.KernelWhisperSpec{SignalType: "cpu_throttle", PodName: "web-0", ContainerName: "sidecar"},
				}))
				return apierrors.NewInvalid(schema.GroupKind{Kind: v1alpha1.KernelWhisperKind}, "web-0-kw", nil) // as the CRD's rules refuse it
			}
			return c.Apply(ctx, obj, opts...)
		},
	})
	var invalid *signal.InvalidError
	require.ErrorAs(t, k.Accept(t.Context(), throttled(noon())), &invalid, "not every refusal is about the name")
	require.NoError(t, k.Accept(t.Context(), throttled(noon())))
	assert.Equal(t, "sidecar", stored(t, api, "web-0-kw").Spec.ContainerName)
	assert.Equal(t, "app", stored(t, api, "web-0-app-kw").Spec.ContainerName)
}

func TestBirthsInACluster(t *testing.T) {
	k, api := newCluster(t, Options{Limits: Limits{PerNamespace: 1}}, interceptor.Funcs{})
	get := func() *v1alpha1.PodBirthCertificate {
		b := &v1alpha1.PodBirthCertificate{}
		require.NoError(t, api.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web-0-birth"}, b))
		return b
	}
	require.NoError(t, k.Accept(t.Context(), born(noon())))
	require.NoError(t, k.Accept(t.Context(), born(noon())))
	assert.EqualValues(t, 1, testutil.ToFloat64(k.opts.Metrics.writes.WithLabelValues("spec")))
	assert.EqualValues(t, 42, get().Spec.TotalSyscalls)
	other := born(noon().Add(time.Minute))
	other.PodUID = "b"
	require.NoError(t, k.Accept(t.Context(), other), "the earlier pod's gives way, so there is room")
	assert.Equal(t, "b", get().Spec.PodUID)
	gone := born(noon())
	require.NoError(t, k.Accept(t.Context(), gone))
	assert.Equal(t, "b", get().Spec.PodUID)
	second := born(noon())
	second.Pod = "web-1"
	require.NoError(t, k.Accept(t.Context(), second), "the oldest makes room")
	list := &v1alpha1.PodBirthCertificateList{}
	require.NoError(t, api.List(t.Context(), list))
	require.Len(t, list.Items, 1)
	assert.Equal(t, "web-1-birth", list.Items[0].Name)
}

// What the API server answers decides whether a sender is to try again, and what a
// person is told to do.
func TestFaults(t *testing.T) {
	whispers := schema.GroupResource{Group: v1alpha1.Group, Resource: "kernelwhispers"}
	for name, c := range map[string]struct {
		fault   error
		invalid bool // never to be stored
		field   string
		says    string
	}{
		"no CRDs":                 {fault: &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "KernelWhisper"}}, says: "kubectl apply --server-side -f deploy/crds/"},
		"no CRDs, by the server":  {fault: apierrors.NewNotFound(whispers, ""), says: "kubectl apply --server-side -f deploy/crds/"},
		"no such namespace":       {fault: apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), invalid: true, field: "namespace", says: "namespace shop does not exist"},
		"a namespace that ends":   {fault: terminating(), invalid: true, field: "namespace", says: "is being deleted"},
		"refused by the CRD":      {fault: refused(), invalid: true, field: "spec.nodeName", says: "the API server refuses it"},
		"too large":               {fault: apierrors.NewRequestEntityTooLargeError("etcd: request is too large"), invalid: true, says: "too large for the API server"},
		"no right":                {fault: apierrors.NewForbidden(whispers, "web-0-kw", errors.New("no")), says: "deploy/manifests/operator-rbac.yaml"},
		"a server that is away":   {fault: errors.New("dial tcp: connection refused"), says: "connection refused"},
		"a server that is busy":   {fault: apierrors.NewTooManyRequests("later", 1), says: "later"},
		"a server that times out": {fault: apierrors.NewTimeoutError("slow", 1), says: "slow"},
		"an answer without words": {fault: &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError}}, says: ""},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := newCluster(t, Options{}, interceptor.Funcs{
				Apply: func(context.Context, client.WithWatch, runtime.ApplyConfiguration, ...client.ApplyOption) error {
					return c.fault
				},
			})
			err := k.Accept(t.Context(), throttled(noon()))
			require.Error(t, err)
			assert.ErrorContains(t, err, c.says)
			assert.NotErrorIs(t, err, signal.ErrCapacity)
			invalid, is := errors.AsType[*signal.InvalidError](err)
			require.Equal(t, c.invalid, is, "%v", err)
			if is {
				assert.Equal(t, c.field, invalid.Field)
			}
		})
	}
}

func terminating() error {
	err := apierrors.NewForbidden(schema.GroupResource{Resource: "kernelwhispers"}, "web-0-kw", errors.New("unable to create new content"))
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	return err
}

func refused() error {
	err := apierrors.NewInvalid(schema.GroupKind{Kind: v1alpha1.KernelWhisperKind}, "web-0-kw", nil)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Field: "spec.nodeName"}}
	return err
}

func TestFaultsOfReads(t *testing.T) {
	away := errors.New("dial tcp: connection refused")
	for name, c := range map[string]struct {
		faults interceptor.Funcs
		says   string
	}{
		"the pod": {interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, ok := obj.(*metav1.PartialObjectMetadata); ok {
				return away
			}
			return c.Get(ctx, key, obj, opts...)
		}}, "reading pod shop/web-0"},
		"the whisper": {interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, ok := obj.(*v1alpha1.KernelWhisper); ok {
				return away
			}
			return c.Get(ctx, key, obj, opts...)
		}}, "reading KernelWhisper shop/web-0-kw"},
		"the count": {interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return away }}, "counting the objects there are"},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := newCluster(t, Options{Limits: Limits{Total: 1}}, c.faults)
			err := k.Accept(t.Context(), throttled(noon()))
			require.ErrorIs(t, err, away)
			assert.ErrorContains(t, err, c.says)
			assert.EqualValues(t, 1, testutil.ToFloat64(k.opts.Metrics.signals.WithLabelValues("failed")))
		})
	}
	k, _ := newCluster(t, Options{}, interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return away }})
	require.ErrorIs(t, k.Ready(t.Context()), away)
}

func TestCapsInACluster(t *testing.T) {
	a := &teller{}
	k, _ := newCluster(t, Options{Announcer: a, Limits: Limits{PerNamespace: 1}}, interceptor.Funcs{})
	require.NoError(t, k.Accept(t.Context(), about("a")))
	err := k.Accept(t.Context(), about("b"))
	require.ErrorIs(t, err, signal.ErrCapacity)
	require.ErrorContains(t, err, "namespace shop has 1 of at most 1")
	require.NoError(t, k.Accept(t.Context(), about("a")))
	assert.Equal(t, []string{"shop/b namespace 1"}, a.capped)
	assert.EqualValues(t, 1, testutil.ToFloat64(k.opts.Metrics.capped.WithLabelValues(scopeNamespace)))
}
