// Package intake is the operator's doors: HTTP in, valid signals out.
package intake

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Sink stores a valid signal. Accept returns only when the signal is durably
// stored, or with
//   - an error that wraps *signal.InvalidError: never to be stored (422),
//   - an error that wraps signal.ErrCapacity: refused for good (429, and 2xx for Alertmanager),
//   - any other error: try again (503).
//
// It is called concurrently, and again with the same signal when a sender retries.
type Sink interface {
	Accept(ctx context.Context, s signal.Signal) error
}

// Options of the doors; the zero value works.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Auth, when set, is asked before anything is read.
	Auth *Bearer
	// Timeout bounds the reading of a body, and then the storing of it. Default 10 s.
	Timeout time.Duration
	// MaxConcurrent is how many requests are served at once; more get 503. Default 64.
	MaxConcurrent int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Intake is the doors /webhook/pixie, /webhook/ebpf and /webhook/alertmanager.
type Intake struct {
	sink Sink
	opts Options
}

// New makes the doors and registers their metrics. It panics, as
// prometheus.MustRegister does, when the metrics are registered already.
func New(sink Sink, opts Options) *Intake { return &Intake{sink: sink, opts: opts} }

// Handler serves the doors under /webhook/.
func (in *Intake) Handler() http.Handler { return http.NotFoundHandler() }
