package store

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// ActiveWhispers tells as a metric which whispers are Active, so that a dashboard can
// mark when each began and ended. There are at most as many series as whispers, which
// the caps bound. The zero value is not ready; see NewMetrics.
type ActiveWhispers struct {
	desc *prometheus.Desc

	mu    sync.Mutex
	about map[types.NamespacedName]subject
}

// subject is what a whisper is about, as the metric's labels in their order.
type subject [5]string

func newActiveWhispers() *ActiveWhispers {
	return &ActiveWhispers{
		desc: prometheus.NewDesc(metricPrefix+"active_whispers",
			"KernelWhispers that are Active, by what they are about. Only of the replica that holds the lease, in a cluster.",
			[]string{"namespace", "pod", "container", "signal_type", "severity"}, nil),
		about: map[types.NamespacedName]subject{},
	}
}

// See takes a whisper as it is now.
func (a *ActiveWhispers) See(w *v1alpha1.KernelWhisper) {
	name := types.NamespacedName{Namespace: w.Namespace, Name: w.Name}
	if w.Status.Phase != v1alpha1.Active || !w.DeletionTimestamp.IsZero() {
		a.Forget(name)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.about[name] = subject{w.Namespace, w.Spec.PodName, w.Spec.ContainerName, string(w.Spec.SignalType), string(w.Spec.Severity)}
}

// Forget takes that a whisper is no more.
func (a *ActiveWhispers) Forget(name types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.about, name)
}

// Reset forgets all: another replica tells of them from now on.
func (a *ActiveWhispers) Reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.about)
}

// Describe implements prometheus.Collector.
func (a *ActiveWhispers) Describe(ch chan<- *prometheus.Desc) { ch <- a.desc }

// Collect implements prometheus.Collector. A person may have applied a second whisper
// about the same thing, so whispers are counted.
func (a *ActiveWhispers) Collect(ch chan<- prometheus.Metric) {
	counts := map[subject]int{}
	a.mu.Lock()
	for _, s := range a.about {
		counts[s]++
	}
	a.mu.Unlock()
	for s, n := range counts {
		ch <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, float64(n), s[:]...)
	}
}
