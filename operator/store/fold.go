package store

import (
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

const (
	labelSignal    = v1alpha1.Group + "/signal-type"
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "kernel-gossip"
)

// pod is what is known of the pod that a signal is about.
type pod struct {
	uid string
	// exists tells that the cluster has the pod, so uid is the living one's.
	exists bool
	// hash is a static pod's UID to kubelet and to cgroup paths: its
	// kubernetes.io/config.hash. The API server gives the mirror another.
	hash string
}

// fold returns what an object is after it was told signals, in their order. A
// nil object is made. The object given is left as it was.
func fold(old *v1alpha1.KernelWhisper, name string, p pod, signals []signal.Signal, now time.Time) *v1alpha1.KernelWhisper {
	w := &v1alpha1.KernelWhisper{}
	if old != nil {
		w = old.DeepCopy()
	}
	w.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.KernelWhisperKind}
	for _, s := range signals {
		if s.Type == signal.CPUReported {
			join(w, *s.Reported)
			continue
		}
		w.Name, w.Namespace = name, s.Namespace
		describe(&w.ObjectMeta, string(s.Type))
		own(&w.ObjectMeta, s.Pod, p)
		w.Spec.SignalType = v1alpha1.SignalType(s.Type)
		w.Spec.PodName, w.Spec.ContainerName = s.Pod, s.Container
		if p.uid != "" {
			w.Spec.PodUID = p.uid
		}
		hear(w, s, now)
	}
	return w
}

func describe(m *metav1.ObjectMeta, signalType string) {
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[labelSignal] = signalType
	m.Labels[labelManagedBy] = managedBy
}

// own makes the object go when the pod goes. blockOwnerDeletion stays unset: it
// would need the right to set the pod's finalizers.
func own(m *metav1.ObjectMeta, podName string, p pod) {
	if !p.exists {
		return
	}
	for _, r := range m.OwnerReferences {
		if r.UID == types.UID(p.uid) {
			return
		}
	}
	m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{
		APIVersion: "v1", Kind: "Pod", Name: podName, UID: types.UID(p.uid),
	})
}

// hear takes one signal's word. A source's word that is older than its last one
// counts as an occurrence and changes nothing else, for senders retry.
//
// Alertmanager's is as new as its arrival: a notification tells the present state,
// under the time at which an alert once started.
func hear(w *v1alpha1.KernelWhisper, s signal.Signal, now time.Time) {
	st := &w.Status
	said := s.Observed
	if s.Source == signal.SourceAlertmanager {
		said = now
	}
	said = said.UTC().Truncate(time.Microsecond)
	before := sourceIndex(st, s.Source)
	if s.Once && before >= 0 && said.Equal(st.Sources[before].ObservedAt.Time) && st.Sources[before].Active == !s.Resolved {
		return
	}
	if !s.Resolved {
		st.Occurrences++
		st.LastSeen = &metav1.Time{Time: now}
		if st.FirstSeen == nil {
			st.FirstSeen = st.LastSeen.DeepCopy()
		}
	}
	if before >= 0 && said.Before(st.Sources[before].ObservedAt.Time) {
		return
	}
	if !s.Resolved && takesEvidence(w, s) {
		evidence(w, s)
	}
	if s.CPU != nil && s.CPU.Prediction != nil {
		noteChange(st, s.CPU.Prediction.Check)
		if s.Resolved && s.CPU.Prediction.Outcome == signal.Predicted {
			// What the model says of the limit that is enough now.
			st.Recommendations = recommendations(advice.For(s))
		}
	}
	setSource(st, s.Source, !s.Resolved, said)
	if s.Resolved && direct(s.Source) {
		// What reads the kernel knows as well as another such reading, and
		// Pixie's scripts never say that it is over.
		for i := range st.Sources {
			if x := &st.Sources[i]; direct(signal.Source(x.Name)) && !said.Before(x.ObservedAt.Time) {
				x.Active = false
			}
		}
	}
	if slices.ContainsFunc(st.Sources, func(x v1alpha1.SourceStatus) bool { return x.Active }) {
		setPhase(w, v1alpha1.Active, v1alpha1.ReasonSignalled, "a source says so, and none has taken it back", now)
	} else {
		setPhase(w, v1alpha1.Resolved, v1alpha1.ReasonRecovered, "every source says that it is over", now)
	}
}

