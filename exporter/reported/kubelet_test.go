package reported

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

var quiet = slog.New(slog.DiscardHandler)

var appKey = Key{PodUID: "not told by the kubelet", Namespace: app.namespace, Pod: app.pod, Container: app.container}

// secured is a TLS kubelet that wants a bearer token.
func secured(t *testing.T, token *atomic.Value, h http.HandlerFunc) (server *httptest.Server, caFile string) {
	t.Helper()
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != kubeletPath || r.Method != http.MethodGet {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		switch r.Header.Get("Authorization") {
		case "Bearer " + token.Load().(string):
			h(w, r)
		case "":
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		default:
			http.Error(w, "Forbidden (user=system:serviceaccount:kernel-gossip:exporter, verb=get, resource=nodes, subresource(s)=[metrics])", http.StatusForbidden)
		}
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return server, caFile
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func answer(cpu float64, at, start int64) string {
	labels := `{container="app",namespace="shop",pod="web-7c9d8b6f5-x2k4q"}`
	return fmt.Sprintf("# TYPE %s counter\n%s%s %g %d\n# TYPE %s gauge\n%s%s %d\n", metricCPU, metricCPU, labels, cpu, at*1000, metricStart, metricStart, labels, start)
}

func TestKubeletOverTLSWithARotatedToken(t *testing.T) {
	var token atomic.Value
	token.Store("first")
	var polls atomic.Int64
	server, ca := secured(t, &token, func(w http.ResponseWriter, _ *http.Request) {
		n := polls.Add(1)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = io.WriteString(w, answer(10+7.2*float64(n), 1795132800+15*n, 1795000000))
	})
	tokenFile := filepath.Join(t.TempDir(), "token")
	write(t, tokenFile, "first\n")
	k, err := NewKubelet(KubeletConfig{URL: server.URL + "/", TokenFile: tokenFile, CAFile: ca, Log: quiet})
	require.NoError(t, err)

	require.NoError(t, k.poll(t.Context()))
	_, ok := k.Usage(appKey)
	assert.False(t, ok, "one point is no figure")
	require.NoError(t, k.poll(t.Context()))
	u, ok := k.Usage(appKey)
	require.True(t, ok)
	assert.InDelta(t, 0.48, u.Cores, 1e-9)
	assert.Equal(t, Usage{Source: SourceKubelet, Cores: u.Cores, At: time.Unix(1795132830, 0), Window: 15 * time.Second}, u)

	token.Store("second")
	err = k.poll(t.Context())
	var pe pollError
	require.ErrorAs(t, err, &pe)
	assert.Equal(t, "denied", pe.reason)
	require.ErrorContains(t, err, "verb get on nodes/metrics")
	again, ok := k.Usage(appKey)
	assert.True(t, ok)
	assert.Equal(t, u, again, "a failed poll leaves the figure, and its time tells its age")

	write(t, tokenFile, "second\n")
	require.NoError(t, k.poll(t.Context()))
	_, ok = k.Usage(appKey)
	assert.True(t, ok)

	_, ok = k.Usage(Key{Namespace: "shop", Pod: "other", Container: "app"})
	assert.False(t, ok)
	later := time.Now().Add(maxSilence*Resolution + time.Second)
	k.now = func() time.Time { return later }
	_, ok = k.Usage(appKey)
	assert.False(t, ok, "a kubelet silent for a minute reports nothing")
}

func TestKubeletCertificate(t *testing.T) {
	var token atomic.Value
	token.Store("t")
	server, _ := secured(t, &token, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer(1, 1, 1)) })
	tokenFile := filepath.Join(t.TempDir(), "token")
	write(t, tokenFile, "t")

	k, err := NewKubelet(KubeletConfig{URL: server.URL, TokenFile: tokenFile, Log: quiet})
	require.NoError(t, err)
	require.ErrorContains(t, k.poll(t.Context()), "certificate")

	k, err = NewKubelet(KubeletConfig{URL: server.URL, TokenFile: tokenFile, InsecureSkipVerify: true, Log: quiet})
	require.NoError(t, err)
	require.NoError(t, k.poll(t.Context()))
}

