package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func p(f float64) *float64 { return &f }

func throttled(at time.Time) signal.Signal {
	return signal.Signal{Type: signal.CPUThrottle, Source: signal.SourceEBPF, Namespace: "shop", Pod: "web-0", Container: "app", Observed: at,
		CPU: &signal.CPU{ThrottlePercent: 92, ReportedCores: p(0.48), LimitCores: p(1), PeriodSeconds: 60}}
}

func pixie(cores float64, at time.Time) signal.Signal {
	return signal.Signal{Type: signal.CPUReported, Source: signal.SourcePixie, Namespace: "shop", Pod: "web-0", Container: "app", Observed: at,
		Reported: &signal.Reported{Source: signal.SourcePixie, Cores: cores, PeriodSeconds: 30, Observed: at}}
}

// both averages are in the object, and the insights say where they part.
func TestPixiesAverageJoinsTheWhisper(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := at
	dir := t.TempDir()
	d, err := OpenDirectory(t.Context(), dir, Options{Now: func() time.Time { return clock }})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	read := func() *v1alpha1.KernelWhisper {
		w, err := load[v1alpha1.KernelWhisper](d, "shop/kernelwhispers", "web-0-kw")
		require.NoError(t, err)
		return w
	}
	send := func(s signal.Signal) { require.NoError(t, d.Accept(t.Context(), s)) }

	send(pixie(0.31, at))
	require.Nil(t, read(), "a figure alone is no whisper")

	send(throttled(at))
	send(pixie(0.31, at.Add(time.Second)))
	w := read()
	require.Len(t, w.Spec.Evidence.Reported, 1)
	assert.Equal(t, v1alpha1.Source("pixie"), w.Spec.Evidence.Reported[0].Source)
	assert.Equal(t, 0.31, w.Spec.Evidence.Reported[0].CPUCores)
	assert.Equal(t, 0.48, *w.Spec.Evidence.ReportedCPUCores)
	assert.Contains(t, w.Spec.Insights, "Metrics show 48% usage, kernel shows 92% throttled")
	assert.Contains(t, w.Spec.Insights, "Pixie shows 0.31 cores (31% of the limit) over 30 s, metrics show 0.48, kernel shows 92% throttled")
	assert.EqualValues(t, 1, w.Status.Occurrences, "a figure is no occurrence")
	assert.Len(t, w.Status.Sources, 1)
	assert.Equal(t, v1alpha1.Source("ebpf"), w.Spec.Source)

	before, err := yaml.Marshal(w)
	require.NoError(t, err)
	send(pixie(0.30, at.Add(30*time.Second)))
	after, err := yaml.Marshal(read())
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after), "a figure that hardly moved is not written")

	send(pixie(0.47, at.Add(time.Minute)))
	w = read()
	assert.Equal(t, 0.47, w.Spec.Evidence.Reported[0].CPUCores)
	assert.NotContains(t, w.Spec.Insights[len(w.Spec.Insights)-1], "Pixie", "they agree now")

	clock = at.Add(2 * time.Minute)
	send(throttled(clock))
	assert.Len(t, read().Spec.Evidence.Reported, 1, "the kernel's next word keeps what others reported")

	over := throttled(clock.Add(time.Minute))
	over.Resolved = true
	send(over)
	send(pixie(0.9, clock.Add(2*time.Minute)))
	assert.Equal(t, 0.47, read().Spec.Evidence.Reported[0].CPUCores, "over is over")
}

func TestOnceCountsOnce(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)
	dir := t.TempDir()
	issue := signal.Signal{Type: signal.NetworkIssue, Source: signal.SourcePixie, Once: true, Namespace: "shop", Pod: "web-0", Observed: at, Values: map[string]float64{"drops": 3}}
	for range 2 { // each time a new process, which remembers nothing
		d, err := OpenDirectory(t.Context(), dir, Options{})
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, d.Accept(t.Context(), issue))
		}
		w, err := load[v1alpha1.KernelWhisper](d, "shop/kernelwhispers", "web-0-network-issue-kw")
		require.NoError(t, err)
		assert.EqualValues(t, 1, w.Status.Occurrences)
		require.NoError(t, d.Close())
	}
	d, err := OpenDirectory(t.Context(), dir, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	issue.Observed = at.Add(30 * time.Second)
	require.NoError(t, d.Accept(t.Context(), issue))
	issue.Once = false
	require.NoError(t, d.Accept(t.Context(), issue))
	w, err := load[v1alpha1.KernelWhisper](d, "shop/kernelwhispers", "web-0-network-issue-kw")
	require.NoError(t, err)
	assert.EqualValues(t, 3, w.Status.Occurrences, "a new window counts, and so does one who means it again")
}

func TestNumbersAloneAreNoNews(t *testing.T) {
	w := func(insights ...string) *v1alpha1.KernelWhisper {
		return &v1alpha1.KernelWhisper{Spec: v1alpha1.KernelWhisperSpec{Insights: insights}}
	}
	assert.True(t, news(nil, w()))
	assert.False(t, news(w("Network issue: rx drops 41"), w("Network issue: rx drops 42.5")))
	assert.True(t, news(w("Network issue: rx drops 41"), w("Network issue: tx drops 41")))
	assert.True(t, news(w("a 1"), w("a 1", "b")))
	other := w("a 1")
	other.Spec.Severity = "critical"
	assert.True(t, news(w("a 1"), other))
}
