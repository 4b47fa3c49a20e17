package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // what Pixie and Collectors compress with
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// MaxMessageBytes bounds a message, before and after it is decompressed.
const MaxMessageBytes = 4 << 20

// Options of the door; the zero value works.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// TLS, when set, is asked of every connection.
	TLS *tls.Config
	// Auth, when set, is asked before anything of a message is read.
	Auth *intake.Bearer
	// Timeout bounds the storing of one request, and twice of it the whole. Default 10 s.
	Timeout time.Duration
	// Rate is how many requests a second are taken, and Burst how many at once
	// on top; more are asked to come again. Default 100 and 200.
	Rate  rate.Limit
	Burst int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

const (
	writers        = 16 // rows of one request that are stored at once
	maxStreams     = 64 // requests of one connection at once
	retryStore     = 5 * time.Second
	retryRate      = time.Second
	serviceMetrics = "metrics"
	serviceTrace   = "trace"
)

// Server is the door.
type Server struct {
	sink    intake.Sink
	opts    Options
	limit   *rate.Limiter
	seen    *seen
	metrics *metrics
	grpc    *grpc.Server
}

// New makes the door and registers its metrics. It panics, as
// prometheus.MustRegister does, when these are registered already.
func New(sink intake.Sink, opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Rate <= 0 {
		opts.Rate = 100
	}
	if opts.Burst <= 0 {
		opts.Burst = 200
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{
		sink: sink, opts: opts, seen: newSeen(), limit: rate.NewLimiter(opts.Rate, opts.Burst),
		metrics: newMetrics(opts.Registerer),
	}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageBytes), grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(10 * time.Second),
		grpc.MaxHeaderListSize(16 << 10), grpc.InTapHandle(s.admit), grpc.UnaryInterceptor(s.observe),
		// Connections end now and then, so that new replicas get their share.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute}),
	}
	if opts.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	s.grpc = grpc.NewServer(options...)
	collectormetrics.RegisterMetricsServiceServer(s.grpc, metricsService{server: s})
	collectortrace.RegisterTraceServiceServer(s.grpc, traceService{server: s})
	return s
}

// Serve serves until the listener fails or Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil {
		return fmt.Errorf("serving OTLP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown lets requests under way end, as long as ctx lasts.
func (s *Server) Shutdown(ctx context.Context) {
	done := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
	}
}

// admit judges a request by its headers alone, before its message is read.
func (s *Server) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	if err := s.judge(info); err != nil {
		s.metrics.duration.WithLabelValues(serviceOf(info.FullMethodName), status.Code(err).String()).Observe(0)
		return nil, err
	}
	// Its message has to come, and its answer to go, in twice the time of storing.
	timed, cancel := context.WithTimeout(ctx, 2*s.opts.Timeout)
	context.AfterFunc(ctx, cancel)
	return timed, nil
}

func (s *Server) judge(info *tap.Info) error {
	if auth := s.opts.Auth; auth != nil {
		err := auth.Check(strings.Join(info.Header.Get("authorization"), ","))
		switch {
		case errors.Is(err, intake.ErrUnauthorized):
			return status.Error(codes.Unauthenticated, err.Error())
		case err != nil:
			s.opts.Logger.Error("Refusing all OTLP requests: the bearer token can't be checked", "err", err)
			return again(codes.Unavailable, retryStore, "the operator can't read its token file; its log says why")
		}
	}
	if !s.limit.Allow() {
		return again(codes.ResourceExhausted, retryRate, fmt.Sprintf("more than %g requests a second; export less often or in larger batches", float64(s.opts.Rate)))
	}
	return nil
}

// observe times the requests that were admitted.
func (s *Server) observe(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := handle(ctx, req)
	s.metrics.duration.WithLabelValues(serviceOf(info.FullMethod), status.Code(err).String()).Observe(time.Since(start).Seconds())
	return resp, err
}

// serviceOf keeps what a stranger asks for out of the label's values.
func serviceOf(method string) string {
	switch method {
	case "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export":
		return serviceMetrics
	case "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
		return serviceTrace
	}
	return "other"
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	server *Server
}

