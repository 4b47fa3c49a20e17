package whisper

import "github.com/prometheus/client_golang/prometheus"

// The values of the result label: what finally became of an event.
const (
	resultDelivered  = "delivered"  // answered 2xx
	resultSuperseded = "superseded" // a newer event of the same container took its place
	resultDropped    = "dropped"    // see the reason label of the drops
)

// The values of the reason label.
const (
	dropQueueFull = "queue_full"
	dropRejected  = "rejected" // the operator answers that it can never take it
	dropShutdown  = "shutdown" // still undelivered when the time to flush was over
)

// The values of the outcome label of requests.
const (
	requestOK       = "ok"
	requestRetry    = "retry"    // to be tried again: no connection, time-out, 5xx, 401, 403, 404, 408, 425, 429
	requestRejected = "rejected" // any other answer
)

type metrics struct {
	events   *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	requests *prometheus.CounterVec
	duration prometheus.Histogram
	length   prometheus.GaugeFunc
	capacity prometheus.Gauge
}

func newMetrics(q *queue) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_whisper_events_total",
			Help: "Events for the operator by what finally became of them: delivered, superseded by a newer one of the same container, or dropped.",
		}, []string{"result"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_whisper_events_dropped_total",
			Help: "Events that the operator never got, by reason.",
		}, []string{"reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kernel_gossip_whisper_requests_total",
			Help: "Requests to the operator by outcome: ok, retry (tried again later) or rejected.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            "kernel_gossip_whisper_delivery_seconds",
			Help:                            "Time from the sample that an event rests on to the operator's 2xx.",
			Buckets:                         []float64{0.01, 0.05, 0.1, 0.5, 1, 2, 5, 30, 300},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: 0,
		}),
		length: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kernel_gossip_whisper_queue_length",
			Help: "Containers with an event that waits for delivery.",
		}, func() float64 { return float64(q.len()) }),
		capacity: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kernel_gossip_whisper_queue_capacity",
			Help: "Containers that the queue has room for.",
		}),
	}
	m.capacity.Set(float64(q.capacity))
	for _, r := range []string{resultDelivered, resultSuperseded, resultDropped} {
		m.events.WithLabelValues(r)
	}
	for _, r := range []string{dropQueueFull, dropRejected, dropShutdown} {
		m.dropped.WithLabelValues(r)
	}
	for _, o := range []string{requestOK, requestRetry, requestRejected} {
		m.requests.WithLabelValues(o)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.events, m.dropped, m.requests, m.duration, m.length, m.capacity}
}

func (m *metrics) superseded(n int) { m.events.WithLabelValues(resultSuperseded).Add(float64(n)) }

func (m *metrics) drop(reason string, n int) {
	m.events.WithLabelValues(resultDropped).Add(float64(n))
	m.dropped.WithLabelValues(reason).Add(float64(n))
}
