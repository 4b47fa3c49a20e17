package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// An exporter that was restarted does not take back what it said before: its word
// ends when it is not repeated, and Alertmanager's does not.
func TestSilence(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	keep := Retention{Silence: 15 * time.Minute}
	for _, c := range []struct {
		name    string
		sources []signal.Source
		repeat  time.Duration // the exporter's second word; 0: none
		look    time.Duration
		want    v1alpha1.Phase
	}{
		{"repeated in time", []signal.Source{signal.SourceEBPF}, 5 * time.Minute, 19 * time.Minute, v1alpha1.Active},
		{"not yet", []signal.Source{signal.SourceEBPF}, 0, 15*time.Minute - time.Second, v1alpha1.Active},
		{"silent", []signal.Source{signal.SourceEBPF}, 0, 15 * time.Minute, v1alpha1.Resolved},
		{"silent after a second word", []signal.Source{signal.SourceEBPF}, 5 * time.Minute, 20 * time.Minute, v1alpha1.Resolved},
		{"an alert holds to it", []signal.Source{signal.SourceEBPF, signal.SourceAlertmanager}, 0, time.Hour, v1alpha1.Active},
		{"only an alert", []signal.Source{signal.SourceAlertmanager}, 0, time.Hour, v1alpha1.Active},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := began
			d, err := OpenDirectory(t.Context(), t.TempDir(), Options{Now: func() time.Time { return clock }})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, d.Close()) })
			for _, source := range c.sources {
				s := throttled(began)
				s.Source = source
				require.NoError(t, d.Accept(t.Context(), s))
			}
			if c.repeat > 0 {
				clock = began.Add(c.repeat)
				require.NoError(t, d.Accept(t.Context(), throttled(clock)))
			}
			clock = began.Add(c.look)
			require.NoError(t, d.Tend(t.Context(), keep))
			w, err := load[v1alpha1.KernelWhisper](d, "shop/kernelwhispers", "web-0-kw")
			require.NoError(t, err)
			assert.Equal(t, c.want, w.Status.Phase)
			if c.want == v1alpha1.Resolved {
				assert.Equal(t, v1alpha1.ReasonSilent, w.Status.Conditions[0].Reason)
				clock = clock.Add(time.Minute)
				require.NoError(t, d.Accept(t.Context(), throttled(clock)), "it comes back when it is told again")
				w, err = load[v1alpha1.KernelWhisper](d, "shop/kernelwhispers", "web-0-kw")
				require.NoError(t, err)
				assert.Equal(t, v1alpha1.Active, w.Status.Phase)
			}
		})
	}
}
