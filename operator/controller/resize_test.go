package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
)

// raisable is a whisper of a pod at 200m that asks for 750m, and the pod.
func raisable() (*v1alpha1.KernelWhisper, *corev1.Pod, *corev1.Namespace) {
	limit := 0.2
	w, p := whisper(), pod()
	w.Spec.DetectedAt = at(-time.Minute)
	w.Spec.Evidence.CPULimitCores = &limit
	w.Spec.Evidence.Prediction = &v1alpha1.Prediction{Outcome: "predicted", ThrottleRatio: 0.92}
	w.Status.Recommendations = []v1alpha1.Recommendation{{Action: "increase_cpu_limits", SuggestedValue: "750m", Confidence: "medium"}}
	p.Annotations = map[string]string{resize.Annotation: "true"}
	p.Spec.Containers = []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")}}}}
	return w, p, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
}

// What a real API server makes of the patch is tested in e2e/operator; here what
// goes wrong on the way.
func TestResizeFaults(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods/resize"}, "web-0", errors.New("no such right"))
	for name, c := range map[string]struct {
		answer error
		phase  resize.Phase
		fails  bool
	}{
		"done":               {nil, resize.Applied, false},
		"without the right":  {forbidden, resize.Refused, false},
		"an old Kubernetes":  {apierrors.NewNotFound(schema.GroupResource{}, ""), resize.Refused, false},
		"the pod changed":    {apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "web-0", errors.New("modified")), resize.Applying, false},
		"the server is away": {errors.New("connection refused"), resize.Applying, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, p, ns := raisable()
			var asked []string
			b := newBed(t, interceptor.Funcs{SubResourcePatch: func(_ context.Context, _ client.Client, sub string, _ client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
				body, err := patch.Data(nil)
				asked = append(asked, sub+" "+string(body))
				return errors.Join(err, c.answer)
			}}, w, p, ns)
			b.whispers.Resize = &resize.Config{MaxMilli: 4000, MaxFactor: 4, CoolDown: time.Minute, Verify: time.Minute}
			_, err := b.whispers.Reconcile(t.Context(), key(w))
			assert.Equal(t, c.fails, err != nil, err)
			assert.Equal(t, []string{`resize {"metadata":{"resourceVersion":"999","uid":"p"},"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"750m"}}}]}}`}, asked)
			require.True(t, b.exists(w))
			require.NotNil(t, w.Status.Resize)
			assert.Equal(t, string(c.phase), w.Status.Resize.Phase)
			assert.Equal(t, "200m", w.Status.Resize.From)
			if c.phase == resize.Refused {
				n, err := testutil.GatherAndCount(b.registry, "kernel_gossip_operator_resizes_total")
				require.NoError(t, err)
				assert.Equal(t, 6, n, "each phase from the start")
			}
			if c.phase == resize.Applying {
				// The same step again, as it was decided.
				asked = nil
				_, _ = b.whispers.Reconcile(t.Context(), key(w))
				assert.Len(t, asked, 1)
			}
		})
	}
}

func TestResizeIsOffByDefault(t *testing.T) {
	w, p, ns := raisable()
	b := newBed(t, interceptor.Funcs{SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
		return errors.New("nobody asked")
	}}, w, p, ns)
	_, err := b.whispers.Reconcile(t.Context(), key(w))
	require.NoError(t, err)
	require.True(t, b.exists(w))
	assert.Nil(t, w.Status.Resize)
}
