package reported

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSilence is after how many intervals without an answer the figures of a
// source turn absent.
const maxSilence = 4

// poller calls a poll function on a schedule, counts its outcomes by reason and
// logs a failure when it starts, changes or lasts.
type poller struct {
	log      *slog.Logger
	outcomes *prometheus.CounterVec
	invalid  prometheus.Counter
	now      func() time.Time
}

// pollError is a failed poll with its reason, one of pollResults.
type pollError struct {
	reason string
	err    error
}

func (e pollError) Error() string { return e.err.Error() }
func (e pollError) Unwrap() error { return e.err }

const resultSuccess = "success"

func pollResults() []string {
	return []string{resultSuccess, "resolve", "request", "denied", "status", "too_large", "parse"}
}

func newPoller(source string, log *slog.Logger) *poller {
	p := &poller{
		log: log,
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "kernel_gossip_exporter_reported_polls_total",
			Help:        "Polls of the source of reported CPU usage, by result: success, or what failed.",
			ConstLabels: prometheus.Labels{"source": source},
		}, []string{"result"}),
		invalid: prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "kernel_gossip_exporter_reported_invalid_points_total",
			Help:        "Points of a container that the source sent with an impossible value, time or label.",
			ConstLabels: prometheus.Labels{"source": source},
		}),
		now: time.Now,
	}
	for _, r := range pollResults() {
		p.outcomes.WithLabelValues(r)
	}
	return p
}

func (p *poller) Describe(ch chan<- *prometheus.Desc) {
	p.outcomes.Describe(ch)
	p.invalid.Describe(ch)
}

func (p *poller) Collect(ch chan<- prometheus.Metric) {
	p.outcomes.Collect(ch)
	p.invalid.Collect(ch)
}

func (p *poller) run(ctx context.Context, every time.Duration, poll func(context.Context) error) error {
	var (
		failing string
		logged  time.Time
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(jitter(every))
		err := poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		reason := resultSuccess
		if err != nil {
			reason = "request"
			var pe pollError
			if errors.As(err, &pe) {
				reason = pe.reason
			}
		}
		p.outcomes.WithLabelValues(reason).Inc()
		switch {
		case err == nil && failing != "":
			p.log.Info("reported CPU usage is back")
			failing = ""
		case err != nil && (failing != reason || p.now().Sub(logged) >= repeatPollError):
			p.log.Error("no reported CPU usage: what kubectl top shows, and the gap to it, are missing until this works; retrying",
				"reason", reason, "err", err)
			failing, logged = reason, p.now()
		}
	}
}

var errTooLarge = errors.New("answer too large")

// limited fails, and remembers it, once more than max bytes were read.
type limited struct {
	r    io.Reader
	max  int64
	read int64
	err  error // the first error but io.EOF
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.read += int64(n)
	if l.read > l.max {
		err = errTooLarge
	}
	if err != nil && err != io.EOF && l.err == nil {
		l.err = err
	}
	return n, err
}
