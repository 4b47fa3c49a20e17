// Package announce tells people what a whisper says: log lines, and an Event on
// the pod where there is a cluster.
package announce

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

const (
	// Events are for news, and news is rare; a storm of it must not reach etcd.
	eventsPerSecond, eventsBurst = 5, 50
	// noteBytes is what the API server takes of an Event's note.
	noteBytes = 1024
)

// Announcer logs news and makes Events of it.
type Announcer struct {
	log    *slog.Logger
	events events.EventRecorder
	limit  *rate.Limiter
	capped *rate.Limiter
}

var _ store.Announcer = (*Announcer)(nil)

// New makes an Announcer; recorder is nil where there is no cluster.
func New(log *slog.Logger, recorder events.EventRecorder) *Announcer {
	return &Announcer{
		log: log, events: recorder,
		limit:  rate.NewLimiter(eventsPerSecond, eventsBurst),
		capped: rate.NewLimiter(rate.Limit(1.0/60), 3),
	}
}

// Announce implements store.Announcer.
func (a *Announcer) Announce(ctx context.Context, o store.Outcome) {
	if !o.News {
		return
	}
	if o.Whisper == nil {
		a.birth(ctx, o)
		return
	}
	w := o.Whisper
	log := a.log.With("namespace", w.Namespace, "pod", w.Spec.PodName, "container", w.Spec.ContainerName,
		"whisper", w.Name, "signal", w.Spec.SignalType, "source", w.Spec.Source)
	regarding, related := reference(w.Namespace, w.Spec.PodName, w.Spec.PodUID), whisperReference(w)
	if w.Spec.PodUID == "" {
		regarding = related
	}
	if w.Status.Phase == v1alpha1.Resolved {
		log.InfoContext(ctx, "resolved", "occurrences", w.Status.Occurrences)
		a.event(ctx, regarding, related, corev1.EventTypeNormal, "KernelWhisperResolved", "Resolve",
			fmt.Sprintf("%s is over (reports: %d)", w.Spec.SignalType, w.Status.Occurrences))
		return
	}
	for _, insight := range w.Spec.Insights {
		log.InfoContext(ctx, "📊 INSIGHT: "+insight, "severity", w.Spec.Severity)
	}
	for _, r := range w.Status.Recommendations {
		what := r.Action
		if r.SuggestedValue != "" {
			what += " to " + r.SuggestedValue
		}
		log.InfoContext(ctx, "💡 RECOMMENDATION: "+what, "reason", r.Reason, "confidence", r.Confidence)
	}
	words, fields := evidence(&w.Spec.Evidence)
	if words != "" {
		log.InfoContext(ctx, "🔍 KERNEL EVIDENCE: "+words, fields...)
	}
	kind := corev1.EventTypeWarning
	if w.Spec.Severity == "info" {
		kind = corev1.EventTypeNormal
	}
	a.event(ctx, regarding, related, kind, "KernelWhisper", "Observe", strings.Join(w.Spec.Insights, "; "))
}

func (a *Announcer) birth(ctx context.Context, o store.Outcome) {
	b := o.Birth
	if b == nil {
		return
	}
	log := a.log.With("namespace", b.Namespace, "pod", b.Spec.PodName, "certificate", b.Name)
	for _, insight := range b.Spec.Insights {
		log.InfoContext(ctx, "📊 INSIGHT: "+insight)
	}
	log.InfoContext(ctx, fmt.Sprintf("🔍 KERNEL EVIDENCE: born in %s with %d syscalls, %d namespace operations, %d cgroup writes",
		b.Spec.Duration.Duration, b.Spec.TotalSyscalls, b.Spec.NamespaceOperations, b.Spec.CgroupWrites), "stages", len(b.Spec.Stages))
	certificate := &corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.PodBirthCertificateKind,
		Namespace: b.Namespace, Name: b.Name, UID: b.UID, ResourceVersion: b.ResourceVersion,
	}
	regarding := reference(b.Namespace, b.Spec.PodName, b.Spec.PodUID)
	if b.Spec.PodUID == "" {
		regarding = certificate
	}
	kind, reason := corev1.EventTypeNormal, "PodBorn"
	switch {
	case b.Spec.Failed:
		kind, reason = corev1.EventTypeWarning, "PodBirthFailed"
	case b.Spec.Duration.Duration >= advice.SlowBirth:
		kind, reason = corev1.EventTypeWarning, "PodBornSlowly"
	}
	a.event(ctx, regarding, certificate, kind, reason, "Observe", strings.Join(b.Spec.Insights, "; "))
}

