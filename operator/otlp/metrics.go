package otlp

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What may become of a row.
const (
	resultStored    = "stored"
	resultDuplicate = "duplicate" // came before
	resultIgnored   = "ignored"   // says that nothing happened
	resultInvalid   = "invalid"   // can never be stored
	resultCapped    = "capped"    // refused by a cap on objects
	resultFailed    = "failed"    // the store failed, the sender was asked to retry
)

type metrics struct {
	rows     *prometheus.CounterVec
	rejected *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	factory := promauto.With(registerer)
	m := &metrics{
		rows: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_operator_otlp_rows_total",
			Help: "Rows, that is the numbers of one subject and time, and events that came over OTLP, by what became of them.",
		}, []string{"result"}),
		rejected: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_operator_otlp_rejected_total",
			Help: "Data points and spans that OTLP senders were told are rejected, by service.",
		}, []string{"service"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kernel_gossip_operator_otlp_request_duration_seconds",
			Help:    "Time to answer an OTLP request, storing included, by service and gRPC status code.",
			Buckets: prometheus.DefBuckets,

			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"service", "code"}),
	}
	for _, result := range []string{resultStored, resultDuplicate, resultIgnored, resultInvalid, resultCapped, resultFailed} {
		m.rows.WithLabelValues(result)
	}
	return m
}
