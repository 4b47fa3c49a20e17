package pulls

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

type sink struct{ last signal.Signal }

func (s *sink) Accept(_ context.Context, told signal.Signal) error {
	s.last = told
	return nil
}

func event(name, message, path string, at time.Time) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Reason: reason, Message: message, LastTimestamp: metav1.NewTime(at),
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", UID: "u-1", FieldPath: path},
	}
}

func TestPullsAreStages(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 250e6, time.UTC)
	ms := func(n int) *time.Duration { d := time.Duration(n) * time.Millisecond; return &d }
	second := began.Truncate(time.Second)
	events := cache.NewIndexer(cache.MetaNamespaceKeyFunc, indexers())
	for _, e := range []*corev1.Event{
		event("a", `Successfully pulled image "shop/cart:1" in 2.1s (2.1s including waiting). Image size: 12345678 bytes.`, "spec.containers{app}", second.Add(3*time.Second)),
		event("b", `Container image "shop/log:2" already present on machine`, "spec.containers{log}", second),
		event("c", `Successfully pulled image "shop/migrate:1" in 300ms (1.3s including waiting). Image size: 4200 bytes.`, "spec.initContainers{migrate}", second.Add(time.Second)),
		event("d", `Successfully pulled image "old" in 40ms`, "", second.Add(time.Second)),
		event("e", `Successfully pulled image "odd" in ages`, "", second),
	} {
		kept, err := trim(e)
		require.NoError(t, err)
		require.NoError(t, events.Add(kept))
	}
	next := &sink{}
	s := &Sink{next: next, events: events, log: slog.New(slog.DiscardHandler)}
	creation := &signal.Creation{Duration: 5 * time.Second, Timeline: []signal.Step{{Actor: "kubelet", Action: "made the pod's cgroup"}}}
	told := signal.Signal{Type: signal.PodCreation, Namespace: "shop", Pod: "cart", PodUID: "u-1", Observed: began.Add(5 * time.Second), Creation: creation}
	require.NoError(t, s.Accept(t.Context(), told))
	assert.Len(t, creation.Timeline, 1, "what came in stays as it was")
	assert.ElementsMatch(t, []signal.Step{
		creation.Timeline[0],
		{Offset: 650 * time.Millisecond, Precision: ms(1000), Duration: ms(2100), Actor: "kubelet", Action: "pulled the image", Details: "shop/cart:1, 12.3 MB", Container: "app"},
		{Offset: -550 * time.Millisecond, Precision: ms(1000), Duration: ms(1300), Actor: "kubelet", Action: "pulled the image", Details: "shop/migrate:1, 4.2 kB, after waiting for 1s", Container: "migrate"},
		{Offset: 710 * time.Millisecond, Precision: ms(1000), Duration: ms(40), Actor: "kubelet", Action: "pulled the image", Details: "old"},
	}, next.last.Creation.Timeline)

	told.PodUID = "u-2"
	require.NoError(t, s.Accept(t.Context(), told))
	assert.Len(t, next.last.Creation.Timeline, 1)
	whisper := signal.Signal{Type: signal.CPUThrottle, PodUID: "u-1"}
	require.NoError(t, s.Accept(t.Context(), whisper))
	assert.Equal(t, whisper, next.last)

	full := *creation
	full.Timeline = make([]signal.Step, signal.MaxTimeline)
	told.PodUID, told.Creation = "u-1", &full
	require.NoError(t, s.Accept(t.Context(), told))
	assert.Len(t, next.last.Creation.Timeline, signal.MaxTimeline)
}

// The API server is asked for pulls of pods alone, and a birth that comes later has them.
func TestEventsAreFollowed(t *testing.T) {
	asked := make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("fieldSelector")
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			assert.NoError(t, json.NewEncoder(w).Encode(map[string]any{"type": "ADDED", "object": map[string]any{
				"kind": "Event", "apiVersion": "v1", "reason": reason, "message": `Successfully pulled image "x" in 1s`,
				"metadata":       map[string]any{"namespace": "shop", "name": "later", "resourceVersion": "2"},
				"involvedObject": map[string]any{"kind": "Pod", "uid": "u-9"}, "lastTimestamp": "2026-11-01T12:00:00Z",
			}}))
			assert.NoError(t, json.NewEncoder(w).Encode(map[string]any{"type": "BOOKMARK", "object": map[string]any{
				"kind": "Event", "apiVersion": "v1", "metadata": map[string]any{
					"resourceVersion": "3", "annotations": map[string]any{metav1.InitialEventsAnnotationKey: "true"},
				},
			}}))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		assert.NoError(t, json.NewEncoder(w).Encode(corev1.EventList{
			TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
		}))
	}))
	t.Cleanup(server.Close)
	set, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	require.NoError(t, err)
	next := &sink{}
	s := New(next, set, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	require.Eventually(t, func() bool {
		told := signal.Signal{Type: signal.PodCreation, PodUID: "u-9", Creation: &signal.Creation{}}
		return assert.NoError(t, s.Accept(t.Context(), told)) && len(next.last.Creation.Timeline) == 1
	}, 10*time.Second, 20*time.Millisecond)
	assert.Equal(t, "x", next.last.Creation.Timeline[0].Details)
	assert.Equal(t, "reason=Pulled,involvedObject.kind=Pod", <-asked)
}

func FuzzStepOf(f *testing.F) {
	f.Add(`Successfully pulled image "shop/cart:1" in 2.1s (2.1s including waiting). Image size: 12345678 bytes.`, "spec.containers{app}")
	f.Add(`Successfully pulled image "x" in 1h99999999h`, "ontainers{")
	f.Fuzz(func(t *testing.T, message, path string) {
		step, ok := stepOf(event("a", message, path, time.Unix(1, 0)), time.Unix(0, 0))
		if ok && (*step.Duration < 0 || len(step.Details) > signal.MaxDetailsBytes) {
			t.Fatalf("%q is %+v", message, step)
		}
	})
}
