package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// What a changed limit did comes when the container is calm already.
func TestALimitsChangeIsKept(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon()}
	d := openDirectory(t, dir, Options{Now: c.now})
	read := func() *v1alpha1.KernelWhisper {
		return readWhisper(t, dir, "shop/kernelwhispers/web-0-kw.yaml")
	}
	send := func(s signal.Signal) { require.NoError(t, d.Accept(t.Context(), s)) }

	before := throttled(noon())
	before.CPU.RecommendedCores, before.CPU.QOSClass = p(1.6), "Burstable"
	before.CPU.WhatIf = []signal.WhatIf{{LimitCores: 1.6, ThrottleRatio: 0.01, Low: p(0), High: p(0.02)}}
	before.CPU.Prediction = &signal.Prediction{Outcome: signal.Predicted, Confidence: "medium", Periods: 600, WindowSeconds: 60.04, ThrottleRatio: 0.92}
	send(before)
	w := read()
	require.NotEmpty(t, w.Status.Recommendations)
	assert.Equal(t, &v1alpha1.PredictedRatio{BeforeRatio: 0.92, AfterRatio: 0.01, Low: p(0), High: p(0.02)}, w.Status.Recommendations[0].Predicted)
	assert.Contains(t, w.Status.Recommendations[0].Command, "--subresource resize")
	assert.Equal(t, &v1alpha1.Prediction{Outcome: "predicted", Confidence: "medium", Periods: 600, WindowSeconds: 60, ThrottleRatio: 0.92}, w.Spec.Evidence.Prediction)
	assert.Equal(t, before.CPU.Prediction.Outcome, signalOf(w).CPU.Prediction.Outcome, "and is read from the object again")
	assert.Empty(t, w.Status.LimitChanges)

	changed := func(at time.Time, from, to float64) signal.Signal {
		s := throttled(at)
		s.Resolved, s.CPU.ThrottlePercent, s.CPU.LimitCores = true, 0, p(to)
		s.CPU.RecommendedCores = p(1.5)
		s.CPU.Prediction = &signal.Prediction{Outcome: signal.Predicted, Confidence: "high", Periods: 600, WindowSeconds: 60, Check: &signal.LimitCheck{
			Observed: at, FromCores: from, Cores: to, Before: 0.92, Measured: 0.02, Predicted: p(0.01), Low: p(0), High: p(0.02),
		}}
		return s
	}
	send(changed(noon().Add(time.Minute), 1, 1.6))
	w = read()
	assert.Equal(t, v1alpha1.Resolved, w.Status.Phase)
	assert.Empty(t, w.Status.Recommendations, "the limit is enough")
	want := v1alpha1.LimitChange{
		ObservedAt: metav1.NewTime(noon().Add(time.Minute)), FromCores: 1, LimitCores: 1.6, BeforeRatio: 0.92, MeasuredRatio: 0.02,
		PredictedRatio: p(0.01), Low: p(0), High: p(0.02),
	}
	require.Len(t, w.Status.LimitChanges, 1)
	assert.Equal(t, want.ObservedAt.UTC(), w.Status.LimitChanges[0].ObservedAt.UTC())
	w.Status.LimitChanges[0].ObservedAt = want.ObservedAt
	assert.Equal(t, want, w.Status.LimitChanges[0])
	assert.Equal(t, 92.0, *w.Spec.Evidence.ThrottlePercentage, "the evidence stays that of the throttling")

	send(changed(noon().Add(time.Minute), 1, 1.6))
	assert.Len(t, read().Status.LimitChanges, 1, "told again")
	for i := range 6 {
		send(changed(noon().Add(time.Duration(i+2)*time.Minute), float64(i+1), float64(i+2)))
	}
	w = read()
	require.Len(t, w.Status.LimitChanges, limitChanges)
	assert.Equal(t, 7.0, w.Status.LimitChanges[3].LimitCores, "the newest last")
}
