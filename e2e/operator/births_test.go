package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func ptr[T any](v T) *T { return &v }

// newborn is a pod that the API server knows, and its birth as the exporter tells it.
func (b *bed) newborn(t *testing.T, name string) wire.PodCreation {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	require.NoError(t, b.api.Create(t.Context(), pod))
	return wire.PodCreation{
		Head: wire.Head{
			Type: wire.TypePodCreation, Namespace: namespace, PodName: name, PodUID: string(pod.UID), NodeName: "node-1",
			Timestamp: time.Now().UTC(),
		},
		TotalSyscalls: 14918, SetupSyscalls: ptr(uint64(8473)), SharedSyscalls: ptr(uint64(5120)), SharedBy: ptr(uint64(2)),
		NamespaceOps: 15, CgroupWrites: 64, DurationNs: 924_123_456, Mounts: ptr(uint64(91)), Execs: ptr(uint64(12)),
		Complete:   ptr(true),
		Namespaces: []wire.Namespaces{{Kind: "net", Created: 1, Entered: 2}},
		Network:    &wire.BirthNetwork{Interfaces: []string{"eth0"}, Addresses: []string{"10.0.0.2/24"}, Routes: []string{"default via 10.0.0.1"}, FirewallRules: ptr(uint64(0))},
		Containers: []wire.BirthContainer{{Name: "app", ContainerID: "0f3a", CreatedMs: ptr(791.0), StartedMs: ptr(912.0), EntrypointMs: ptr(924.1), Entrypoint: "/bin/app", Syscalls: ptr(uint64(6000)), SetupSyscalls: ptr(uint64(3000))}},
		Roles:      []wire.Role{{Role: "runc init", Container: "app", Syscalls: 3484}},
		Syscalls:   []wire.Syscall{{Name: "clone3", Count: 2, Timestamp: time.Now().UTC()}},
		Timeline: []wire.Step{
			{TimestampMs: -3500, DurationMs: ptr(3000.0), PrecisionMs: ptr(1000.0), Actor: "scheduler", Action: "find a node"},
			{TimestampMs: 311, DurationMs: ptr(47.0), Actor: "cni", Action: "bridge ADD"},
			{TimestampMs: 791, DurationMs: ptr(112.0), Actor: "runtime", Action: "runc create", Container: "app"},
		},
	}
}

func (o *operator) tell(t *testing.T, e wire.PodCreation) int {
	t.Helper()
	body, err := json.Marshal(e)
	require.NoError(t, err)
	resp, err := http.Post(o.url+"/webhook/ebpf", "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Log(string(text))
	}
	return resp.StatusCode
}

// fetch returns the status, the type and the body at a path of the operator.
func (o *operator) fetch(t *testing.T, path string) (int, string, string) {
	t.Helper()
	resp, err := http.Get(o.url + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(body)
}

func TestBirths(t *testing.T) {
	t.Parallel()
	b := setUp(t)
	o := b.start(t, freeAddress(t), "--whisper.max-per-namespace=3")
	birth := b.newborn(t, "web-0")
	require.Equal(t, http.StatusOK, o.tell(t, birth))

	got := &v1alpha1.PodBirthCertificate{}
	key := client.ObjectKey{Namespace: namespace, Name: "web-0-birth"}
	require.NoError(t, b.api.Get(t.Context(), key, got))
	assert.EqualValues(t, 14918, got.Spec.TotalSyscalls)
	assert.EqualValues(t, 8473, *got.Spec.SetupSyscalls)
	assert.Equal(t, 924100*time.Microsecond, got.Spec.Duration.Duration)
	assert.Equal(t, -3500*time.Millisecond, got.Spec.Stages[0].Offset.Duration)
	assert.Equal(t, time.Second, got.Spec.Stages[0].Precision.Duration)
	assert.Equal(t, "/bin/app", got.Spec.Containers[0].Entrypoint)
	require.Len(t, got.OwnerReferences, 1, "it goes with its pod")
	assert.Equal(t, types.UID(birth.PodUID), got.OwnerReferences[0].UID)

	// A crash loop: an exporter that was restarted sees of it the starts of one container.
	again := birth
	again.TotalSyscalls, again.SetupSyscalls, again.Complete, again.IncompleteReasons = 7, nil, ptr(false), []string{"it began before the exporter"}
	for range 5 {
		require.Equal(t, http.StatusOK, o.tell(t, again))
	}
	after := &v1alpha1.PodBirthCertificate{}
	require.NoError(t, b.api.Get(t.Context(), key, after))
	assert.Equal(t, got.ResourceVersion, after.ResourceVersion, "nothing was written")

	// Its Event is on the pod.
	require.Eventually(t, func() bool {
		list := &eventsv1.EventList{}
		require.NoError(t, b.api.List(t.Context(), list, client.InNamespace(namespace)))
		for _, e := range list.Items {
			if e.Reason == "PodBorn" && e.Regarding.UID == types.UID(birth.PodUID) {
				return true
			}
		}
		return false
	}, 15*time.Second, 100*time.Millisecond)

	// The picture, the list, and what is not there.
	code, kind, body := o.fetch(t, "/birth/"+namespace+"/web-0")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "image/svg+xml", kind)
	assert.Contains(t, body, "14,918")
	assert.Contains(t, body, "/bin/app")
	code, _, body = o.fetch(t, "/birth/")
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, `href="`+namespace+`/web-0"`)
	code, _, _ = o.fetch(t, "/birth/"+namespace+"/nobody")
	assert.Equal(t, http.StatusNotFound, code)

	// The newest are kept.
	for i := range 4 {
		time.Sleep(1100 * time.Millisecond) // the API server's times are cut to the second
		require.Equal(t, http.StatusOK, o.tell(t, b.newborn(t, fmt.Sprint("more-", i))), "no birth is refused for old ones")
	}
	assert.Equal(t, map[string]bool{"more-1-birth": true, "more-2-birth": true, "more-3-birth": true}, b.certificates(t))
}

func (b *bed) certificates(t *testing.T) map[string]bool {
	t.Helper()
	list := &v1alpha1.PodBirthCertificateList{}
	require.NoError(t, b.api.List(context.WithoutCancel(t.Context()), list))
	names := map[string]bool{}
	for _, c := range list.Items {
		names[c.Name] = true
	}
	return names
}
