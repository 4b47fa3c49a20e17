// Package intake is the operator's doors: HTTP in, valid signals out.
//
// Every door answers 2xx only after the sink has stored what was sent, so a
// sender that retries everything else loses nothing, and one that crashes in
// between sends again what the sink takes as the same object:
//
//	200  stored; for Alertmanager also: the rest can never be, and was counted and logged
//	400  unreadable, wrongly typed or invalid: the field is named, nothing was written
//	401  no or another token
//	404, 405, 408, 413, 415  wrong path, method; body too slow, too large, of another kind
//	422  the sink can never store it (others of the same array were stored)
//	429  a cap on objects is reached: refused, counted, not worth sending again soon
//	503  with Retry-After: busy, or the store fails; send the same again
package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Bounds of a request.
const (
	MaxBodyBytes = 1 << 20
	MaxDepth     = 32   // of the JSON
	MaxEvents    = 1000 // in one array, or alerts in one notification

	storesPerRequest = 8 // of different containers, at once

	refusalsPerSecond, refusalsBurst = 2, 100 // in the log
)

// The doors' paths.
const (
	PathPixie        = "/webhook/pixie"
	PathEBPF         = "/webhook/ebpf"
	PathAlertmanager = "/webhook/alertmanager"
)

// Sink stores a valid signal. Accept returns only when the signal is durably
// stored, or with
//   - an error that wraps *signal.InvalidError: never to be stored,
//   - an error that wraps signal.ErrCapacity: refused for good,
//   - any other error: worth trying again.
//
// It is called concurrently, and again with the same signal when a sender retries.
type Sink interface {
	Accept(ctx context.Context, s signal.Signal) error
}

// Options of the doors; the zero value works.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// HostNamespace holds what alerts tell of cgroups that belong to no pod, as the
	// exporter's --whisper.namespace does for its own events. Default kernel-gossip.
	HostNamespace string
	// Auth, when set, is asked before anything is read.
	Auth *Bearer
	// Timeout bounds the reading of a body, and then the storing of what it held. Default 10 s.
	Timeout time.Duration
	// MaxConcurrent is how many requests are served at once; more get 503. Default 64.
	MaxConcurrent int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Intake is the doors of PathPixie, PathEBPF and PathAlertmanager.
type Intake struct {
	sink    Sink
	log     *slog.Logger
	host    string // namespace
	auth    *Bearer
	timeout time.Duration
	now     func() time.Time
	slots   chan struct{}
	metrics *metrics
	// refusals are logged at this rate, whatever senders do.
	refusals *rate.Limiter
}

// New makes the doors and registers their metrics. It panics, as
// prometheus.MustRegister does, when these are registered already.
func New(sink Sink, opts Options) *Intake {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.HostNamespace == "" {
		opts.HostNamespace = "kernel-gossip"
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.MaxConcurrent <= 0 {
		opts.MaxConcurrent = 64
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Intake{
		sink: sink, log: opts.Logger, host: opts.HostNamespace, auth: opts.Auth, timeout: opts.Timeout, now: opts.Now,
		slots:    make(chan struct{}, opts.MaxConcurrent),
		metrics:  newMetrics(opts.Registerer),
		refusals: rate.NewLimiter(refusalsPerSecond, refusalsBurst),
	}
}

// Handler serves all doors; mount it at /webhook/.
func (in *Intake) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(PathPixie, in.door("pixie", in.events(signal.SourcePixie)))
	mux.Handle(PathEBPF, in.door("ebpf", in.events(signal.SourceEBPF)))
	mux.Handle(PathAlertmanager, in.door("alertmanager", in.alerts))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeReply(w, http.StatusNotFound, reply{Status: "error", Message: fmt.Sprintf(
			"nothing is served at this path; POST to %s, %s or %s", PathPixie, PathEBPF, PathAlertmanager)})
	})
	return mux
}

// reply is the body of every answer.
type reply struct {
	Status  string `json:"status"` // accepted or error
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

// refusal is an answer other than 2xx.
type refusal struct {
	status int
	reason string // the metric's label
	err    error
	retry  time.Duration
}

func (r *refusal) Error() string { return r.err.Error() }

// handle takes a body, stores what it holds and says so, or refuses.
type handle func(ctx context.Context, door string, body []byte) (message string, err error)

func (in *Intake) door(name string, take handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		// It holds for what net/http reads of a refused body too. Not every
		// ResponseWriter has deadlines; the server's ReadTimeout is left then.
		_ = http.NewResponseController(w).SetReadDeadline(start.Add(in.timeout))
		message, err := in.serve(w, r, name, take)
		status := http.StatusOK
		answer := reply{Status: "accepted", Message: message}
		if err != nil {
			status, answer = in.refuse(w, r, name, err)
		}
		in.metrics.duration.WithLabelValues(name, strconv.Itoa(status)).Observe(time.Since(start).Seconds())
		writeReply(w, status, answer)
	})
}

func (in *Intake) serve(w http.ResponseWriter, r *http.Request, door string, take handle) (string, error) {
	if in.auth != nil {
		if err := in.auth.Check(r.Header.Get("Authorization")); errors.Is(err, ErrUnauthorized) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			return "", &refusal{status: http.StatusUnauthorized, reason: "unauthorized", err: err}
		} else if err != nil {
			in.log.Error("Refusing all requests: the bearer token can't be checked", "err", err)
			return "", &refusal{status: http.StatusServiceUnavailable, reason: "token", retry: 5 * time.Second,
				err: errors.New("the operator can't read its token file; its log says why")}
		}
	}
	if err := acceptable(r); err != nil {
		return "", err
	}
	select {
	case in.slots <- struct{}{}:
		defer func() { <-in.slots }()
	default:
		return "", &refusal{status: http.StatusServiceUnavailable, reason: "busy", retry: time.Second,
			err: fmt.Errorf("%d requests are being served already; try again", cap(in.slots))}
	}
	body, err := in.read(w, r)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(r.Context(), in.timeout)
	defer cancel()
	return take(ctx, door, body)
}