// limitChanges are kept.
const limitChanges = 4

// noteChange keeps what a change of the limit did. Each later event tells of it again.
func noteChange(st *v1alpha1.KernelWhisperStatus, c *signal.LimitCheck) {
	if c == nil {
		return
	}
	at := metav1.NewTime(c.Observed.UTC().Truncate(time.Second))
	if n := len(st.LimitChanges); n > 0 && !at.After(st.LimitChanges[n-1].ObservedAt.Time) {
		return
	}
	st.LimitChanges = append(st.LimitChanges, v1alpha1.LimitChange{
		ObservedAt: at, FromCores: *round(&c.FromCores, 4), LimitCores: *round(&c.Cores, 4),
		BeforeRatio: *round(&c.Before, 4), MeasuredRatio: *round(&c.Measured, 4),
		PredictedRatio: round(c.Predicted, 4), Low: round(c.Low, 4), High: round(c.High, 4),
	})
	st.LimitChanges = st.LimitChanges[max(0, len(st.LimitChanges)-limitChanges):]
}

func sourceIndex(st *v1alpha1.KernelWhisperStatus, source signal.Source) int {
	return slices.IndexFunc(st.Sources, func(x v1alpha1.SourceStatus) bool { return x.Name == v1alpha1.Source(source) })
}

func setSource(st *v1alpha1.KernelWhisperStatus, source signal.Source, active bool, at time.Time) {
	word := v1alpha1.SourceStatus{Name: v1alpha1.Source(source), Active: active, ObservedAt: metav1.NewMicroTime(at)}
	if i := sourceIndex(st, source); i >= 0 {
		st.Sources[i] = word
	} else {
		st.Sources = append(st.Sources, word)
	}
}

// direct sources read the kernel; alerts are told of it.
func direct(source signal.Source) bool { return source != signal.SourceAlertmanager }

// takesEvidence tells whether a signal's numbers replace the object's: not while
// the exporter, which is nearest to the kernel, gave these and holds to them, and
// not when they are older.
func takesEvidence(w *v1alpha1.KernelWhisper, s signal.Signal) bool {
	if w.Spec.DetectedAt == nil {
		return true
	}
	if i := sourceIndex(&w.Status, signal.SourceEBPF); i >= 0 && w.Status.Sources[i].Active &&
		w.Spec.Source == v1alpha1.SourceEBPF && s.Source != signal.SourceEBPF {
		return false
	}
	return s.Source == signal.SourceAlertmanager || !s.Observed.Truncate(time.Second).Before(w.Spec.DetectedAt.Time)
}

func evidence(w *v1alpha1.KernelWhisper, s signal.Signal) {
	if s.CPU != nil {
		c := *s.CPU
		c.Others = others(w.Spec.Evidence.Reported, c.Others...)
		s.CPU = &c
	}
	a := advice.For(s)
	w.Spec.Source = v1alpha1.Source(s.Source)
	if s.Node != "" {
		w.Spec.NodeName = s.Node
	}
	w.Spec.DetectedAt = &metav1.Time{Time: s.Observed.UTC().Truncate(time.Second)}
	w.Spec.Insights = a.Insights
	w.Spec.Severity = v1alpha1.Severity(a.Severity)
	w.Spec.Evidence = evidenceOf(s, a)
	w.Status.Recommendations = recommendations(a)
}

