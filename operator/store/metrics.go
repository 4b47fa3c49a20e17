package store

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

const metricPrefix = "kernel_gossip_operator_"

// Metrics are the stores' and the controller's.
type Metrics struct {
	signals  *prometheus.CounterVec
	writes   *prometheus.CounterVec
	duration prometheus.Histogram
	conflict prometheus.Counter
	capped   *prometheus.CounterVec
	expired  *prometheus.CounterVec
	evicted  prometheus.Counter
	resizes  *prometheus.CounterVec

	// Active is which whispers are Active.
	Active *ActiveWhispers
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "store_signals_total",
			Help: "Signals by what became of them: stored; ignored, as they tell of a pod that is no more or resolve nothing; invalid; capped; failed, to be sent again.",
		}, []string{"result"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "store_writes_total",
			Help: "Writes that landed. One may hold many signals.",
		}, []string{"part"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                        metricPrefix + "store_duration_seconds",
			Help:                        "Time to store what waits for one object, its reads and retries included.",
			Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 14),
			NativeHistogramBucketFactor: 1.1,
		}),
		conflict: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricPrefix + "store_conflicts_total",
			Help: "Writes that another replica or the controller was ahead of; they are done again at once.",
		}),
		capped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "store_capped_total",
			Help: "Objects refused because a cap is reached, by the cap's scope.",
		}, []string{"scope"}),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "store_expired_total",
			Help: "Objects deleted because their time was over.",
		}, []string{"kind"}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricPrefix + "store_evicted_total",
			Help: "Birth certificates deleted because a cap was reached: the oldest make room.",
		}),
		Active: newActiveWhispers(),
	}
	m.resizes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricPrefix + "resizes_total",
		Help: "Steps with a CPU limit, where pods ask for them: Applied, then Kept, RolledBack, Unverified (nobody told what it did) or Superseded (somebody set another limit); Refused by the API server.",
	}, []string{"phase"})
	for _, phase := range []resize.Phase{resize.Applied, resize.Kept, resize.RolledBack, resize.Unverified, resize.Superseded, resize.Refused} {
		m.resizes.WithLabelValues(string(phase))
	}
	for _, result := range []string{"stored", "ignored", "invalid", "capped", "failed"} {
		m.signals.WithLabelValues(result)
	}
	for _, scope := range []string{scopeNamespace, scopeAll} {
		m.capped.WithLabelValues(scope)
	}
	r.MustRegister(m.signals, m.writes, m.duration, m.conflict, m.capped, m.expired, m.evicted, m.resizes, m.Active)
	return m
}

// Expired counts an object whose time was over.
func (m *Metrics) Expired(kind string) { m.expired.WithLabelValues(kind).Inc() }

// Resized counts what a step with a CPU limit came to.
func (m *Metrics) Resized(phase resize.Phase) { m.resizes.WithLabelValues(string(phase)).Inc() }

func (m *Metrics) observe(n int, began time.Time, err error) {
	m.duration.Observe(time.Since(began).Seconds())
	result := "stored"
	switch _, invalid := errors.AsType[*signal.InvalidError](err); {
	case err == nil:
	case errors.Is(err, errIgnored):
		result = "ignored"
	case invalid:
		result = "invalid"
	case errors.Is(err, signal.ErrCapacity):
		result = "capped"
	default:
		result = "failed"
	}
	m.signals.WithLabelValues(result).Add(float64(n))
}
