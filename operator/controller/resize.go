package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
)

// resize looks after the CPU limit of the whisper's container, where its pod asks for
// that. It tells when to look again, and whether it wrote the whisper.
//
// A step is written down before it is made: an operator that ends in between finds it.
func (r *whispers) resize(ctx context.Context, w *v1alpha1.KernelWhisper, now time.Time) (again time.Duration, wrote bool, err error) {
	s := w.Status.Resize
	underWay := s != nil && slices.Contains([]resize.Phase{resize.Applying, resize.Applied, resize.RollingBack}, resize.Phase(s.Phase))
	if r.Resize == nil || w.Spec.SignalType != "cpu_throttle" || w.Spec.ContainerName == "" || w.Spec.PodUID == "" ||
		w.Status.Phase != v1alpha1.Active && !underWay {
		return 0, false, nil
	}
	pod := &corev1.Pod{}
	if err := r.api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: w.Spec.PodName}, pod); err != nil {
		return 0, false, client.IgnoreNotFound(err)
	}
	if string(pod.UID) != w.Spec.PodUID || !pod.DeletionTimestamp.IsZero() {
		return 0, false, nil
	}
	in, err := r.input(ctx, w, pod, now)
	if err != nil {
		return 0, false, err
	}
	d := resize.Decide(*r.Resize, in)
	before := w.Status.DeepCopy()
	switch d.Do {
	case resize.Raise:
		if in.Last == nil || in.Last.Phase != resize.Applying {
			w.Status.Resize = &v1alpha1.Resize{
				At: metav1.NewTime(now.UTC().Truncate(time.Second)), From: milli(in.Container.Milli), To: milli(d.Milli), BeforeRatio: in.Ratio,
			}
		}
		return 0, true, r.step(ctx, w, pod, d, resize.Applying, resize.Applied)
	case resize.RollBack:
		return 0, true, r.step(ctx, w, pod, d, resize.RollingBack, resize.RolledBack)
	case resize.Settle:
		w.Status.Resize.Phase = string(d.Phase)
	case resize.Wait:
	}
	r.condition(w, d, now)
	if equality.Semantic.DeepEqual(*before, w.Status) {
		return d.Again, false, nil
	}
	written, err := r.Store.ApplyStatus(ctx, w)
	if err != nil {
		return 0, false, err
	}
	if d.Do == resize.Settle {
		r.Metrics.Resized(d.Phase)
		r.Announcer.Resized(ctx, written, d.Phase, cmp.Or(d.Message, string(d.Phase)))
	}
	return d.Again, true, nil
}

// input is what is known of the whisper's container.
func (r *whispers) input(ctx context.Context, w *v1alpha1.KernelWhisper, pod *corev1.Pod, now time.Time) (resize.Input, error) {
	in := resize.Input{
		Now: now, Pod: pod.Annotations, Mirror: pod.Annotations[corev1.MirrorPodAnnotationKey] != "",
		Active: w.Status.Phase == v1alpha1.Active,
	}
	ns := &metav1.PartialObjectMetadata{}
	ns.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := r.api.Get(ctx, client.ObjectKey{Name: w.Namespace}, ns); err != nil {
		return in, fmt.Errorf("reading the annotations of namespace %s: %w", w.Namespace, err)
	}
	in.Namespace = ns.Annotations
	for _, c := range pod.Spec.Containers {
		if c.Name != w.Spec.ContainerName {
			continue
		}
		in.Container = &resize.Container{Milli: c.Resources.Limits.Cpu().MilliValue(), Restarts: slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
			return p.ResourceName == corev1.ResourceCPU && p.RestartPolicy == corev1.RestartContainer
		})}
	}
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionTrue:
		case c.Type == corev1.PodResizePending && c.Reason == corev1.PodReasonInfeasible:
			in.Pending = resize.Infeasible
		case c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress:
			if in.Pending == resize.Nothing {
				in.Pending = resize.UnderWay
			}
		}
	}
	e := &w.Spec.Evidence
	if w.Spec.DetectedAt != nil {
		in.Detected = w.Spec.DetectedAt.Time
	}
	if e.CPULimitCores != nil {
		in.LimitCores = *e.CPULimitCores
	}
	if p := e.Prediction; p != nil {
		in.Ratio = p.ThrottleRatio
		for _, x := range w.Status.Recommendations {
			q, err := resource.ParseQuantity(x.SuggestedValue)
			raises := x.Action == advice.IncreaseCPULimits && p.Outcome == "predicted" || x.Action == advice.RaiseAndRemeasure
			if err == nil && raises {
				in.Modelled, in.Target, in.Sure = true, q.MilliValue(), x.Confidence == "high" || x.Confidence == "medium"
				break
			}
		}
	}
	for _, c := range w.Status.LimitChanges {
		in.Changes = append(in.Changes, resize.Change{At: c.ObservedAt.Time, Cores: c.LimitCores, Measured: c.MeasuredRatio})
	}
	if s := w.Status.Resize; s != nil {
		from, err1 := resource.ParseQuantity(s.From)
		to, err2 := resource.ParseQuantity(s.To)
		if err1 == nil && err2 == nil {
			in.Last = &resize.State{Phase: resize.Phase(s.Phase), At: s.At.Time, From: from.MilliValue(), To: to.MilliValue(), Before: s.BeforeRatio}
		}
	}
	return in, nil
}