// acceptable looks at what the headers tell.
func acceptable(r *http.Request) error {
	if r.Method != http.MethodPost {
		return &refusal{status: http.StatusMethodNotAllowed, reason: "method",
			err: fmt.Errorf("%s is not served here; POST a JSON event", r.Method)}
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return &refusal{status: http.StatusUnsupportedMediaType, reason: "encoding",
			err: fmt.Errorf("Content-Encoding %.40q is not taken; send the JSON as it is", encoding)}
	}
	sent := r.Header.Get("Content-Type")
	media, params, err := mime.ParseMediaType(sent)
	if charset, ok := params["charset"]; err != nil || media != "application/json" || ok && !strings.EqualFold(charset, "utf-8") {
		return &refusal{status: http.StatusUnsupportedMediaType, reason: "media_type",
			err: fmt.Errorf("Content-Type is %.80q; want application/json in UTF-8", sent)}
	}
	if r.ContentLength > MaxBodyBytes {
		return errTooLarge
	}
	return nil
}

var errTooLarge = &refusal{status: http.StatusRequestEntityTooLarge, reason: "too_large",
	err: fmt.Errorf("the body is larger than %d bytes; send fewer events at once", MaxBodyBytes)}

func (in *Intake) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &refusal{status: http.StatusRequestTimeout, reason: "timeout",
			err: fmt.Errorf("the body did not arrive within %s", in.timeout)}
	case err != nil:
		return nil, &refusal{status: http.StatusBadRequest, reason: "unreadable", err: fmt.Errorf("reading the body: %w", err)}
	}
	// A deadline left behind would cancel the request's context while the sink writes.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, nil
}

func (in *Intake) refuse(w http.ResponseWriter, r *http.Request, door string, err error) (int, reply) {
	no := &refusal{status: http.StatusBadRequest, reason: "invalid", err: err}
	errors.As(err, &no)
	in.metrics.rejected.WithLabelValues(door, no.reason).Inc()
	answer := reply{Status: "error", Message: no.Error()}
	var invalid *signal.InvalidError
	if errors.As(no.err, &invalid) {
		answer.Field = invalid.Field
	}
	if no.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	if no.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(no.retry.Seconds())))
	}
	level := slog.LevelWarn
	if !in.refusals.Allow() { // the metric counts them all
		level = slog.LevelDebug
	}
	in.log.Log(r.Context(), level, "Refused a request", "door", door, "remote", r.RemoteAddr, "status", no.status,
		"reason", no.reason, "field", answer.Field, "err", no.err)
	return no.status, answer
}

func writeReply(w http.ResponseWriter, status int, body reply) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The sender may be gone; there is no one left to tell.
	_ = json.NewEncoder(w).Encode(body)
}

// tally is what became of a batch, by the first error of each kind.
type tally struct {
	stored, invalid, full, failed int
	errInvalid, errFull, errFail  error
}

// store hands valid signals to the sink: those about one container one after
// the other, so that their order holds, and different ones side by side, since each
// takes the sink several round trips. A failing one does not keep the rest from
// being stored: what is stored already does no harm when it is sent again.
func (in *Intake) store(ctx context.Context, door string, signals []signal.Signal, counts []int) tally {
	type container struct{ namespace, pod, name string }
	lines := map[container][]int{}
	for i, s := range signals {
		c := container{s.Namespace, s.Pod, s.Container}
		lines[c] = append(lines[c], i)
	}
	errs := make([]error, len(signals))
	slots := make(chan struct{}, storesPerRequest)
	var wg sync.WaitGroup
	for _, line := range lines {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, i := range line {
				if errs[i] = ctx.Err(); errs[i] == nil {
					errs[i] = in.sink.Accept(ctx, signals[i])
				}
			}
		})
	}
	wg.Wait()
	var t tally
	for i, err := range errs {
		n := 1
		if counts != nil {
			n = counts[i]
		}
		var invalid *signal.InvalidError
		switch {
		case err == nil:
			t.stored += n
		case errors.As(err, &invalid):
			t.invalid, t.errInvalid = t.invalid+n, first(t.errInvalid, err)
		case errors.Is(err, signal.ErrCapacity):
			t.full, t.errFull = t.full+n, first(t.errFull, err)
		default:
			t.failed, t.errFail = t.failed+n, first(t.errFail, err)
		}
	}
	in.metrics.events.WithLabelValues(door, resultStored).Add(float64(t.stored))
	in.metrics.events.WithLabelValues(door, resultInvalid).Add(float64(t.invalid))
	in.metrics.events.WithLabelValues(door, resultCapped).Add(float64(t.full))
	in.metrics.events.WithLabelValues(door, resultFailed).Add(float64(t.failed))
	return t
}

// failure is the answer to a sender when the store is at fault.
func (t tally) failure(total int) error {
	return &refusal{status: http.StatusServiceUnavailable, reason: "store", retry: 5 * time.Second,
		err: fmt.Errorf("%d of %d could not be stored, send the same again: %w", t.failed, total, t.errFail)}
}

func first(old, err error) error {
	if old != nil {
		return old
	}
	return err
}