// A serving certificate that ran out is told as such, and its successor is taken
// without a restart; so is a kubelet that is down and comes back.
func TestKubeletCertificateExpires(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	issue := func(until time.Time) tls.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	expired := issue(time.Now().Add(-time.Hour))
	var current atomic.Pointer[tls.Certificate]
	current.Store(&expired)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer(1, 1, 1)) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*current.Load()}}, nil
	}}
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	authority := func(certs ...tls.Certificate) {
		var out []byte
		for _, c := range certs {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
		}
		require.NoError(t, os.WriteFile(ca, out, 0o600))
	}
	valid := issue(time.Now().Add(time.Hour))
	authority(expired, valid)
	k, err := NewKubelet(KubeletConfig{URL: server.URL, CAFile: ca, Log: quiet})
	require.NoError(t, err)
	var pe pollError
	err = k.poll(t.Context())
	require.ErrorAs(t, err, &pe)
	assert.Equal(t, "request", pe.reason)
	require.ErrorContains(t, err, "certificate has expired")

	current.Store(&valid)
	require.NoError(t, k.poll(t.Context()), "the kubelet rotated it")

	address := server.Listener.Addr().String()
	server.CloseClientConnections()
	server.Close()
	err = k.poll(t.Context())
	require.ErrorAs(t, err, &pe)
	assert.Equal(t, "request", pe.reason)
	require.ErrorContains(t, err, "connection refused")
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	again := httptest.NewUnstartedServer(server.Config.Handler)
	require.NoError(t, again.Listener.Close())
	again.Listener, again.TLS = listener, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{valid}}
	again.StartTLS()
	defer again.Close()
	require.NoError(t, k.poll(t.Context()), "it is back")
}

func TestKubeletThatMisbehaves(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("followed a redirect, with authorization %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	const limit = 64 << 10
	huge := answer(1, 1, 1) + strings.Repeat("node_cpu_usage_seconds_total 1 1\n", limit/32)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := io.WriteString(z, strings.Repeat("# "+strings.Repeat("a", 1021)+"\n", 10<<10)) // 10 MiB in some KB
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.Less(t, bomb.Len(), limit)

	for _, tc := range []struct {
		name, reason, message string
		serve                 http.HandlerFunc
	}{
		{"fails", "status", "500", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }},
		{"redirects", "status", "302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }},
		{"is a login page", "parse", "text format", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>\n") }},
		{"is huge", "too_large", "over 65536 bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, huge) }},
		// Compression is not asked for and never undone, so there is nothing to blow up.
		{"is a bomb", "parse", "text format", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}},
		{"hangs", "request", "deadline", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"trickles", "request", "deadline", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "# a\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}},
		{"breaks off", "request", "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, answer(1, 1, 1))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(tc.serve)
			defer server.Close()
			k, err := NewKubelet(KubeletConfig{URL: server.URL, Timeout: 200 * time.Millisecond, MaxBodyBytes: limit, Log: quiet})
			require.NoError(t, err)
			err = k.poll(t.Context())
			var pe pollError
			require.ErrorAs(t, err, &pe)
			assert.Equal(t, tc.reason, pe.reason, err)
			assert.Contains(t, pollResults(), pe.reason)
			require.ErrorContains(t, err, tc.message)
			_, ok := k.Usage(appKey)
			assert.False(t, ok)
		})
	}
}

func TestKubeletRunCountsAndRecovers(t *testing.T) {
	var fail atomic.Bool
	fail.Store(true)
	served := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if fail.Load() {
			http.Error(w, "starting", http.StatusServiceUnavailable)
		} else {
			_, _ = io.WriteString(w, answer(1, 1, 1)+metricCPU+`{container="x"} NaN`+"\n")
		}
		served <- struct{}{}
	}))
	defer server.Close()
	var out bytes.Buffer
	k, err := NewKubelet(KubeletConfig{URL: server.URL, Interval: time.Second, Log: slog.New(slog.NewTextHandler(&out, nil))})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	<-served
	<-served
	fail.Store(false)
	<-served
	require.Eventually(t, func() bool { return testutil.ToFloat64(k.polls.outcomes.WithLabelValues(resultSuccess)) >= 1 }, 5*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	assert.InDelta(t, 2, testutil.ToFloat64(k.polls.outcomes.WithLabelValues("status")), 0)
	assert.GreaterOrEqual(t, testutil.ToFloat64(k.polls.invalid), 1.0)
	assert.Equal(t, 1, strings.Count(out.String(), "level=ERROR"), "one line for one cause: %s", out.String())
	assert.Equal(t, 1, strings.Count(out.String(), "is back"), out.String())
	// Every reason and the invalid points have a series from the start.
	assert.Equal(t, len(pollResults())+1, testutil.CollectAndCount(k))
	problems, err := testutil.CollectAndLint(k)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestKubeletResolvesAgainAfterAFailure(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer(1, 1, 1)) }))
	defer server.Close()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	answers := []func() (string, error){
		func() (string, error) { return "", errors.New("nodes is forbidden") },
		func() (string, error) { return dead.URL, nil },
		func() (string, error) { return server.URL, nil },
	}
	asked := 0
	k, err := NewKubelet(KubeletConfig{Log: quiet, Resolve: func(context.Context) (string, error) {
		asked++
		return answers[asked-1]()
	}})
	require.NoError(t, err)
	var pe pollError
	require.ErrorAs(t, k.poll(t.Context()), &pe)
	assert.Equal(t, "resolve", pe.reason)
	require.ErrorAs(t, k.poll(t.Context()), &pe)
	assert.Equal(t, "request", pe.reason)
	require.NoError(t, k.poll(t.Context()))
	require.NoError(t, k.poll(t.Context()))
	assert.Equal(t, 3, asked, "an address that works is kept")
}

