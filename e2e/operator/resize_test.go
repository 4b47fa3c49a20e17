package operator

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func at(f float64) *float64 { return &f }

// limited makes a pod whose container has a CPU limit of 200m, and a request of 100m
// or, of a Guaranteed pod, the same.
func (b *bed) limited(t *testing.T, namespace, name, request string, annotations map[string]string) *corev1.Pod {
	t.Helper()
	list := func(cpu string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("64Mi")}
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "sidecar", Image: "app", Resources: corev1.ResourceRequirements{Limits: list("100m"), Requests: list("100m")}},
			{Name: "app", Image: "app", Resources: corev1.ResourceRequirements{Limits: list("200m"), Requests: list(request)}},
		}},
	}
	require.NoError(t, b.api.Create(t.Context(), p))
	return p
}

// limit is the pod's, by its spec.
func (b *bed) limit(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	got := &corev1.Pod{}
	require.NoError(t, b.api.Get(t.Context(), client.ObjectKeyFromObject(p), got))
	assert.Equal(t, "100m", got.Spec.Containers[0].Resources.Limits.Cpu().String(), "the other container is left alone")
	return got.Spec.Containers[1].Resources.Limits.Cpu().String()
}

// predicted is an event of a container at 200m, of which 750m would be enough.
func predicted(p *corev1.Pod) wire.CPUThrottle {
	e := event(p.Namespace, p.Name, "app", string(p.UID))
	e.CPULimit, e.RecommendedCPULimit, e.QOSClass = at(0.2), at(0.75), string(p.Status.QOSClass)
	e.WhatIf = []wire.WhatIf{{LimitCores: 0.75, ThrottleRatio: 0.008, Low: at(0.001), High: at(0.024)}}
	e.Prediction = &wire.Prediction{Outcome: "predicted", Confidence: "medium", Periods: 1200, WindowSeconds: 120, ThrottleRatio: 0.92}
	return e
}

// changed is the event that tells what 750m did.
func changed(p *corev1.Pod, measured float64) wire.CPUThrottle {
	e := predicted(p)
	e.CPULimit, e.ThrottlePercentage, e.Resolved = at(0.75), 100*measured, measured < 0.25
	e.Prediction.ThrottleRatio = measured
	e.Prediction.Check = &wire.LimitCheck{
		Timestamp: time.Now().Add(2 * time.Second), FromCPULimit: 0.2, CPULimit: 0.75, BeforeRatio: 0.92, Measured: measured,
		Predicted: at(0.008), Low: at(0.001), High: at(0.024),
	}
	return e
}

func (b *bed) comesTo(t *testing.T, p *corev1.Pod, phase resize.Phase) *v1alpha1.KernelWhisper {
	t.Helper()
	var w *v1alpha1.KernelWhisper
	require.Eventually(t, func() bool {
		var err error
		w, err = b.whisper(t.Context(), p.Namespace, p.Name+"-app-kw")
		if err != nil {
			w, err = b.whisper(t.Context(), p.Namespace, p.Name+"-kw")
		}
		return err == nil && w.Status.Resize != nil && w.Status.Resize.Phase == string(phase)
	}, soon, 50*time.Millisecond, "the step is to come to %s", phase)
	return w
}

func (b *bed) hasEvent(t *testing.T, p *corev1.Pod, reason, kind string) {
	t.Helper()
	require.Eventually(t, func() bool {
		list := &eventsv1.EventList{}
		require.NoError(t, b.api.List(t.Context(), list, client.InNamespace(p.Namespace)))
		for _, e := range list.Items {
			if e.Regarding.UID == p.UID && e.Reason == reason {
				assert.Equal(t, kind, e.Type)
				return true
			}
		}
		return false
	}, soon, 50*time.Millisecond, "an Event %s on the pod", reason)
}

func (b *bed) reasonIs(t *testing.T, p *corev1.Pod, reason string) {
	t.Helper()
	require.Eventually(t, func() bool {
		w, err := b.whisper(t.Context(), p.Namespace, p.Name+"-kw")
		if err != nil {
			return false
		}
		c := meta.FindStatusCondition(w.Status.Conditions, v1alpha1.ConditionResized)
		return c != nil && c.Reason == reason
	}, soon, 50*time.Millisecond, "the condition is to be %s", reason)
}