func evidenceOf(s signal.Signal, a advice.Advice) v1alpha1.Evidence {
	e := v1alpha1.Evidence{
		ReportedPercent:        round(a.ReportedPercent, 2),
		ReportedPercentOfLimit: round(a.ReportedPercentOfLimit, 2),
		Values:                 s.Values,
		Process:                processOf(s.Process),
	}
	if c := s.CPU; c != nil {
		e.ThrottlePercentage = round(&c.ThrottlePercent, 2)
		e.ActualCPUCores = round(c.ActualCores, 4)
		e.ReportedCPUCores = round(c.ReportedCores, 4)
		e.CPULimitCores = round(c.LimitCores, 4)
		e.RecommendedCPULimitCores = round(c.RecommendedCores, 4)
		e.ThrottledSeconds = round(c.ThrottledSeconds, 6)
		e.RunqueueWaitPercent = round(c.RunqueueWaitPercent, 2)
		e.KernelInstrumented = c.KernelInstrumented
		e.QOSClass = c.QOSClass
		e.Prediction = prediction(c.Prediction)
		if c.PeriodSeconds > 0 {
			e.PeriodSeconds = round(&c.PeriodSeconds, 3)
		}
		for _, r := range c.Others {
			f := v1alpha1.Reported{Source: v1alpha1.Source(r.Source), CPUCores: *round(&r.Cores, 4), ObservedAt: &metav1.Time{Time: r.Observed.UTC().Truncate(time.Second)}}
			if r.PeriodSeconds > 0 {
				f.PeriodSeconds = round(&r.PeriodSeconds, 3)
			}
			e.Reported = append(e.Reported, f)
		}
		for _, f := range c.WhatIf {
			e.WhatIf = append(e.WhatIf, v1alpha1.WhatIf{
				LimitCores: *round(&f.LimitCores, 4), ThrottleRatio: *round(&f.ThrottleRatio, 4),
				Low: round(f.Low, 4), High: round(f.High, 4),
			})
		}
	}
	return e
}

func prediction(p *signal.Prediction) *v1alpha1.Prediction {
	if p == nil {
		return nil
	}
	out := &v1alpha1.Prediction{
		Outcome: string(p.Outcome), Confidence: v1alpha1.Confidence(p.Confidence),
		Periods: int64(p.Periods), WindowSeconds: *round(&p.WindowSeconds, 1), ThrottleRatio: *round(&p.ThrottleRatio, 4), //nolint:gosec // validated
		PeakCores: round(p.PeakCores, 4), NextCPULimitCores: round(p.NextCores, 4),
		BurstThrottleRatio: round(p.BurstRatio, 4), ThreadsThrottleRatio: round(p.ThreadsRatio, 4),
	}
	if p.Threads != nil {
		threads := int64(*p.Threads) //nolint:gosec // validated
		out.Threads = &threads
	}
	return out
}

// A figure that joined is written again when it moved by a tenth or is this old:
// observers report every few seconds, and each write costs the API server.
const joinAgain = 5 * time.Minute

// join puts another observer's figure beside the kernel's, while the condition
// holds. What a person wrote is left alone.
func join(w *v1alpha1.KernelWhisper, r signal.Reported) {
	if w.Spec.DetectedAt == nil || w.Spec.Source == v1alpha1.SourceManual || w.Status.Phase != v1alpha1.Active {
		return
	}
	for _, old := range w.Spec.Evidence.Reported {
		if old.Source != v1alpha1.Source(r.Source) || old.ObservedAt == nil {
			continue
		}
		age := r.Observed.Sub(old.ObservedAt.Time)
		if age <= 0 || age < joinAgain && math.Abs(r.Cores-old.CPUCores) <= 0.1*max(r.Cores, old.CPUCores) {
			return
		}
	}
	s := signalOf(w)
	if s.CPU == nil {
		return
	}
	s.CPU.Others = others(w.Spec.Evidence.Reported, r)
	a := advice.For(s)
	w.Spec.Insights = a.Insights
	w.Spec.Evidence.Reported = evidenceOf(s, a).Reported
}

// others is the newest figure of each observer.
func others(have []v1alpha1.Reported, news ...signal.Reported) []signal.Reported {
	var all []signal.Reported
	for _, r := range have {
		f := signal.Reported{Source: signal.Source(r.Source), Cores: r.CPUCores}
		if r.PeriodSeconds != nil {
			f.PeriodSeconds = *r.PeriodSeconds
		}
		if r.ObservedAt != nil {
			f.Observed = r.ObservedAt.Time
		}
		all = append(all, f)
	}
	for _, r := range news {
		i := slices.IndexFunc(all, func(x signal.Reported) bool { return x.Source == r.Source })
		switch {
		case i < 0:
			all = append(all, r)
		case !r.Observed.Before(all[i].Observed):
			all[i] = r
		}
	}
	return all
}

