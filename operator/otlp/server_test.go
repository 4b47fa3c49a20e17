package otlp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// keeper is a sink that keeps, or fails as told.
type keeper struct {
	mu   sync.Mutex
	kept []signal.Signal
	fail func(signal.Signal) error
}

func (k *keeper) Accept(_ context.Context, s signal.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		if err := k.fail(s); err != nil {
			return err
		}
	}
	k.kept = append(k.kept, s)
	return nil
}

func (k *keeper) all() []signal.Signal {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]signal.Signal{}, k.kept...)
}

// start serves on loopback and returns a connection to it.
func start(t *testing.T, sink intake.Sink, opts Options, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	if opts.Registerer == nil {
		opts.Registerer = prometheus.NewRegistry()
	}
	if opts.Now == nil {
		opts.Now = func() time.Time { return now }
	}
	server := New(sink, opts)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		server.Shutdown(ctx)
		assert.NoError(t, <-ended)
	})
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(creds))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, conn.Close()) })
	return conn
}

func request(metrics ...*metricspb.Metric) *collectormetrics.ExportMetricsServiceRequest {
	return &collectormetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{resource(web(), metrics...)}}
}

// retryAfter is the RetryInfo of an error; zero when it has none.
func retryAfter(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func TestExport(t *testing.T) {
	k, registry := &keeper{}, prometheus.NewRegistry()
	conn := start(t, k, Options{Registerer: registry}, nil)
	client := collectormetrics.NewMetricsServiceClient(conn)

	// Compressed as Pixie does.
	resp, err := client.Export(t.Context(), request(
		gauge("kernel_gossip.network_issue.drops", 3, then),
		gauge("kernel_gossip.network_issue.rx_errors", 1, then),
		gauge("kernel_gossip.memory_pressure.major_faults", 0, then),
		gauge("kernel_gossip.cpu_throttle.throttle_percentage", 192, then),
		gauge("process.cpu.time", 1, then),
	), grpc.UseCompressor(gzip.Name))
	require.NoError(t, err)
	assert.EqualValues(t, 2, resp.GetPartialSuccess().GetRejectedDataPoints())
	assert.Contains(t, resp.GetPartialSuccess().GetErrorMessage(), `metric "process.cpu.time"`)
	assert.Contains(t, resp.GetPartialSuccess().GetErrorMessage(), "throttle_percentage: must be between 0 and 100")
	require.Len(t, k.all(), 1)
	assert.Equal(t, map[string]float64{"drops": 3, "rx_errors": 1}, k.all()[0].Values)

	// Windows overlap: the same row once more beside a newer one.
	resp, err = client.Export(t.Context(), request(
		gauge("kernel_gossip.network_issue.drops", 3, then), gauge("kernel_gossip.network_issue.rx_errors", 1, then),
		gauge("kernel_gossip.network_issue.drops", 5, then+30), gauge("kernel_gossip.network_issue.rx_errors", 1, then+30)))
	require.NoError(t, err)
	assert.Nil(t, resp.GetPartialSuccess(), "a repeated row is a success")
	require.Len(t, k.all(), 2)
	assert.Equal(t, 5.0, k.all()[1].Values["drops"])
	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP kernel_gossip_operator_otlp_rows_total Rows, that is the numbers of one subject and time, and events that came over OTLP, by what became of them.
# TYPE kernel_gossip_operator_otlp_rows_total counter
kernel_gossip_operator_otlp_rows_total{result="capped"} 0
kernel_gossip_operator_otlp_rows_total{result="duplicate"} 1
kernel_gossip_operator_otlp_rows_total{result="failed"} 0
kernel_gossip_operator_otlp_rows_total{result="ignored"} 1
kernel_gossip_operator_otlp_rows_total{result="invalid"} 1
kernel_gossip_operator_otlp_rows_total{result="stored"} 2
`), "kernel_gossip_operator_otlp_rows_total"))
}

func TestExportTrace(t *testing.T) {
	k := &keeper{}
	client := collectortrace.NewTraceServiceClient(start(t, k, Options{}, nil))
	resp, err := client.Export(t.Context(), &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: attributes(web()...)},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
			{Name: "kernel_gossip.security_event.exec", EndTimeUnixNano: then + 1},
			{Name: "kernel_gossip.security_event.exec", EndTimeUnixNano: then},
			{Name: "GET /", EndTimeUnixNano: then},
		}}},
	}}})
	require.NoError(t, err)
	assert.EqualValues(t, 1, resp.GetPartialSuccess().GetRejectedSpans())
	require.Len(t, k.all(), 2)
	assert.True(t, k.all()[0].Observed.Before(k.all()[1].Observed), "in the order in which they happened")
}

func TestAStoreThatFailsIsTriedAgain(t *testing.T) {
	k := &keeper{fail: func(s signal.Signal) error {
		if s.Type == signal.NetworkIssue {
			return errors.New("the API server is away")
		}
		return nil
	}}
	client := collectormetrics.NewMetricsServiceClient(start(t, k, Options{}, nil))
	req := request(gauge("kernel_gossip.network_issue.drops", 3, then), gauge("kernel_gossip.memory_pressure.major_faults", 9, then))
	_, err := client.Export(t.Context(), req)
	assert.Equal(t, codes.Unavailable, status.Code(err), err)
	assert.Equal(t, retryStore, retryAfter(err))
	assert.ErrorContains(t, err, "1 of 2 could not be stored, send the same again: the API server is away")
	k.mu.Lock()
	k.fail = nil
	k.mu.Unlock()
	_, err = client.Export(t.Context(), req)
	require.NoError(t, err)
	assert.Len(t, k.all(), 2, "what was stored the first time is not stored twice")
}

func TestACapIsRejectedForGood(t *testing.T) {
	k := &keeper{fail: func(signal.Signal) error { return signal.ErrCapacity }}
	client := collectormetrics.NewMetricsServiceClient(start(t, k, Options{}, nil))
	resp, err := client.Export(t.Context(), request(gauge("kernel_gossip.network_issue.drops", 3, then)))
	require.NoError(t, err)
	assert.EqualValues(t, 1, resp.GetPartialSuccess().GetRejectedDataPoints())
}

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("s3cret\n"), 0o600))
	bearer, err := intake.NewBearer(path)
	require.NoError(t, err)
	k := &keeper{}
	client := collectormetrics.NewMetricsServiceClient(start(t, k, Options{Auth: bearer}, nil))
	req := request(gauge("kernel_gossip.network_issue.drops", 3, then))
	for _, header := range []string{"", "Bearer wrong", "Basic s3cret", "s3cret"} {
		ctx := t.Context()
		if header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
		}
		_, err := client.Export(ctx, req)
		assert.Equal(t, codes.Unauthenticated, status.Code(err), "%q: %v", header, err)
	}
	assert.Empty(t, k.all())
	_, err = client.Export(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer s3cret"), req)
	require.NoError(t, err)
	assert.Len(t, k.all(), 1)

	require.NoError(t, os.Remove(path))
	_, err = client.Export(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer s3cret"), req)
	assert.Equal(t, codes.Unavailable, status.Code(err), err)
	assert.NotContains(t, err.Error(), path, "a stranger learns no path")
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	server := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}

	k := &keeper{}
	req := request(gauge("kernel_gossip.network_issue.drops", 3, then))
	conn := start(t, k, Options{TLS: server}, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}))
	_, err = collectormetrics.NewMetricsServiceClient(conn).Export(t.Context(), req)
	require.NoError(t, err)
	assert.Len(t, k.all(), 1)

	for name, creds := range map[string]credentials.TransportCredentials{
		"plain text":     insecure.NewCredentials(),
		"another CA":     credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}),
		"too old a TLS":  credentials.NewTLS(&tls.Config{MaxVersion: tls.VersionTLS11, RootCAs: pool}), //nolint:gosec // that is the point
		"another's name": credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: "example.com"}),
	} {
		stranger, err := grpc.NewClient(conn.Target(), grpc.WithTransportCredentials(creds))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = collectormetrics.NewMetricsServiceClient(stranger).Export(ctx, req)
		cancel()
		require.NoError(t, stranger.Close())
		assert.Error(t, err, name)
	}
	assert.Len(t, k.all(), 1)
}

func TestOversized(t *testing.T) {
	k := &keeper{}
	client := collectormetrics.NewMetricsServiceClient(start(t, k, Options{}, nil))
	big := request(gauge("kernel_gossip.network_issue.drops", 3, then, "padding", strings.Repeat("x", MaxMessageBytes)))
	_, err := client.Export(t.Context(), big)
	assert.Equal(t, codes.ResourceExhausted, status.Code(err), err)
	assert.Zero(t, retryAfter(err), "sending the same again does not help")
	// 4 MiB of one letter are 4 KiB of gzip.
	_, err = client.Export(t.Context(), big, grpc.UseCompressor(gzip.Name))
	assert.Equal(t, codes.ResourceExhausted, status.Code(err), err)
	assert.Empty(t, k.all())
}

func TestMalformed(t *testing.T) {
	k := &keeper{}
	conn := start(t, k, Options{}, nil)
	// A message whose bytes are no ExportMetricsServiceRequest.
	junk := &emptypb.Empty{}
	junk.ProtoReflect().SetUnknown([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x01})
	err := conn.Invoke(t.Context(), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", junk, &emptypb.Empty{})
	assert.Equal(t, codes.Internal, status.Code(err), err)
	assert.Zero(t, retryAfter(err))
	err = conn.Invoke(t.Context(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export", &emptypb.Empty{}, &emptypb.Empty{})
	assert.Equal(t, codes.Unimplemented, status.Code(err), err)
	assert.Empty(t, k.all())
}

func TestRate(t *testing.T) {
	client := collectormetrics.NewMetricsServiceClient(start(t, &keeper{}, Options{Rate: 1e-9, Burst: 2}, nil))
	for range 2 {
		_, err := client.Export(t.Context(), request())
		require.NoError(t, err)
	}
	_, err := client.Export(t.Context(), request())
	assert.Equal(t, codes.ResourceExhausted, status.Code(err), err)
	assert.Equal(t, retryRate, retryAfter(err), "with RetryInfo senders try again")
}

// A message that is begun and never ended is given up, and others are served meanwhile.
func TestASlowMessageIsCutOff(t *testing.T) {
	k := &keeper{}
	conn := start(t, k, Options{Timeout: 100 * time.Millisecond}, nil)
	stalled, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
	require.NoError(t, err)
	_, err = collectormetrics.NewMetricsServiceClient(conn).Export(t.Context(), request(gauge("kernel_gossip.network_issue.drops", 3, then)))
	require.NoError(t, err)
	assert.Len(t, k.all(), 1)
	ended := make(chan error, 1)
	go func() { ended <- stalled.RecvMsg(&emptypb.Empty{}) }()
	select {
	case err := <-ended:
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err), err)
	case <-time.After(30 * time.Second):
		require.Fail(t, "the request is held for ever")
	}
}

// What speaks no HTTP/2 does not keep the door.
func TestStrangersAtTheDoor(t *testing.T) {
	conn := start(t, &keeper{}, Options{}, nil)
	for name, send := range map[string]string{"HTTP/1": "POST / HTTP/1.1\r\nHost: x\r\n\r\n", "noise": strings.Repeat("\x00\xff", 4096)} {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", conn.Target())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, _ = c.Write([]byte(send)) // closed already is as good
		require.NoError(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
		_, err = io.Copy(io.Discard, c)
		assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, name)
	}
	_, err := collectormetrics.NewMetricsServiceClient(conn).Export(t.Context(), request(gauge("kernel_gossip.network_issue.drops", 3, then)))
	require.NoError(t, err)
}