func TestNewKubeletRefuses(t *testing.T) {
	for _, tc := range []struct {
		cfg  KubeletConfig
		want string
	}{
		{KubeletConfig{}, "--kubelet.url"},
		{KubeletConfig{URL: "10.0.0.7:10250"}, "--kubelet.url"},
		{KubeletConfig{URL: "ftp://user:hidden@host"}, "https://host:port"},
		{KubeletConfig{URL: "https://h", Interval: time.Millisecond}, "at least 1s"},
		{KubeletConfig{URL: "https://h", CAFile: "testdata/kubelet-1.36.prom"}, "CA"},
	} {
		tc.cfg.Log = quiet
		_, err := NewKubelet(tc.cfg)
		require.ErrorContains(t, err, tc.want)
		assert.NotContains(t, err.Error(), "hidden")
	}
}

func TestNodeURL(t *testing.T) {
	node := func(port int32, addresses ...corev1.NodeAddress) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}}
		n.Status.Addresses = addresses
		n.Status.DaemonEndpoints.KubeletEndpoint.Port = port
		return n
	}
	a := func(kind corev1.NodeAddressType, v string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: kind, Address: v}
	}
	for _, tc := range []struct {
		name string
		node *corev1.Node
		want string
		err  string
	}{
		{"internal first", node(10250, a(corev1.NodeHostName, "worker"), a(corev1.NodeExternalIP, "1.2.3.4"), a(corev1.NodeInternalIP, "10.0.0.7")), "https://10.0.0.7:10250", ""},
		{"IPv6, own port", node(12345, a(corev1.NodeInternalIP, "fd00::7")), "https://[fd00::7]:12345", ""},
		{"no port told", node(0, a(corev1.NodeHostName, "worker")), "https://worker:10250", ""},
		{"no address", node(0), "", "--kubelet.url"},
		{"no node", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, "", "verb get on nodes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := NodeURL(fake.NewClientset(tc.node).CoreV1().Nodes(), "worker")(t.Context())
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}
