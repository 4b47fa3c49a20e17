// Package controller tends the objects in a cluster: it analyses whispers that a
// person applied, resolves those whose pod is gone, and deletes those whose time
// is over. One replica at a time does so; the doors are open on all of them.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

const (
	leaseName = "kernel-gossip-operator"
	// shutdown is what a reconciliation under way is given to end.
	shutdown = 5 * time.Second
	// retryAfter is between two tries to run the manager.
	retryAfter = 5 * time.Second
	// grace is how long the intake may take between its write of a spec and of
	// the status.
	grace = 5 * time.Second
)

// Options of the controller.
type Options struct {
	Config    *rest.Config
	Scheme    *runtime.Scheme
	Store     *store.Kubernetes
	Announcer store.Announcer
	Metrics   *store.Metrics
	Retention store.Retention
	// PodCheck is how often a whisper's pod is looked for.
	PodCheck time.Duration
	// Resize raises CPU limits of pods that ask for it; nil: of none.
	Resize *resize.Config
	// Namespace holds the lease.
	Namespace string
	Logger    *slog.Logger
}

// Run keeps a manager running until ctx ends. A manager gives up when it loses
// its lease, as it does when the API server is away; then a new one takes its place.
func Run(ctx context.Context, o Options) {
	for ctx.Err() == nil {
		err := o.Store.Ready(ctx)
		if err == nil {
			err = run(ctx, o)
		}
		if err != nil && ctx.Err() == nil {
			o.Logger.WarnContext(ctx, "the controller is not running", "err", err, "retry_in", retryAfter)
			select {
			case <-time.After(retryAfter):
			case <-ctx.Done():
			}
		}
	}
}

