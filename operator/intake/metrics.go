package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What may become of an event.
const (
	resultStored  = "stored"
	resultInvalid = "invalid" // can never be stored
	resultCapped  = "capped"  // refused by a cap on objects
	resultFailed  = "failed"  // the store failed, the sender was asked to retry
	resultIgnored = "ignored" // an alert that is about no pod, or none of ours
)

type metrics struct {
	events    *prometheus.CounterVec
	rejected  *prometheus.CounterVec
	truncated prometheus.Counter
	duration  *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	factory := promauto.With(registerer)
	m := &metrics{
		events: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_operator_intake_events_total",
			Help: "Events and alerts that came in, by door and by what became of them.",
		}, []string{"door", "result"}),
		rejected: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_operator_intake_rejected_total",
			Help: "Requests that were answered with an error, by door and reason.",
		}, []string{"door", "reason"}),
		truncated: factory.NewCounter(prometheus.CounterOpts{
			Name: "kernel_gossip_operator_intake_truncated_alerts_total",
			Help: "Alerts that Alertmanager left out of its notifications (max_alerts).",
		}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kernel_gossip_operator_intake_request_duration_seconds",
			Help:    "Time to answer a request, storing included, by door and status code.",
			Buckets: prometheus.DefBuckets,

			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"door", "code"}),
	}
	for _, door := range []string{"pixie", "ebpf", "alertmanager"} {
		for _, result := range []string{resultStored, resultInvalid, resultCapped, resultFailed} {
			m.events.WithLabelValues(door, result)
		}
	}
	m.events.WithLabelValues("alertmanager", resultIgnored)
	return m
}
