package announce

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

func ptr(f float64) *float64 { return &f }

func whisper() *v1alpha1.KernelWhisper {
	return &v1alpha1.KernelWhisper{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0-kw", UID: "w"},
		Spec: v1alpha1.KernelWhisperSpec{
			SignalType: "cpu_throttle", PodName: "web-0", ContainerName: "app", PodUID: "p", Source: v1alpha1.SourceEBPF, Severity: "critical",
			Insights: []string{"CPU throttling detected: 92.3% throttled", "Application experiencing severe resource starvation"},
			Evidence: v1alpha1.Evidence{ThrottlePercentage: ptr(92.3), CPULimitCores: ptr(0.5), PeriodSeconds: ptr(60)},
		},
		Status: v1alpha1.KernelWhisperStatus{
			Phase: v1alpha1.Active, Occurrences: 3,
			Recommendations: []v1alpha1.Recommendation{
				{Action: "increase_cpu_limits", SuggestedValue: "1500m", Reason: "it asked for more", Confidence: "high"},
				{Action: "review_resource_requests"},
			},
		},
	}
}

// recorder notes what each Event is about.
type recorder struct {
	*events.FakeRecorder
	regarding []runtime.Object
}

func (r *recorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	r.regarding = append(r.regarding, regarding)
	r.FakeRecorder.Eventf(regarding, related, kind, reason, action, note, args...)
}

func told(t *testing.T, tell func(a *Announcer)) (log string, noted []string, r *recorder) {
	t.Helper()
	var b bytes.Buffer
	r = &recorder{FakeRecorder: events.NewFakeRecorder(1000)}
	tell(New(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), r))
	close(r.Events)
	for e := range r.Events {
		noted = append(noted, e)
	}
	return b.String(), noted, r
}

func TestAnActiveWhisper(t *testing.T) {
	log, noted, r := told(t, func(a *Announcer) { a.Announce(t.Context(), store.Outcome{Whisper: whisper(), News: true}) })
	for _, line := range []string{
		"📊 INSIGHT: CPU throttling detected: 92.3% throttled",
		"💡 RECOMMENDATION: increase_cpu_limits to 1500m",
		"💡 RECOMMENDATION: review_resource_requests",
		"🔍 KERNEL EVIDENCE: throttled in 92.3% of periods, limit 0.5 cores, over 60 s",
		"throttle_percentage=92.3", "cpu_limit_cores=0.5", "namespace=shop", "pod=web-0", "container=app",
	} {
		assert.Contains(t, log, line)
	}
	require.Equal(t, []string{"Warning KernelWhisper CPU throttling detected: 92.3% throttled; Application experiencing severe resource starvation"}, noted)
	assert.Equal(t, reference("shop", "web-0", "p"), r.regarding[0])
}

func TestAWhisperThatIsOver(t *testing.T) {
	w := whisper()
	w.Status.Phase = v1alpha1.Resolved
	log, noted, _ := told(t, func(a *Announcer) { a.Announce(t.Context(), store.Outcome{Whisper: w, News: true}) })
	assert.Contains(t, log, "msg=resolved")
	assert.NotContains(t, log, "INSIGHT")
	assert.Equal(t, []string{"Normal KernelWhisperResolved cpu_throttle is over (reports: 3)"}, noted)
}

func TestWithoutAPodTheEventIsOnTheWhisper(t *testing.T) {
	w := whisper()
	w.Spec.PodUID, w.Spec.Severity = "", "info"
	_, noted, r := told(t, func(a *Announcer) { a.Announce(t.Context(), store.Outcome{Whisper: w, News: true}) })
	require.Len(t, noted, 1)
	assert.True(t, strings.HasPrefix(noted[0], "Normal "), noted[0])
	assert.Equal(t, whisperReference(w), r.regarding[0])
}

func TestNothingNewIsNotTold(t *testing.T) {
	log, noted, _ := told(t, func(a *Announcer) {
		a.Announce(t.Context(), store.Outcome{Whisper: whisper()})
		a.Announce(t.Context(), store.Outcome{News: true}) // neither a whisper nor a birth
	})
	assert.Empty(t, log)
	assert.Empty(t, noted)
}

func TestOtherEvidenceIsTold(t *testing.T) {
	w := whisper()
	w.Spec.Evidence = v1alpha1.Evidence{Values: map[string]float64{"oom_kills": 2, "period_seconds": 60}}
	log, _, _ := told(t, func(a *Announcer) { a.Announce(t.Context(), store.Outcome{Whisper: w, News: true}) })
	assert.Contains(t, log, "🔍 KERNEL EVIDENCE: oom_kills:2 period_seconds:60")
	assert.Contains(t, log, "oom_kills=2")
}

