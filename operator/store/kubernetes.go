package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// The field managers: who wrote what, as kubectl get --show-managed-fields tells.
const (
	ManagerIntake   = "kernel-gossip-intake"
	ManagerStatus   = "kernel-gossip-status"
	ManagerAnalysis = "kernel-gossip-analysis"
)

const (
	// kubernetesWriters bounds the writes at once of one replica.
	kubernetesWriters = 32
	// ConfigHash is the annotation of a mirror pod with the static pod's UID.
	ConfigHash = "kubernetes.io/config.hash"

	installCRDs = "the CustomResourceDefinitions of kernel-gossip.dev/v1alpha1 are not in the cluster; run: kubectl apply --server-side -f deploy/crds/"
)

// Kubernetes stores signals in the API server by server-side apply. Replicas of
// the operator write side by side: each write of an existing object carries the
// resourceVersion that it rests on, and is done again when another was ahead.
//
// A cap counts what the API server has, so writes that are under way (at most 32
// per replica) may overshoot it.
type Kubernetes struct {
	client client.Client
	opts   Options
	queue  *queue

	room sync.Mutex // one makes room at a time, so that not each of them does
	left left
}

var _ Store = (*Kubernetes)(nil)

// NewKubernetes needs a client that reads from the API server and not from a
// cache, and whose scheme knows core/v1 and v1alpha1. Writes end with ctx.
func NewKubernetes(ctx context.Context, c client.Client, opts Options) *Kubernetes {
	k := &Kubernetes{client: c, opts: opts.withDefaults(), left: left{}}
	k.queue = newQueue(ctx, kubernetesWriters, k.write)
	return k
}

// Accept implements Store.
func (k *Kubernetes) Accept(ctx context.Context, s signal.Signal) error {
	return k.queue.accept(ctx, s)
}

// Ready lists one object of each kind: that takes the API server, the CRDs and
// the right to read.
func (k *Kubernetes) Ready(ctx context.Context) error {
	for _, kind := range []string{v1alpha1.KernelWhisperKind, v1alpha1.PodBirthCertificateKind} {
		if _, err := k.count(ctx, kind, ""); err != nil {
			return classify(err)
		}
	}
	return nil
}

// errBehind tells that another writer was ahead: look again.
var errBehind = errors.New("another writer was ahead")

// IsConflict tells that another writer was ahead.
func IsConflict(err error) bool { return errors.Is(err, errBehind) || apierrors.IsConflict(err) }

func (k *Kubernetes) write(ctx context.Context, id identity, signals []signal.Signal) error {
	began := time.Now()
	try := k.tryWhisper
	if id.signal == signal.PodCreation {
		try = k.tryBirth
	}
	var err error
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		var out Outcome
		out, err = try(ctx, id, signals)
		if err == nil {
			k.opts.Announcer.Announce(ctx, out)
			break
		}
		if !IsConflict(err) {
			break
		}
		k.opts.Metrics.conflict.Inc()
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			continue
		case <-ctx.Done():
		}
		break
	}
	k.opts.Metrics.observe(len(signals), began, err)
	if errors.Is(err, errIgnored) {
		return nil
	}
	return classify(err)
}