func run(ctx context.Context, o Options) error {
	again, graceful := true, shutdown
	mgr, err := ctrl.NewManager(o.Config, ctrl.Options{
		Scheme:                        o.Scheme,
		Logger:                        logr.FromSlogHandler(o.Logger.Handler()),
		LeaderElection:                true,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &graceful,
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // main serves them
		Controller:                    config.Controller{SkipNameValidation: &again},
	})
	if err != nil {
		return fmt.Errorf("making the manager: %w", err)
	}
	w := &whispers{Options: o, client: mgr.GetClient(), api: mgr.GetAPIReader(), now: time.Now}
	if err := ctrl.NewControllerManagedBy(mgr).Named("kernelwhisper").For(&v1alpha1.KernelWhisper{}).Complete(w); err != nil {
		return fmt.Errorf("making the controller of KernelWhispers: %w", err)
	}
	b := &births{Options: o, client: mgr.GetClient(), now: time.Now}
	if err := ctrl.NewControllerManagedBy(mgr).Named("podbirthcertificate").For(&v1alpha1.PodBirthCertificate{}, builder.OnlyMetadata).Complete(b); err != nil {
		return fmt.Errorf("making the controller of PodBirthCertificates: %w", err)
	}
	defer o.Metrics.Active.Reset()
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

type whispers struct {
	Options
	client client.Client // reads from the cache
	api    client.Reader
	now    func() time.Time
}

// Reconcile implements reconcile.Reconciler.
func (r *whispers) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	w := &v1alpha1.KernelWhisper{}
	if err := r.client.Get(ctx, req.NamespacedName, w); err != nil {
		if apierrors.IsNotFound(err) {
			r.Metrics.Active.Forget(req.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	r.Metrics.Active.See(w)
	if !w.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	next, err := r.tend(ctx, w.DeepCopy())
	switch {
	case store.IsConflict(err):
		// The intake was ahead, and its write brings the object here again.
		return reconcile.Result{RequeueAfter: time.Second}, nil
	case err != nil:
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: next}, nil
}

// tend does at most one thing to w and tells when to look again; 0 is when it changes.
func (r *whispers) tend(ctx context.Context, w *v1alpha1.KernelWhisper) (time.Duration, error) {
	now := r.now()
	expires := r.Retention.ExpiresAt(w)
	if !expires.IsZero() && !now.Before(expires) {
		return 0, expire(ctx, r.client, r.Options, w, v1alpha1.KernelWhisperKind)
	}
	if store.NeedsAnalysis(w) {
		if wait := grace - now.Sub(lastWrite(w)); w.Spec.Source != v1alpha1.SourceManual && wait > 0 {
			return wait, nil
		}
		return 0, r.analyse(ctx, w, now)
	}
	silent := r.Retention.SilentAt(w)
	if !silent.IsZero() && !now.Before(silent) {
		store.FallSilent(w, now)
		written, err := r.Store.ApplyStatus(ctx, w)
		if err == nil {
			r.Announcer.Announce(ctx, store.Outcome{Whisper: written, News: written.Status.Phase == v1alpha1.Resolved})
		}
		return 0, err
	}
	if gone, err := r.podGone(ctx, w); err != nil {
		return 0, err
	} else if gone {
		store.Resolve(w, v1alpha1.ReasonPodGone, "the pod is gone", now)
		written, err := r.Store.ApplyStatus(ctx, w)
		if err == nil {
			r.Announcer.Announce(ctx, store.Outcome{Whisper: written, News: true})
		}
		return 0, err
	}
	next, wrote, err := r.resize(ctx, w, now)
	if err != nil || wrote {
		return 0, err // what was written brings the object here again
	}
	for _, at := range []time.Time{expires, silent} {
		if wait := at.Sub(now) + time.Millisecond; !at.IsZero() && (next == 0 || wait < next) {
			next = wait
		}
	}
	if w.Status.Phase == v1alpha1.Active && w.Spec.PodUID != "" && r.PodCheck > 0 && (next == 0 || r.PodCheck < next) {
		next = r.PodCheck
	}
	return next, nil
}

func (r *whispers) analyse(ctx context.Context, w *v1alpha1.KernelWhisper, now time.Time) error {
	written, created := w, w.Status.Phase == ""
	if w.Spec.Source == v1alpha1.SourceManual {
		var err error
		if written, err = r.Store.ApplyAnalysis(ctx, w); err != nil {
			return err
		}
	}
	store.AnalyseStatus(written, store.Advise(written), now)
	done, err := r.Store.ApplyStatus(ctx, written)
	if err != nil {
		return err
	}
	r.Announcer.Announce(ctx, store.Outcome{Whisper: done, Created: created, News: true})
	return nil
}

// podGone tells whether a pod that was once known is no more. A whisper about a
// pod that never was known, as a request by hand makes it, stays.
func (r *whispers) podGone(ctx context.Context, w *v1alpha1.KernelWhisper) (bool, error) {
	if w.Status.Phase != v1alpha1.Active || w.Spec.PodUID == "" {
		return false, nil
	}
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	err := r.api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: w.Spec.PodName}, m)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("looking for pod %s/%s: %w", w.Namespace, w.Spec.PodName, err)
	}
	return string(m.UID) != w.Spec.PodUID && m.Annotations[store.ConfigHash] != w.Spec.PodUID, nil
}

// lastWrite is when anything but the status was last written.
func lastWrite(w *v1alpha1.KernelWhisper) time.Time {
	last := w.CreationTimestamp.Time
	for _, f := range w.ManagedFields {
		if f.Subresource == "" && f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

// births needs the certificates' metadata alone: they are long and there are many.
type births struct {
	Options
	client client.Client
	now    func() time.Time
}

// Reconcile implements reconcile.Reconciler.
func (r *births) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	b := &metav1.PartialObjectMetadata{}
	b.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.PodBirthCertificateKind))
	if err := r.client.Get(ctx, req.NamespacedName, b); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	at, now := r.Retention.BirthExpiresAt(b), r.now()
	if at.IsZero() || !b.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	if now.Before(at) {
		return reconcile.Result{RequeueAfter: at.Sub(now) + time.Millisecond}, nil
	}
	return reconcile.Result{}, expire(ctx, r.client, r.Options, b, v1alpha1.PodBirthCertificateKind)
}

// expire deletes an object unless it changed since it was read.
func expire(ctx context.Context, c client.Client, o Options, obj client.Object, kind string) error {
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	err := c.Delete(ctx, obj, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting %s %s/%s, which is over its time: %w", kind, obj.GetNamespace(), obj.GetName(), err)
	}
	o.Metrics.Expired(kind)
	o.Logger.InfoContext(ctx, "deleted an object that is over its time", "kind", kind, "namespace", obj.GetNamespace(), "name", obj.GetName())
	return nil
}
