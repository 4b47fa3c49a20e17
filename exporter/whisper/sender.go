package whisper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	defaultPath = "/webhook/ebpf"
	// DefaultCapacity has room for each container of a node several times over: the
	// kubelet's own limits are 110 pods, or 500 on the largest nodes. One event is
	// about 1 KiB, so a full queue is about 4 MiB.
	DefaultCapacity = 4096
	// DefaultBatch events in one request are about a tenth of the operator's 1 MiB limit.
	DefaultBatch = 100

	// maxWait bounds Retry-After: no answer may silence the exporter for longer.
	maxWait = 5 * time.Minute
	// deferRefused is when an event is tried again that the operator has no room for.
	deferRefused = time.Minute
	// repeatError is how often a lasting failure is logged.
	repeatError = 5 * time.Minute
	// quoteLimit is how much of an answer is read.
	quoteLimit = 4 << 10
)

// SenderConfig says where events go, and how hard to try. Zero values are defaults.
type SenderConfig struct {
	// URL of the operator; without a path /webhook/ebpf is meant.
	URL string
	// TokenFile holds the bearer token; it is read for each request. Empty: none is sent.
	TokenFile string
	// CAFile verifies the operator's certificate (re-read when it changes); empty: the
	// system's roots. InsecureSkipVerify turns verification off.
	CAFile             string
	InsecureSkipVerify bool
	// Capacity of the queue in containers, Batch in events.
	Capacity, Batch int
	// Timeout of one request (default 15 s: the operator gives up storing after 10 s and says so).
	Timeout time.Duration
	// MinBackoff (default 250 ms) doubles with each failure up to MaxBackoff (default 15 s).
	MinBackoff, MaxBackoff time.Duration
	// Flush is how long Run goes on after its context ended (default 5 s).
	Flush time.Duration
	Log   *slog.Logger
}

// Sender delivers events to the operator, at least once until it answers 2xx, in
// order for each container. It is safe for concurrent use.
//
// An answer of 4xx says that the event can never be taken: a batch is then sent
// again one by one, so that only the bad event is lost, and that is logged with the
// field that the operator names. 401, 403, 404, 408 and 425 are about the way and
// not the event, and are retried like 5xx. 429 with a Retry-After silences the
// Sender for that long; without, it is about the one event, which is tried again
// each minute while the others go on.
type Sender struct {
	cfg     SenderConfig
	url     string
	name    string // the URL without a password
	log     *slog.Logger
	client  *http.Client
	queue   *queue
	metrics *metrics

	// Of Run alone:
	batch    int // events in a request; shrinks when they fail
	failures int // in a row
	logged   time.Time
	capped   cappedEvents
}

// cappedEvents are those that the operator had no room for since it was last told.
type cappedEvents struct {
	n      int
	last   *item
	answer string
	logged time.Time
}

var _ prometheus.Collector = (*Sender)(nil)

// NewSender checks cfg; nothing is sent before Run.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("--whisper.url: %w", err)
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("--whisper.url %q is not of the form http://host:port", u.Redacted())
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = defaultPath
	}
	setDefault(&cfg.Capacity, DefaultCapacity)
	setDefault(&cfg.Batch, DefaultBatch)
	setDefault(&cfg.Timeout, 15*time.Second)
	setDefault(&cfg.MinBackoff, 250*time.Millisecond)
	setDefault(&cfg.MaxBackoff, 15*time.Second)
	setDefault(&cfg.Flush, 5*time.Second)
	if cfg.Capacity < 0 || cfg.Batch < 0 || cfg.Timeout < 0 || cfg.MinBackoff < 0 || cfg.MaxBackoff < cfg.MinBackoff || cfg.Flush < 0 {
		return nil, errors.New("whisper sender: capacity, batch, timeout, backoff and flush must be positive, and the longest backoff at least the shortest")
	}
	hc := promconfig.HTTPClientConfig{
		TLSConfig:   promconfig.TLSConfig{CAFile: cfg.CAFile, InsecureSkipVerify: cfg.InsecureSkipVerify},
		EnableHTTP2: true,
		// A redirect would carry the token elsewhere.
		FollowRedirects: false,
	}
	if cfg.TokenFile != "" {
		hc.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: cfg.TokenFile}
	}
	client, err := promconfig.NewClientFromConfig(hc, "whisper", promconfig.WithUserAgent("kernel-gossip-exporter"))
	if err != nil {
		return nil, fmt.Errorf("whisper sender: setting up the HTTP client: %w", err)
	}
	q := newQueue(cfg.Capacity)
	return &Sender{
		cfg:     cfg,
		url:     u.String(),
		name:    u.Redacted(),
		log:     cfg.Log.With("component", "whisper", "url", u.Redacted()),
		client:  client,
		queue:   q,
		metrics: newMetrics(q),
		batch:   cfg.Batch,
	}, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Enqueue takes events for delivery. It never waits: a container's older event