// Capped implements store.Announcer.
func (a *Announcer) Capped(ctx context.Context, s signal.Signal, scope string, limit int) {
	if !a.capped.Allow() {
		return
	}
	a.log.WarnContext(ctx, "a cap is reached: a new object is refused", "scope", scope, "limit", limit,
		"namespace", s.Namespace, "pod", s.Pod, "container", s.Container, "signal", s.Type)
	if a.events == nil {
		return
	}
	regarding := &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: s.Namespace, Namespace: s.Namespace}
	flag := "--whisper.max-per-namespace"
	if scope != "namespace" {
		flag = "--whisper.max"
	}
	a.events.Eventf(regarding, nil, corev1.EventTypeWarning, "KernelWhisperCapped", "Refuse", "%s",
		note(fmt.Sprintf("the %s of pod %s is not stored: %s=%d is reached", s.Type, s.Pod, flag, limit)))
}

// Resized implements store.Announcer. Each step is an Event: it changes what runs.
func (a *Announcer) Resized(ctx context.Context, w *v1alpha1.KernelWhisper, phase resize.Phase, message string) {
	kind, level := corev1.EventTypeNormal, slog.LevelInfo
	switch phase {
	case resize.RolledBack, resize.Refused, resize.Unverified:
		kind, level = corev1.EventTypeWarning, slog.LevelWarn
	case resize.Applying, resize.Applied, resize.Kept, resize.RollingBack, resize.Superseded:
	}
	a.log.Log(ctx, level, "CPU limit: "+message, "resize", phase, "namespace", w.Namespace, "pod", w.Spec.PodName,
		"container", w.Spec.ContainerName, "whisper", w.Name)
	if a.events != nil {
		a.events.Eventf(reference(w.Namespace, w.Spec.PodName, w.Spec.PodUID), whisperReference(w), kind, "CPULimit"+string(phase), "Resize", "%s",
			note("container "+w.Spec.ContainerName+": "+message))
	}
}

func (a *Announcer) event(ctx context.Context, regarding, related *corev1.ObjectReference, kind, reason, action, text string) {
	if a.events == nil || text == "" {
		return
	}
	if !a.limit.Allow() {
		a.log.DebugContext(ctx, "too many events: one is left out", "pod", regarding.Name, "reason", reason)
		return
	}
	a.events.Eventf(regarding, related, kind, reason, action, "%s", note(text))
}

func note(s string) string {
	if len(s) <= noteBytes {
		return s
	}
	return strings.ToValidUTF8(s[:noteBytes-len("…")], "") + "…"
}

func reference(namespace, podName, uid string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: podName, UID: types.UID(uid)}
}

func whisperReference(w *v1alpha1.KernelWhisper) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.KernelWhisperKind,
		Namespace: w.Namespace, Name: w.Name, UID: w.UID, ResourceVersion: w.ResourceVersion,
	}
}

// evidence puts what was measured in words and in fields.
func evidence(e *v1alpha1.Evidence) (string, []any) {
	var words []string
	var fields []any
	for _, f := range []struct {
		value         *float64
		format, field string
	}{
		{e.ThrottlePercentage, "throttled in %.4g%% of periods", "throttle_percentage"},
		{e.ActualCPUCores, "used %.4g cores", "actual_cpu_cores"},
		{e.ReportedCPUCores, "reported %.4g cores", "reported_cpu_cores"},
		{e.CPULimitCores, "limit %.4g cores", "cpu_limit_cores"},
		{e.ThrottledSeconds, "throttled for %.4g s", "throttled_seconds"},
		{e.RunqueueWaitPercent, "waited for a CPU %.4g%% of the time", "runqueue_wait_percent"},
		{e.PeriodSeconds, "over %.4g s", "period_seconds"},
	} {
		if f.value != nil {
			words = append(words, fmt.Sprintf(f.format, *f.value))
			fields = append(fields, f.field, *f.value)
		}
	}
	if len(e.Values) > 0 {
		words = append(words, fmt.Sprint(e.Values)[len("map["):])
		words[len(words)-1] = strings.TrimSuffix(words[len(words)-1], "]")
		for name, v := range e.Values {
			fields = append(fields, name, v)
		}
	}
	return strings.Join(words, ", "), fields
}