func (k *Kubernetes) tryWhisper(ctx context.Context, id identity, signals []signal.Signal) (Outcome, error) {
	p, err := k.pod(ctx, signals[0])
	if err != nil {
		return Outcome{}, err
	}
	old, name, err := k.find(ctx, id)
	if err != nil {
		return Outcome{}, err
	}
	var uid string
	var detected *metav1.Time
	if old != nil {
		uid, detected = old.Spec.PodUID, old.Spec.DetectedAt
	}
	switch judge(uid, detected, p, signals[len(signals)-1]) {
	case ignore:
		k.opts.Logger.Info("signal of a pod that is no more", "namespace", id.namespace, "pod", id.pod, "container", id.container, "uid", signals[0].PodUID)
		return Outcome{}, errIgnored
	case replace:
		if err := k.delete(ctx, old); err != nil {
			return Outcome{}, err
		}
		old = nil
	}
	if old == nil {
		if saysNothing(signals) {
			return Outcome{}, errIgnored
		}
		if k.outlived(p, signals) {
			k.opts.Logger.Info("alert about a pod that is no more", "namespace", id.namespace, "pod", id.pod, "container", id.container)
			return Outcome{}, errIgnored
		}
		if err := k.admit(ctx, v1alpha1.KernelWhisperKind, signals[0]); err != nil {
			return Outcome{}, err
		}
	}
	now := k.opts.Now()
	next, current := fold(old, name, p, signals, now), old.DeepCopy()
	if old != nil && unchanged(old, next) {
		return Outcome{Whisper: old}, nil
	}
	if old == nil || !sameSpec(old, next) {
		current = &v1alpha1.KernelWhisper{}
		if err := k.applySpec(ctx, next, next.Spec, current); err != nil {
			if old == nil && apierrors.IsInvalid(err) && strings.Contains(err.Error(), "immutable") {
				return Outcome{}, errBehind // the name went to another container
			}
			return Outcome{}, err
		}
	}
	// The status is folded anew on what the API server has now: another replica
	// may have made the object meanwhile.
	told := fold(current, name, p, signals, now)
	current.Status = told.Status
	settle(current, now)
	written, err := k.ApplyStatus(ctx, current)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Whisper: written, Created: old == nil, News: news(old, written)}, nil
}

// outlived tells that alerts speak of a pod that is deleted: a rule that looks back
// five minutes fires for as long without its pod, and nothing would own the object.
func (k *Kubernetes) outlived(p pod, signals []signal.Signal) bool {
	return !p.exists && signals[0].Namespace != k.opts.HostNamespace &&
		!slices.ContainsFunc(signals, func(s signal.Signal) bool { return s.Source != signal.SourceAlertmanager })
}

func (k *Kubernetes) tryBirth(ctx context.Context, id identity, signals []signal.Signal) (Outcome, error) {
	s := latestBirth(signals)
	if s == nil {
		return Outcome{}, errIgnored
	}
	p, err := k.pod(ctx, *s)
	if err != nil {
		return Outcome{}, err
	}
	old := &v1alpha1.PodBirthCertificate{}
	err = k.client.Get(ctx, client.ObjectKey{Namespace: id.namespace, Name: id.birthName()}, old)
	switch {
	case apierrors.IsNotFound(err):
		old = nil
	case err != nil:
		return Outcome{}, fmt.Errorf("reading PodBirthCertificate %s/%s: %w", id.namespace, id.birthName(), err)
	}
	if old != nil {
		switch judge(old.Spec.PodUID, old.Spec.DetectedAt, p, *s) {
		case ignore:
			return Outcome{}, errIgnored
		case replace:
			if err := k.delete(ctx, old); err != nil {
				return Outcome{}, err
			}
			old = nil
		}
	}
	next := birth(old, id.birthName(), p, *s)
	if old == nil {
		if err := k.makeRoom(ctx, *s); err != nil {
			return Outcome{}, err
		}
	} else if !supersedes(old, next) {
		return Outcome{Birth: old}, nil
	}
	written := &v1alpha1.PodBirthCertificate{}
	if err := k.applySpec(ctx, next, next.Spec, written); err != nil {
		return Outcome{}, err
	}
	return Outcome{Birth: written, Created: old == nil, News: true}, nil
}

// pod looks the signal's pod up. One that the cluster does not know leaves the
// signal's own word for the UID.
func (k *Kubernetes) pod(ctx context.Context, s signal.Signal) (pod, error) {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	err := k.client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Pod}, m)
	switch {
	case apierrors.IsNotFound(err):
		return pod{uid: s.PodUID}, nil
	case err != nil:
		return pod{}, fmt.Errorf("reading pod %s/%s: %w", s.Namespace, s.Pod, err)
	}
	return pod{uid: string(m.UID), exists: true, hash: m.Annotations[ConfigHash]}, nil
}

// find returns the identity's object, or nil and the first name that is free.
func (k *Kubernetes) find(ctx context.Context, id identity) (*v1alpha1.KernelWhisper, string, error) {
	free := ""
	for _, name := range id.whisperNames() {
		w := &v1alpha1.KernelWhisper{}
		err := k.client.Get(ctx, client.ObjectKey{Namespace: id.namespace, Name: name}, w)
		switch {
		case apierrors.IsNotFound(err):
			if free == "" {
				free = name
			}
		case err != nil:
			return nil, "", fmt.Errorf("reading KernelWhisper %s/%s: %w", id.namespace, name, err)
		case id.is(w):
			return w, name, nil
		}
	}
	if free == "" {
		return nil, "", fmt.Errorf("naming the whisper of pod %s/%s: every name belongs to another: %s", id.namespace, id.pod, strings.Join(id.whisperNames(), ", "))
	}
	return nil, free, nil
}