// gives way to its newer one of the same type, and a full queue drops the oldest, counted.
func (s *Sender) Enqueue(events ...wire.Event) {
	if len(events) == 0 {
		return
	}
	superseded, overflowed := s.queue.put(events)
	s.metrics.superseded(superseded)
	s.metrics.drop(dropQueueFull, overflowed)
}

// Events are events of one type, as Enqueue takes them.
func Events[T wire.Event](of []T) []wire.Event {
	events := make([]wire.Event, len(of))
	for i := range of {
		events[i] = of[i]
	}
	return events
}

// QueueLength is the number of events that wait.
func (s *Sender) QueueLength() int { return s.queue.len() }

// Describe implements prometheus.Collector.
func (s *Sender) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (s *Sender) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.metrics.all() {
		c.Collect(ch)
	}
}

// Run delivers until ctx ends, then for at most Flush more while something is left.
// It returns nil, and may be called once.
func (s *Sender) Run(ctx context.Context) error {
	// Requests outlive ctx by Flush.
	flush, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(s.cfg.Flush, stop)
		context.AfterFunc(flush, func() { timer.Stop() })
	})()
	defer s.client.CloseIdleConnections()

	for flush.Err() == nil {
		items, next := s.queue.take(time.Now(), s.batch)
		if len(items) == 0 {
			if ctx.Err() != nil {
				break // nothing left that is due
			}
			s.idle(ctx, next)
			continue
		}
		if wait := s.deliver(flush, items); wait > 0 {
			s.pause(ctx, flush, wait)
		}
	}
	if left := s.queue.drain(); left > 0 {
		s.metrics.drop(dropShutdown, left)
		s.log.Warn("stopping with events undelivered", "events", left)
	}
	return nil
}

// idle waits for something to take.
func (s *Sender) idle(ctx context.Context, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-s.queue.wake:
	case <-due:
	}
}

// pause waits out a backoff. The end of ctx cuts it short once: the flush begins
// with a try of its own, and then waits at most a second between tries.
func (s *Sender) pause(ctx, flush context.Context, wait time.Duration) {
	running := ctx.Done()
	if ctx.Err() != nil {
		running, wait = nil, min(wait, time.Second)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-running:
	case <-flush.Done():
	case <-timer.C:
	}
}

// deliver sends items, one by one if they are refused together, and returns how
// long to wait before the next try: 0 after success. What is to be tried again is
// back in the queue then.
func (s *Sender) deliver(ctx context.Context, items []*item) (wait time.Duration) {
	defer s.tellCapped()
	err := s.post(ctx, items)
	switch {
	case err == nil:
		s.delivered(items)
		s.batch = min(2*s.batch, s.cfg.Batch)
		return 0
	case err.retry:
		// Perhaps there were too many for the time that a request may take.
		s.batch = max(s.batch/2, 1)
		return s.retry(err, items)
	case len(items) == 1:
		s.refused(err, items[0])
		return 0
	}
	for i := range items {
		err := s.post(ctx, items[i:i+1])
		switch {
		case err == nil:
			s.delivered(items[i : i+1])
		case err.retry:
			return s.retry(err, items[i:])
		default:
			s.refused(err, items[i])
		}
	}
	return 0
}