// step writes down what is to be done, does it, and writes down that it is done.
func (r *whispers) step(ctx context.Context, w *v1alpha1.KernelWhisper, pod *corev1.Pod, d resize.Decision, doing, done resize.Phase) error {
	if w.Status.Resize.Phase != string(doing) {
		w.Status.Resize.Phase = string(doing)
		d.Phase = doing
		r.condition(w, d, r.now())
		written, err := r.Store.ApplyStatus(ctx, w)
		if err != nil {
			return err
		}
		w = written
	}
	err := r.setLimit(ctx, pod, w.Spec.ContainerName, d.Milli)
	message := d.Message
	switch {
	case err == nil:
	case doing == resize.Applying && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsNotFound(err)):
		// The operator's rights, a quota, a LimitRange, or a Kubernetes before 1.33.
		done = resize.Refused
		message = fmt.Sprintf("setting it to %s is refused: %v", milli(d.Milli), err)
	default: // the way back is tried until it is gone
		return fmt.Errorf("setting the CPU limit of %s in pod %s/%s to %s: %w", w.Spec.ContainerName, w.Namespace, w.Spec.PodName, milli(d.Milli), err)
	}
	w.Status.Resize.Phase, d.Phase, d.Reason = string(done), done, string(done)
	d.Message = message
	r.condition(w, d, r.now())
	written, err := r.Store.ApplyStatus(ctx, w)
	if err != nil {
		return err
	}
	r.Metrics.Resized(done)
	r.Announcer.Resized(ctx, written, done, message)
	return nil
}

// setLimit sets a container's CPU limit in place, if the pod is still as it was read.
func (r *whispers) setLimit(ctx context.Context, pod *corev1.Pod, container string, limit int64) error {
	text, err := advice.ResizePatch(container, milli(limit), pod.Status.QOSClass == corev1.PodQOSGuaranteed)
	if err != nil {
		return err
	}
	patch := map[string]any{}
	if err := json.Unmarshal([]byte(text), &patch); err != nil {
		return fmt.Errorf("reading the patch of container %s: %w", container, err)
	}
	patch["metadata"] = map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion}
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("writing the patch of container %s: %w", container, err)
	}
	return r.client.SubResource("resize").Patch(ctx, pod, client.RawPatch(types.StrategicMergePatchType, body))
}

// condition says what was decided; True while the container has a limit of ours.
func (r *whispers) condition(w *v1alpha1.KernelWhisper, d resize.Decision, now time.Time) {
	if d.Reason == "" {
		return
	}
	status := metav1.ConditionFalse
	if s := w.Status.Resize; s != nil && slices.Contains([]resize.Phase{resize.Applied, resize.Kept, resize.Unverified}, resize.Phase(s.Phase)) {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&w.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionResized, Status: status, Reason: d.Reason, Message: d.Message,
		ObservedGeneration: w.Generation, LastTransitionTime: metav1.NewTime(now),
	})
}

func milli(n int64) string { return fmt.Sprintf("%dm", n) }
