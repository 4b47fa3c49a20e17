package store

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Retention is how long objects are kept.
type Retention struct {
	// TTL is from the last time the operator was told that the condition holds.
	// A birth certificate's runs from its creation. 0 keeps for ever.
	TTL time.Duration
	// ResolvedTTL is from when the condition was over. 0 is TTL.
	ResolvedTTL time.Duration
	// Silence ends the exporter's word, which it repeats each five minutes while it
	// holds: an exporter that was restarted, or whose node is gone, does not take
	// back what it said before. 0 keeps it.
	Silence time.Duration
}

// SilentAt is when the exporter's word that the condition holds is to end for want
// of another; zero is never.
func (r Retention) SilentAt(w *v1alpha1.KernelWhisper) time.Time {
	i := sourceIndex(&w.Status, signal.SourceEBPF)
	if r.Silence == 0 || i < 0 || !w.Status.Sources[i].Active {
		return time.Time{}
	}
	last := w.Status.Sources[i].ObservedAt.Time
	if w.Status.LastSeen != nil && w.Status.LastSeen.After(last) {
		last = w.Status.LastSeen.Time // its event may have waited on its way
	}
	return last.Add(r.Silence)
}

// FallSilent ends the exporter's word. The whisper is Resolved unless another source
// holds to it.
func FallSilent(w *v1alpha1.KernelWhisper, now time.Time) {
	active := false
	for i := range w.Status.Sources {
		if w.Status.Sources[i].Name == v1alpha1.SourceEBPF {
			w.Status.Sources[i].Active = false
		}
		active = active || w.Status.Sources[i].Active
	}
	if !active {
		setPhase(w, v1alpha1.Resolved, v1alpha1.ReasonSilent, "the exporter has not repeated it", now)
	}
}

// ExpiresAt is when a whisper is to be deleted; zero is never.
func (r Retention) ExpiresAt(w *v1alpha1.KernelWhisper) time.Time {
	from, ttl := w.CreationTimestamp.Time, r.TTL
	if w.Status.LastSeen != nil {
		from = w.Status.LastSeen.Time
	}
	if w.Status.Phase == v1alpha1.Resolved && w.Status.ResolvedAt != nil && r.ResolvedTTL > 0 {
		from, ttl = w.Status.ResolvedAt.Time, r.ResolvedTTL
	}
	if ttl == 0 || from.IsZero() {
		return time.Time{}
	}
	return from.Add(ttl)
}

// BirthExpiresAt is when a birth certificate is to be deleted; zero is never.
func (r Retention) BirthExpiresAt(b metav1.Object) time.Time {
	made := b.GetCreationTimestamp()
	if r.TTL == 0 || made.IsZero() {
		return time.Time{}
	}
	return made.Add(r.TTL)
}

// Advise returns what a whisper's spec means, whoever wrote it.
func Advise(w *v1alpha1.KernelWhisper) advice.Advice { return advice.For(signalOf(w)) }

// Analyse fills the status of a whisper whose spec a person wrote. Insights and
// severity are filled where they are empty.
func Analyse(w *v1alpha1.KernelWhisper, now time.Time) {
	a := Advise(w)
	if len(w.Spec.Insights) == 0 {
		w.Spec.Insights = a.Insights
	}
	if w.Spec.Severity == "" {
		w.Spec.Severity = v1alpha1.Severity(a.Severity)
	}
	AnalyseStatus(w, a, now)
}

// AnalyseStatus fills the status alone. A person's word is a source like any
// other; that of a sender whose status write was lost will come again.
func AnalyseStatus(w *v1alpha1.KernelWhisper, a advice.Advice, now time.Time) {
	st := &w.Status
	st.Recommendations = recommendations(a)
	if st.FirstSeen == nil {
		st.FirstSeen = &metav1.Time{Time: now}
	}
	st.LastSeen = &metav1.Time{Time: now}
	st.Occurrences = max(st.Occurrences, 1)
	if w.Spec.Source == v1alpha1.SourceManual {
		setSource(st, signal.SourceManual, true, now.UTC().Truncate(time.Microsecond))
		setPhase(w, v1alpha1.Active, v1alpha1.ReasonSignalled, "a person says so", now)
	} else if st.Phase == "" {
		setPhase(w, v1alpha1.Active, v1alpha1.ReasonSignalled, "the kernel is seen to do so", now)
	}
	settle(w, now)
}

// Resolve turns a whisper Resolved, whatever its sources said last.
func Resolve(w *v1alpha1.KernelWhisper, reason, message string, now time.Time) {
	for i := range w.Status.Sources {
		w.Status.Sources[i].Active = false
	}
	setPhase(w, v1alpha1.Resolved, reason, message, now)
}

// NeedsAnalysis tells that a person wrote the spec and the status does not speak
// of it yet.
func NeedsAnalysis(w *v1alpha1.KernelWhisper) bool {
	return w.Status.ObservedGeneration != w.Generation || w.Status.Phase == ""
}

func signalOf(w *v1alpha1.KernelWhisper) signal.Signal {
	e := &w.Spec.Evidence
	s := signal.Signal{
		Type: signal.Type(w.Spec.SignalType), Source: signal.SourceManual,
		Namespace: w.Namespace, Pod: w.Spec.PodName, Container: w.Spec.ContainerName,
		PodUID: w.Spec.PodUID, Node: w.Spec.NodeName, Values: e.Values, Process: processSignal(e.Process),
	}
	if w.Spec.DetectedAt != nil {
		s.Observed = w.Spec.DetectedAt.Time
	}
	if s.Type != signal.CPUThrottle || e.ThrottlePercentage == nil {
		return s
	}
	s.CPU = &signal.CPU{
		ThrottlePercent: *e.ThrottlePercentage, ActualCores: e.ActualCPUCores, ReportedCores: e.ReportedCPUCores,
		LimitCores: e.CPULimitCores, RecommendedCores: e.RecommendedCPULimitCores, ThrottledSeconds: e.ThrottledSeconds,
		ReportedPercent: e.ReportedPercentOfLimit, RunqueueWaitPercent: e.RunqueueWaitPercent, KernelInstrumented: e.KernelInstrumented,
		QOSClass: e.QOSClass,
	}
	if p := e.Prediction; p != nil {
		s.CPU.Prediction = &signal.Prediction{
			Outcome: signal.Outcome(p.Outcome), Confidence: string(p.Confidence),
			Periods: uint64(max(p.Periods, 0)), WindowSeconds: p.WindowSeconds, ThrottleRatio: p.ThrottleRatio,
			PeakCores: p.PeakCores, NextCores: p.NextCPULimitCores, BurstRatio: p.BurstThrottleRatio, ThreadsRatio: p.ThreadsThrottleRatio,
		}
		if p.Threads != nil {
			threads := uint64(max(*p.Threads, 0))
			s.CPU.Prediction.Threads = &threads
		}
	}
	if e.PeriodSeconds != nil {
		s.CPU.PeriodSeconds = *e.PeriodSeconds
	}
	s.CPU.Others = others(e.Reported)
	for _, f := range slices.Clone(e.WhatIf) {
		s.CPU.WhatIf = append(s.CPU.WhatIf, signal.WhatIf{LimitCores: f.LimitCores, ThrottleRatio: f.ThrottleRatio, Low: f.Low, High: f.High})
	}
	return s
}