func (s *Sender) delivered(items []*item) {
	s.metrics.events.WithLabelValues(resultDelivered).Add(float64(len(items)))
	for _, it := range items {
		s.metrics.duration.Observe(time.Since(it.event.About().Timestamp).Seconds())
	}
	if s.failures > 0 {
		s.log.Info("the operator takes events again", "failures", s.failures)
		s.failures, s.logged = 0, time.Time{}
	}
}

func (s *Sender) retry(err *sendError, items []*item) time.Duration {
	s.back(items)
	s.failures++
	if time.Since(s.logged) >= repeatError {
		s.logged = time.Now()
		s.log.Warn("the operator does not take events; they are kept and tried again", "err", err, "queued", s.queue.len())
	}
	// Full jitter in the upper half: never at once, never in step with other nodes.
	backoff := s.cfg.MinBackoff << min(s.failures-1, 16)
	backoff = min(backoff, s.cfg.MaxBackoff)
	backoff = backoff/2 + time.Duration(rand.Int64N(int64(backoff)/2+1))
	return max(backoff, min(err.after, maxWait))
}

func (s *Sender) refused(err *sendError, it *item) {
	if err.status == http.StatusTooManyRequests {
		it.notBefore = time.Now().Add(deferRefused)
		s.back([]*item{it})
		s.capped.n, s.capped.last, s.capped.answer = s.capped.n+1, it, err.message
		return
	}
	s.metrics.drop(dropRejected, 1)
	s.log.Error("the operator refuses an event for good; it is dropped", "status", err.status,
		"field", err.field, "answer", err.message,
		"namespace", it.target.Namespace, "pod", it.target.Pod, "container", it.target.Container)
}

// tellCapped logs one line for a series of refusals: at its first, and while it lasts
// what came since, every repeatError.
func (s *Sender) tellCapped() {
	c := &s.capped
	if c.n == 0 || time.Since(c.logged) < repeatError {
		return
	}
	s.log.Warn("the operator has no room for events; they are kept and tried again: raise its --whisper.max-per-namespace or --whisper.max",
		"refusals", c.n, "again_in", deferRefused, "answer", c.answer,
		"namespace", c.last.target.Namespace, "pod", c.last.target.Pod, "container", c.last.target.Container)
	*c = cappedEvents{logged: time.Now()}
}

func (s *Sender) back(items []*item) {
	superseded, overflowed := s.queue.putBack(items)
	s.metrics.superseded(superseded)
	s.metrics.drop(dropQueueFull, overflowed)
}

// sendError is a request that did not end in 2xx.
type sendError struct {
	retry   bool
	after   time.Duration // the answer's Retry-After
	status  int           // 0: no answer
	field   string        // that the operator names
	message string
}

func (e *sendError) Error() string {
	if e.status == 0 {
		return e.message
	}
	return fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.message)
}

func (s *Sender) post(ctx context.Context, items []*item) *sendError {
	err := s.request(ctx, items)
	outcome := requestOK
	if err != nil {
		outcome = requestRejected
		if err.retry {
			outcome = requestRetry
		}
	}
	s.metrics.requests.WithLabelValues(outcome).Inc()
	return err
}

func (s *Sender) request(ctx context.Context, items []*item) *sendError {
	events := make([]wire.Event, len(items))
	for i, it := range items {
		events[i] = it.event
	}
	body, err := json.Marshal(events)
	if err != nil { // a NaN: no operator will ever take it
		return &sendError{message: fmt.Sprintf("encoding events: %v", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return &sendError{retry: true, message: fmt.Sprintf("making a request to %s: %v", s.name, err)}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return &sendError{retry: true, message: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }()
	// The status alone decides; the body only tells a person why.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, quoteLimit))
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	e := &sendError{status: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"), time.Now()), message: string(text)}
	var answer struct{ Message, Field string }
	if json.Unmarshal(text, &answer) == nil && answer.Message != "" {
		e.message, e.field = answer.Message, answer.Field
	}
	switch c := resp.StatusCode; c {
	case http.StatusTooManyRequests:
		e.retry = e.after > 0
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusRequestTimeout, http.StatusTooEarly:
		e.retry = true
	default:
		e.retry = c < 400 || c >= 500
	}
	return e
}

// retryAfter reads the header's two forms (RFC 9110, 10.2.3): seconds or a date. 0 is none.
func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