func (k *Kubernetes) admit(ctx context.Context, kind string, s signal.Signal) error {
	return k.opts.admit(ctx, s, func(ctx context.Context, namespace string) (int, error) {
		return k.count(ctx, kind, namespace)
	})
}

// count asks for one object and how many more there are.
func (k *Kubernetes) count(ctx context.Context, kind, namespace string) (int, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(kind + "List"))
	if err := k.client.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
		return 0, fmt.Errorf("listing %s: %w", kind, err)
	}
	n := len(list.Items)
	if list.RemainingItemCount != nil {
		n += int(*list.RemainingItemCount)
	}
	return n, nil
}

// makeRoom deletes the oldest certificates where a limit is reached. Counting takes two
// requests, so it is done anew once half of the room that was left is used, or a minute
// is over: other replicas use it, too.
func (k *Kubernetes) makeRoom(ctx context.Context, s signal.Signal) error {
	k.room.Lock()
	defer k.room.Unlock()
	now, limits := k.opts.Now(), k.opts.Limits
	if (limits.PerNamespace <= 0 || k.left.take(now, s.Namespace)) && (limits.Total <= 0 || k.left.take(now, "")) {
		return nil
	}
	return k.opts.makeRoom(ctx, s, func(ctx context.Context, namespace string) (int, error) {
		n, err := k.count(ctx, v1alpha1.PodBirthCertificateKind, namespace)
		limit := limits.PerNamespace
		if namespace == "" {
			limit = limits.Total
		}
		k.left.note(now, namespace, (limit-n)/2)
		return n, err
	}, k.evict)
}

// left is how many objects may be made before they are to be counted again.
type left map[string]allowance // by namespace, "" is all

type allowance struct {
	n     int
	until time.Time
}

// take uses one up, and tells whether there was one.
func (l left) take(now time.Time, namespace string) bool {
	a := l[namespace]
	if a.n <= 0 || !now.Before(a.until) {
		return false
	}
	l[namespace] = allowance{a.n - 1, a.until}
	return true
}

func (l left) note(now time.Time, namespace string, n int) {
	const most = 1000
	if len(l) >= most {
		clear(l)
	}
	l[namespace] = allowance{n, now.Add(time.Minute)}
}

// evict deletes the n oldest certificates of a namespace, or of all.
func (k *Kubernetes) evict(ctx context.Context, namespace string, n int) error {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.PodBirthCertificateKind + "List"))
	if err := k.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("listing %s: %w", v1alpha1.PodBirthCertificateKind, err)
	}
	slices.SortStableFunc(list.Items, func(a, b metav1.PartialObjectMetadata) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for i := range list.Items[:min(n, len(list.Items))] {
		old := &list.Items[i]
		old.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.PodBirthCertificateKind))
		if err := k.delete(ctx, old); err != nil {
			return err
		}
		k.opts.Metrics.evicted.Inc()
	}
	return nil
}

func (k *Kubernetes) delete(ctx context.Context, obj client.Object) error {
	uid := obj.GetUID()
	err := k.client.Delete(ctx, obj, client.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s/%s to make room: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	return nil
}

// applySpec writes spec, our labels and the pod's ownership. With a
// resourceVersion in obj it conflicts when the object changed since.
func (k *Kubernetes) applySpec(ctx context.Context, obj client.Object, spec any, written any) error {
	u, err := document(obj, map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	u.SetLabels(map[string]string{labelSignal: obj.GetLabels()[labelSignal], labelManagedBy: managedBy})
	u.SetOwnerReferences(slices.DeleteFunc(slices.Clone(obj.GetOwnerReferences()), func(r metav1.OwnerReference) bool { return r.Kind != "Pod" }))
	if err := k.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(ManagerIntake), client.ForceOwnership); err != nil {
		return fmt.Errorf("applying %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	k.opts.Metrics.writes.WithLabelValues("spec").Inc()
	return decode(u, written)
}

// ApplyStatus writes w's status if nobody changed the object since w was read,
// and returns what the API server has then. An object that is gone is a conflict.
func (k *Kubernetes) ApplyStatus(ctx context.Context, w *v1alpha1.KernelWhisper) (*v1alpha1.KernelWhisper, error) {
	w.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.KernelWhisperKind))
	u, err := document(w, map[string]any{"status": w.Status})
	if err != nil {
		return nil, err
	}
	err = k.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(ManagerStatus), client.ForceOwnership)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("applying the status of KernelWhisper %s/%s: %w: it is gone", w.Namespace, w.Name, errBehind)
	case err != nil:
		return nil, fmt.Errorf("applying the status of KernelWhisper %s/%s: %w", w.Namespace, w.Name, err)
	}
	k.opts.Metrics.writes.WithLabelValues("status").Inc()
	written := &v1alpha1.KernelWhisper{}
	return written, decode(u, written)
}