// unchanged tells that a fold left nothing to write.
func unchanged(a, b *v1alpha1.KernelWhisper) bool {
	return sameSpec(a, b) && equality.Semantic.DeepEqual(a.Status, b.Status)
}

// round keeps what a person reads and drops the noise below it.
func round(v *float64, digits int) *float64 {
	if v == nil {
		return nil
	}
	scale := math.Pow10(digits)
	r := math.Round(*v*scale) / scale
	return &r
}

func recommendations(a advice.Advice) []v1alpha1.Recommendation {
	var out []v1alpha1.Recommendation
	for _, r := range a.Recommendations {
		o := v1alpha1.Recommendation{
			Action: r.Action, Reason: r.Reason, SuggestedValue: r.SuggestedValue, Confidence: v1alpha1.Confidence(r.Confidence), Command: r.Command,
		}
		if p := r.Predicted; p != nil {
			o.Predicted = &v1alpha1.PredictedRatio{
				BeforeRatio: *round(&p.Before, 4), AfterRatio: *round(&p.After, 4), Low: round(p.Low, 4), High: round(p.High, 4),
			}
		}
		out = append(out, o)
	}
	return out
}

func setPhase(w *v1alpha1.KernelWhisper, phase v1alpha1.Phase, reason, message string, now time.Time) {
	w.Status.Phase = phase
	status := metav1.ConditionTrue
	switch {
	case phase == v1alpha1.Active:
		w.Status.ResolvedAt = nil
	case w.Status.ResolvedAt == nil:
		w.Status.ResolvedAt = &metav1.Time{Time: now}
	}
	if phase == v1alpha1.Resolved {
		status = metav1.ConditionFalse
	}
	setCondition(w, v1alpha1.ConditionActive, status, reason, message, now)
}

func setCondition(w *v1alpha1.KernelWhisper, kind string, status metav1.ConditionStatus, reason, message string, now time.Time) {
	meta.SetStatusCondition(&w.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: w.Generation, LastTransitionTime: metav1.NewTime(now),
	})
}

// settle says of which generation the status speaks.
func settle(w *v1alpha1.KernelWhisper, now time.Time) {
	w.Status.ObservedGeneration = w.Generation
	setCondition(w, v1alpha1.ConditionAnalysed, metav1.ConditionTrue, v1alpha1.ReasonAdviceDone, "status speaks of the present spec", now)
	for i := range w.Status.Conditions {
		w.Status.Conditions[i].ObservedGeneration = w.Generation
	}
}

// news tells whether a person would want to hear of the change.
func news(before, after *v1alpha1.KernelWhisper) bool {
	return before == nil ||
		before.Status.Phase != after.Status.Phase ||
		before.Spec.Severity != after.Spec.Severity ||
		!slices.EqualFunc(before.Spec.Insights, after.Spec.Insights, sameWords)
}

// sameWords tells whether two insights differ in their numbers alone, as those of
// a stream do every few seconds.
func sameWords(a, b string) bool {
	words := func(s string) string {
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r >= '0' && r <= '9' || r == '.' }), "#")
	}
	return words(a) == words(b)
}

// sameSpec tells whether a write of spec, labels and owner would change nothing.
func sameSpec(a, b *v1alpha1.KernelWhisper) bool {
	return equality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

// verdict is what to do with an object of the same name as the signal's.
type verdict int

const (
	keep    verdict = iota // it is of the same pod
	replace                // it is of a namesake that is no more
	ignore                 // the signal is of a namesake that is no more
)

// judge compares the pod of an object with the pod of a signal. An unknown UID
// on either side fits any.
func judge(haveUID string, detected *metav1.Time, p pod, s signal.Signal) verdict {
	switch {
	case p.exists && s.PodUID != "" && s.PodUID != p.uid && s.PodUID != p.hash:
		return ignore
	case haveUID == "" || p.uid == "" || haveUID == p.uid:
		return keep
	case p.exists:
		return replace
	case detected != nil && s.Observed.Before(detected.Time):
		return ignore
	default:
		return replace
	}
}
