// Package pulls puts the kubelet's image pulls onto birth certificates. Of when an image
// was pulled, how long that took and how large it is, only the kubelet's Events tell.
package pulls

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

const (
	reason = "Pulled" // pkg/kubelet/events/event.go
	byPod  = "pod"
	// resolution of an Event's time: what happened lies within the second that begins there.
	resolution = time.Second
)

// Sink is a sink before another.
type Sink struct {
	next   intake.Sink
	events cache.Indexer
	run    func(ctx context.Context)
	log    *slog.Logger
}

// New makes a Sink before next. It keeps the Events of pulls for as long as the API server
// does, an hour by default, and of each only what is used.
func New(next intake.Sink, set kubernetes.Interface, log *slog.Logger) *Sink {
	list := cache.NewListWatchFromClient(set.CoreV1().RESTClient(), "events", corev1.NamespaceAll,
		fields.AndSelectors(fields.OneTermEqualSelector("reason", reason), fields.OneTermEqualSelector("involvedObject.kind", "Pod")))
	kept, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: list, ObjectType: &corev1.Event{}, Handler: cache.ResourceEventHandlerFuncs{}, Indexers: indexers(), Transform: trim,
	})
	return &Sink{next: next, events: kept.(cache.Indexer), run: informer.RunWithContext, log: log}
}

// trim leaves of an Event what is used.
func trim(o any) (any, error) {
	e, ok := o.(*corev1.Event)
	if !ok {
		return o, nil
	}
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name, ResourceVersion: e.ResourceVersion},
		InvolvedObject: corev1.ObjectReference{UID: e.InvolvedObject.UID, FieldPath: e.InvolvedObject.FieldPath},
		Message:        e.Message, LastTimestamp: e.LastTimestamp, EventTime: e.EventTime,
	}, nil
}

func indexers() cache.Indexers {
	return cache.Indexers{byPod: func(o any) ([]string, error) {
		e, ok := o.(*corev1.Event)
		if !ok {
			return nil, fmt.Errorf("a %T is no Event", o)
		}
		return []string{string(e.InvolvedObject.UID)}, nil
	}}
}

// Run follows the Events until ctx ends.
func (s *Sink) Run(ctx context.Context) { s.run(ctx) }

// Accept gives a birth the pulls of its pod, as far as they are known by now. Everything
// else passes through.
func (s *Sink) Accept(ctx context.Context, told signal.Signal) error {
	if told.Type != signal.PodCreation || told.Creation == nil || told.PodUID == "" {
		return s.next.Accept(ctx, told)
	}
	events, err := s.events.ByIndex(byPod, told.PodUID)
	if err != nil {
		s.log.WarnContext(ctx, "a birth is told without its image pulls", "namespace", told.Namespace, "pod", told.Pod, "err", err)
	}
	if len(events) > 0 {
		creation := *told.Creation
		creation.Timeline = slices.Clone(creation.Timeline)
		began := told.Observed.Add(-creation.Duration)
		for _, o := range events {
			if step, ok := stepOf(o.(*corev1.Event), began); ok && len(creation.Timeline) < signal.MaxTimeline {
				creation.Timeline = append(creation.Timeline, step)
			}
		}
		told.Creation = &creation
	}
	return s.next.Accept(ctx, told)
}

// pulled is what the kubelet says (pkg/kubelet/images/image_manager.go, from 1.30 on with
// the size).
var pulled = regexp.MustCompile(`^Successfully pulled image "([^"]+)" in (\S+)(?: \((\S+) including waiting\))?(?:\. Image size: (\d+) bytes)?`)

// stepOf is a pull as a stage of the birth that began then; false for an image that was there.
func stepOf(e *corev1.Event, began time.Time) (signal.Step, bool) {
	m := pulled.FindStringSubmatch(e.Message)
	if m == nil {
		return signal.Step{}, false
	}
	took, err := time.ParseDuration(m[2])
	if err != nil || took < 0 {
		return signal.Step{}, false
	}
	whole, err := time.ParseDuration(m[3])
	if err != nil || whole < took {
		whole = took
	}
	ended := e.LastTimestamp.Time
	if ended.IsZero() {
		ended = e.EventTime.Truncate(resolution)
	}
	precision := resolution
	step := signal.Step{
		Offset: ended.Add(-whole).Sub(began), Precision: &precision, Duration: &whole,
		Actor: "kubelet", Action: "pulled the image", Details: m[1],
	}
	if size, err := strconv.ParseUint(m[4], 10, 64); err == nil {
		step.Details += ", " + megabytes(size)
	}
	if waited := whole - took; waited >= 100*time.Millisecond {
		step.Details += fmt.Sprintf(", after waiting for %s", waited)
	}
	step.Details = strings.ToValidUTF8(step.Details[:min(len(step.Details), signal.MaxDetailsBytes)], "")
	// spec.containers{app}, spec.initContainers{app}
	if _, name, ok := strings.Cut(e.InvolvedObject.FieldPath, "ontainers{"); ok {
		step.Container = strings.TrimSuffix(name, "}")
	}
	return step, true
}

// megabytes is as the registries' pages show a size.
func megabytes(n uint64) string {
	const mega, kilo = 1e6, 1e3
	if n < mega {
		return fmt.Sprintf("%.1f kB", float64(n)/kilo)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/mega)
}