func TestABirth(t *testing.T) {
	b := &v1alpha1.PodBirthCertificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0-birth"},
		Spec: v1alpha1.PodBirthCertificateSpec{
			PodName: "web-0", TotalSyscalls: 4200, NamespaceOperations: 7, CgroupWrites: 12, Duration: metav1.Duration{Duration: 2 * time.Second},
		},
	}
	b.Spec.Insights = []string{"Pod birth took 2s", "The longest stage: bridge"}
	announce := func(a *Announcer) { a.Announce(t.Context(), store.Outcome{Birth: b, News: true}) }
	log, noted, r := told(t, announce)
	assert.Contains(t, log, "born in 2s with 4200 syscalls, 7 namespace operations, 12 cgroup writes")
	assert.Contains(t, log, "📊 INSIGHT: The longest stage: bridge")
	assert.Equal(t, []string{"Normal PodBorn Pod birth took 2s; The longest stage: bridge"}, noted)
	assert.Equal(t, "PodBirthCertificate", r.regarding[0].(*corev1.ObjectReference).Kind, "the pod is not known")

	b.Spec.PodUID, b.Spec.Duration.Duration = "p", time.Minute
	_, noted, r = told(t, announce)
	assert.Equal(t, []string{"Warning PodBornSlowly Pod birth took 2s; The longest stage: bridge"}, noted)
	assert.Equal(t, reference("shop", "web-0", "p"), r.regarding[0])
	b.Spec.Failed = true
	_, noted, _ = told(t, announce)
	assert.Equal(t, []string{"Warning PodBirthFailed Pod birth took 2s; The longest stage: bridge"}, noted)
}

// A storm of news is told in the log, and is no storm of Events in etcd.
func TestEventsAreBounded(t *testing.T) {
	log, noted, _ := told(t, func(a *Announcer) {
		for range 10 * eventsBurst {
			a.Announce(t.Context(), store.Outcome{Whisper: whisper(), News: true})
		}
	})
	assert.GreaterOrEqual(t, len(noted), eventsBurst)
	assert.Less(t, len(noted), 10*eventsBurst)
	assert.Contains(t, log, "too many events")
}

func TestACapIsToldNowAndThen(t *testing.T) {
	s := signal.Signal{Type: signal.CPUThrottle, Namespace: "shop", Pod: "web-0"}
	log, noted, _ := told(t, func(a *Announcer) {
		for range 100 {
			a.Capped(t.Context(), s, "namespace", 500)
		}
		New(slog.New(slog.DiscardHandler), nil).Capped(t.Context(), s, "all", 1) // without a cluster
	})
	assert.Equal(t, 3, strings.Count(log, "a cap is reached"))
	require.Len(t, noted, 3)
	assert.Equal(t, "Warning KernelWhisperCapped the cpu_throttle of pod web-0 is not stored: --whisper.max-per-namespace=500 is reached", noted[0])
	_, noted, _ = told(t, func(a *Announcer) { a.Capped(t.Context(), s, "all", 10) })
	assert.Contains(t, noted[0], "--whisper.max=10")
}

func TestAStepIsToldOnThePod(t *testing.T) {
	log, noted, r := told(t, func(a *Announcer) {
		a.Resized(t.Context(), whisper(), resize.Applied, "from 200m to 750m")
		a.Resized(t.Context(), whisper(), resize.RolledBack, "back to 200m")
		New(slog.New(slog.DiscardHandler), nil).Resized(t.Context(), whisper(), resize.Kept, "") // without a cluster
	})
	assert.Equal(t, []string{
		"Normal CPULimitApplied container app: from 200m to 750m",
		"Warning CPULimitRolledBack container app: back to 200m",
	}, noted)
	assert.Contains(t, log, "CPU limit: back to 200m")
	require.Len(t, r.regarding, 2)
	assert.Equal(t, "Pod", r.regarding[0].GetObjectKind().GroupVersionKind().Kind)
}

func TestWithoutAClusterTheLogIsAll(t *testing.T) {
	var b bytes.Buffer
	New(slog.New(slog.NewTextHandler(&b, nil)), nil).Announce(context.Background(), store.Outcome{Whisper: whisper(), News: true})
	assert.Contains(t, b.String(), "INSIGHT")
}

func TestNoteFits(t *testing.T) {
	assert.Equal(t, "short", note("short"))
	long := note(strings.Repeat("é", noteBytes))
	assert.LessOrEqual(t, len(long), noteBytes)
	assert.True(t, utf8.ValidString(long))
	assert.True(t, strings.HasSuffix(long, "é…"))
}
