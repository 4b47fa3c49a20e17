package operator

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// A rule that looks back five minutes fires for as long after its pod is deleted.
func TestAlertOutlivesItsPod(t *testing.T) {
	t.Parallel()
	b := setUp(t)
	o := b.start(t, freeAddress(t))
	require.NoError(t, b.api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}))
	require.NoError(t, b.api.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "shop"}}))
	require.NoError(t, b.api.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "lives", Namespace: "shop"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "none"}}},
	}))
	for _, c := range []struct {
		namespace, pod string
		want           int
	}{
		{"shop", "lives", 1},
		{"shop", "deleted", 0},
		{namespace, "docker-service", 1}, // a cgroup of the host, which has no pod
	} {
		status, answer, err := post(o.url+"/webhook/alertmanager", fmt.Sprintf(`{"version":"4","status":"firing","alerts":[{"status":"firing",
			"labels":{"alertname":"KernelGossipMetricsLie","namespace":%q,"pod":%q,"container":"app","severity":"warning"},
			"annotations":{"throttle_percentage":"92.0","period_seconds":"300"},"startsAt":%q}]}`, c.namespace, c.pod, time.Now().Format(time.RFC3339)))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status, answer)
		var list v1alpha1.KernelWhisperList
		require.NoError(t, b.api.List(t.Context(), &list, client.InNamespace(c.namespace)))
		n := 0
		for _, w := range list.Items {
			if w.Spec.PodName == c.pod {
				n++
			}
		}
		assert.Equal(t, c.want, n, "whispers of %s/%s", c.namespace, c.pod)
	}
}