// run does what a recommendation's command says, as a person would.
func (b *bed) run(ctx context.Context, command string) (string, error) {
	words, patch, _ := strings.Cut(command, " --patch ")
	return b.server.Kubectl(ctx, nil, append(strings.Fields(words)[1:], "--patch", strings.Trim(patch, "'"))...)
}

func TestResize(t *testing.T) {
	t.Parallel()
	b := setUp(t)
	opted := map[string]string{resize.Annotation: "true"}
	send := func(o *operator, e wire.CPUThrottle) {
		t.Helper()
		code, answer := o.send(t, e)
		require.Equal(t, http.StatusOK, code, answer)
	}

	t.Run("a recommendation's command does what it says", func(t *testing.T) {
		ns := b.namespace(t, "by-command")
		o := b.start(t, freeAddress(t))
		for request, class := range map[string]corev1.PodQOSClass{"100m": corev1.PodQOSBurstable, "200m": corev1.PodQOSGuaranteed} {
			p := b.limited(t, ns, "web-"+request, request, opted) // the annotation is nothing to an operator that was not told
			require.Equal(t, class, p.Status.QOSClass)
			send(o, predicted(p))
			w, err := b.whisper(t.Context(), ns, p.Name+"-kw")
			require.NoError(t, err)
			r := w.Status.Recommendations[0]
			assert.Equal(t, "increase_cpu_limits", r.Action)
			assert.Equal(t, &v1alpha1.PredictedRatio{BeforeRatio: 0.92, AfterRatio: 0.008, Low: at(0.001), High: at(0.024)}, r.Predicted)
			require.NotEmpty(t, r.Command)
			_, err = b.run(t.Context(), r.Command)
			require.NoError(t, err, r.Command)
			assert.Equal(t, "750m", b.limit(t, p))
			if class == corev1.PodQOSGuaranteed {
				_, err := b.run(t.Context(), strings.Replace(strings.Replace(r.Command, "750m", "800m", 1), `,"requests":{"cpu":"750m"}`, "", 1))
				assert.ErrorContains(t, err, "QOS", "which is why the request goes with it")
			}
			_, err = b.run(t.Context(), strings.Replace(r.Command, `"750m"`, "null", 1))
			assert.Error(t, err, "a limit can't be removed in place")
			assert.Nil(t, w.Status.Resize)
		}
		o.stop(t)
	})

	o := b.start(t, freeAddress(t), "--resize.enabled", "--resize.cool-down=5m", "--resize.verify=5m", "--resize.max-cpu=2")

	t.Run("a step that helps is kept", func(t *testing.T) {
		ns := b.namespace(t, "helps")
		p := b.limited(t, ns, "web", "200m", opted)
		send(o, predicted(p))
		w := b.comesTo(t, p, resize.Applied)
		assert.Equal(t, "750m", b.limit(t, p))
		assert.Equal(t, "200m", w.Status.Resize.From)
		assert.True(t, meta.IsStatusConditionTrue(w.Status.Conditions, v1alpha1.ConditionResized))
		b.hasEvent(t, p, "CPULimitApplied", corev1.EventTypeNormal)
		send(o, changed(p, 0.01))
		w = b.comesTo(t, p, resize.Kept)
		assert.Equal(t, v1alpha1.Resolved, w.Status.Phase)
		require.Len(t, w.Status.LimitChanges, 1)
		assert.Equal(t, 0.01, w.Status.LimitChanges[0].MeasuredRatio)
		assert.Equal(t, 0.008, *w.Status.LimitChanges[0].PredictedRatio)
		b.hasEvent(t, p, "CPULimitKept", corev1.EventTypeNormal)
		assert.Equal(t, "750m", b.limit(t, p))

		// Throttled again: the cool-down holds the next step back.
		again := predicted(p)
		again.CPULimit, again.RecommendedCPULimit, again.WhatIf = at(0.75), at(1.5), nil
		send(o, again)
		b.reasonIs(t, p, "CoolingDown")
		assert.Equal(t, "750m", b.limit(t, p))
	})

	t.Run("one that does not is taken back", func(t *testing.T) {
		ns := b.namespace(t, "helps-not")
		p := b.limited(t, ns, "web", "100m", opted)
		send(o, predicted(p))
		b.comesTo(t, p, resize.Applied)
		require.Equal(t, "750m", b.limit(t, p))
		send(o, changed(p, 0.91))
		w := b.comesTo(t, p, resize.RolledBack)
		assert.Equal(t, "200m", b.limit(t, p))
		assert.False(t, meta.IsStatusConditionTrue(w.Status.Conditions, v1alpha1.ConditionResized))
		b.hasEvent(t, p, "CPULimitRolledBack", corev1.EventTypeWarning)
		send(o, predicted(p))
		b.reasonIs(t, p, "RolledBack")
		assert.Equal(t, "200m", b.limit(t, p), "and no other is tried")
	})

	t.Run("when it can't be told, the next limit is tried, within the pod's bound", func(t *testing.T) {
		ns := b.namespace(t, "saturated")
		p := b.limited(t, ns, "web", "100m", map[string]string{resize.Annotation: "true", resize.MaxAnnotation: "0.5"})
		e := predicted(p)
		e.RecommendedCPULimit, e.WhatIf = nil, nil
		e.Prediction = &wire.Prediction{Outcome: "saturated", Periods: 1200, WindowSeconds: 120, ThrottleRatio: 1, NextCPULimit: at(0.7)}
		send(o, e)
		w := b.comesTo(t, p, resize.Applied)
		assert.Equal(t, "raise_and_remeasure", w.Status.Recommendations[0].Action)
		assert.Equal(t, "500m", b.limit(t, p))
	})

	t.Run("a namespace asks for its pods, and one excepts itself", func(t *testing.T) {
		ns := b.namespace(t, "whole")
		n := &corev1.Namespace{}
		require.NoError(t, b.api.Get(t.Context(), client.ObjectKey{Name: ns}, n))
		n.Annotations = opted
		require.NoError(t, b.api.Update(t.Context(), n))
		except := b.limited(t, ns, "except", "100m", map[string]string{resize.Annotation: "false"})
		send(o, predicted(except))
		p := b.limited(t, ns, "web", "100m", nil)
		send(o, predicted(p))
		b.comesTo(t, p, resize.Applied)
		assert.Equal(t, "200m", b.limit(t, except))
	})

	t.Run("who did not ask is left alone, and so is one whom only a guess is told of", func(t *testing.T) {
		ns := b.namespace(t, "alone")
		other := b.limited(t, ns, "other", "100m", nil)
		send(o, predicted(other))
		guess := b.limited(t, ns, "guess", "100m", opted)
		e := predicted(guess)
		e.Prediction, e.RecommendedCPULimit, e.WhatIf = nil, nil, nil
		send(o, e)
		b.reasonIs(t, guess, "NoPrediction")
		assert.Equal(t, "200m", b.limit(t, guess))
		w, err := b.whisper(t.Context(), ns, "other-kw")
		require.NoError(t, err)
		assert.Nil(t, meta.FindStatusCondition(w.Status.Conditions, v1alpha1.ConditionResized))
		assert.Equal(t, "200m", b.limit(t, other))
	})

	t.Run("what the API server refuses is told", func(t *testing.T) {
		ns := b.namespace(t, "refused")
		require.NoError(t, b.api.Create(t.Context(), &corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "small"},
			Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")},
			}}},
		}))
		p := b.limited(t, ns, "web", "100m", opted)
		send(o, predicted(p))
		w := b.comesTo(t, p, resize.Refused)
		assert.Contains(t, meta.FindStatusCondition(w.Status.Conditions, v1alpha1.ConditionResized).Message, "maximum cpu usage per Container is 500m")
		b.hasEvent(t, p, "CPULimitRefused", corev1.EventTypeWarning)
		assert.Equal(t, "200m", b.limit(t, p))
	})

	t.Run("a step that was cut off is ended by the next leader", func(t *testing.T) {
		ns := b.namespace(t, "cut-off")
		o.stop(t)
		// As the intake and a controller left it that ended right after its decision.
		quiet := b.start(t, freeAddress(t))
		p := b.limited(t, ns, "web", "100m", opted)
		send(quiet, predicted(p))
		quiet.stop(t)
		w, err := b.whisper(t.Context(), ns, "web-kw")
		require.NoError(t, err)
		w.Status.Resize = &v1alpha1.Resize{Phase: "Applying", At: metav1.Now(), From: "200m", To: "600m", BeforeRatio: 0.92}
		require.NoError(t, b.api.Status().Update(t.Context(), w))
		b.start(t, freeAddress(t), "--resize.enabled")
		w = b.comesTo(t, p, resize.Applied)
		assert.Equal(t, "600m", b.limit(t, p), "as it was decided, not anew")
		assert.Equal(t, "200m", w.Status.Resize.From)
	})
}