// Export implements the protocol's MetricsService.
func (m metricsService) Export(ctx context.Context, req *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	rejected, message, err := m.server.take(ctx, serviceMetrics, readMetrics(req.GetResourceMetrics()))
	if err != nil {
		return nil, err
	}
	resp := &collectormetrics.ExportMetricsServiceResponse{}
	if rejected > 0 {
		resp.PartialSuccess = &collectormetrics.ExportMetricsPartialSuccess{RejectedDataPoints: int64(rejected), ErrorMessage: message}
	}
	return resp, nil
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	server *Server
}

// Export implements the protocol's TraceService.
func (t traceService) Export(ctx context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	rejected, message, err := t.server.take(ctx, serviceTrace, readSpans(req.GetResourceSpans()))
	if err != nil {
		return nil, err
	}
	resp := &collectortrace.ExportTraceServiceResponse{}
	if rejected > 0 {
		resp.PartialSuccess = &collectortrace.ExportTracePartialSuccess{RejectedSpans: int64(rejected), ErrorMessage: message}
	}
	return resp, nil
}

// outcome is what became of one row.
type outcome struct {
	row    *row
	result string
	err    error
}

// take stores rows and tells how many points can never be, and why.
func (s *Server) take(ctx context.Context, service string, r *rows) (rejected int, message string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	slices.SortStableFunc(r.all, byTime)
	outcomes := s.store(ctx, r.all)
	var failed int
	var fault error
	for _, o := range outcomes {
		s.metrics.rows.WithLabelValues(o.result).Inc()
		switch o.result {
		case resultFailed:
			failed, fault = failed+1, o.err
		case resultInvalid, resultCapped:
			r.reject(o.row.points, "%s of %s/%s: %v", quote(string(o.row.kind)), quote(o.row.subject.namespace), quote(o.row.subject.pod), o.err)
		}
	}
	s.metrics.rows.WithLabelValues(resultDuplicate).Add(float64(r.repeated))
	s.metrics.rejected.WithLabelValues(service).Add(float64(r.rejected))
	message = strings.Join(r.faults, "; ")
	if r.rejected > 0 {
		s.opts.Logger.Warn("Rejected a part of an OTLP request", "service", service, "rejected", r.rejected, "err", message)
	}
	if failed > 0 {
		s.opts.Logger.Warn("Can't store what came over OTLP; the sender is to try again", "service", service, "failed", failed, "of", len(r.all), "err", fault)
		return 0, "", again(codes.Unavailable, retryStore, fmt.Sprintf("%d of %d could not be stored, send the same again: %v", failed, len(r.all), fault))
	}
	return r.rejected, message, nil
}

// store stores rows, some at once. Rows of one subject keep their order.
func (s *Server) store(ctx context.Context, all []*row) []outcome {
	outcomes := make([]outcome, len(all))
	lines := map[seenKey][]int{}
	for i, r := range all {
		k := seenKey{r.kind, r.subject}
		lines[k] = append(lines[k], i)
	}
	slots := make(chan struct{}, writers)
	var wg sync.WaitGroup
	for _, line := range lines {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, i := range line {
				outcomes[i] = s.one(ctx, all[i])
			}
		})
	}
	wg.Wait()
	return outcomes
}

func (s *Server) one(ctx context.Context, r *row) outcome {
	// The row's own numbers are judged before others stand beside them.
	sig, err := r.signal(s.opts.Now())
	switch {
	case err != nil:
		return outcome{r, resultInvalid, err}
	case sig == nil:
		return outcome{r, resultIgnored, nil}
	case !s.seen.claim(r):
		return outcome{r, resultDuplicate, nil}
	}
	if sig.Values != nil {
		sig.Values = s.seen.beside(r)
	}
	if err = ctx.Err(); err == nil {
		err = s.sink.Accept(ctx, *sig)
	}
	var invalid *signal.InvalidError
	switch {
	case err == nil:
		return outcome{r, resultStored, nil}
	case errors.As(err, &invalid):
		return outcome{r, resultInvalid, err}
	case errors.Is(err, signal.ErrCapacity):
		// Deleting objects makes room, so the next of this time may pass.
		s.seen.release(r)
		return outcome{r, resultCapped, err}
	default:
		s.seen.release(r)
		return outcome{r, resultFailed, err}
	}
}

// again is an answer that the protocol's senders retry after a time.
func again(code codes.Code, after time.Duration, message string) error {
	st := status.New(code, message)
	if detailed, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
		st = detailed
	}
	return st.Err()
}