// ApplyAnalysis writes insights and severity into a spec that a person wrote,
// and leaves what the person set. It returns what the API server has then.
func (k *Kubernetes) ApplyAnalysis(ctx context.Context, w *v1alpha1.KernelWhisper) (*v1alpha1.KernelWhisper, error) {
	a := Advise(w)
	w.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.KernelWhisperKind))
	insights, severity := len(a.Insights) > 0, a.Severity != ""
	for _, spec := range []map[string]any{
		{"insights": a.Insights, "severity": a.Severity}, {"insights": a.Insights}, {"severity": a.Severity},
	} {
		if !insights {
			delete(spec, "insights")
		}
		if !severity {
			delete(spec, "severity")
		}
		u, err := document(w, map[string]any{"spec": spec})
		if err != nil {
			return nil, err
		}
		u.SetResourceVersion("") // a conflict is to speak of fields alone
		u.SetUID(w.UID)          // a deleted object is not to come back
		err = k.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(ManagerAnalysis))
		if err == nil {
			k.opts.Metrics.writes.WithLabelValues("spec").Inc()
			written := &v1alpha1.KernelWhisper{}
			return written, decode(u, written)
		}
		if !apierrors.IsConflict(err) {
			return nil, fmt.Errorf("applying the analysis of KernelWhisper %s/%s: %w", w.Namespace, w.Name, err)
		}
	}
	return w, nil // the person said it all
}

// document is an apply configuration of just the parts given.
func document(obj client.Object, parts map[string]any) (*unstructured.Unstructured, error) {
	content, err := json.Marshal(parts)
	if err != nil {
		return nil, fmt.Errorf("encoding %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(content, &u.Object); err != nil {
		return nil, fmt.Errorf("encoding %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	u.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	u.SetName(obj.GetName())
	u.SetNamespace(obj.GetNamespace())
	u.SetResourceVersion(obj.GetResourceVersion())
	return u, nil
}

func decode(u *unstructured.Unstructured, into any) error {
	content, err := json.Marshal(u.Object)
	if err == nil {
		err = json.Unmarshal(content, into)
	}
	if err != nil {
		return fmt.Errorf("decoding the API server's %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	return nil
}

// classify tells what a retry can't mend from what it can, and adds what to do.
func classify(err error) error {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case meta.IsNoMatchError(err):
		return fmt.Errorf("%s: %w", installCRDs, err)
	case !errors.As(err, &status):
		return err
	}
	details := status.Status().Details
	if details == nil {
		details = &metav1.StatusDetails{}
	}
	switch {
	case apierrors.IsNotFound(err) && details.Kind == "namespaces":
		return &signal.InvalidError{Field: "namespace", Problem: fmt.Sprintf("namespace %s does not exist", details.Name)}
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &signal.InvalidError{Field: "namespace", Problem: "the namespace is being deleted"}
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w", installCRDs, err)
	case apierrors.IsInvalid(err):
		field := ""
		if len(details.Causes) > 0 {
			field = details.Causes[0].Field
		}
		return &signal.InvalidError{Field: field, Problem: "the API server refuses it: " + err.Error()}
	case apierrors.IsRequestEntityTooLargeError(err):
		return &signal.InvalidError{Problem: "the object would be too large for the API server: " + err.Error()}
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the operator lacks a right (deploy/manifests/operator-rbac.yaml grants it): %w", err)
	}
	return err
}
