package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/page"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// doors serves the exporter's real handlers, with a sample in memory, within bounds
// that do not make a test wait. It returns their address and a channel of handlers that ended.
func doors(t *testing.T, b bounds, registry *prometheus.Registry) (string, <-chan struct{}) {
	t.Helper()
	// What a client does to itself is no error of the exporter's.
	log := slog.New(slog.NewTextHandler(failing{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s := sampler.New(sampler.Config{Log: log})
	landing, err := page.New(t.Context(), page.Config{
		Snapshot: func() *sampler.Snapshot { return ranked("shop", "cart-1", "app") }, MetricsPath: "/metrics", Log: log,
	})
	require.NoError(t, err)
	o := &options{metricsPath: "/metrics", log: log, pprof: true}
	real := o.handler(&parts{sampler: s}, registry, prometheus.Gatherers{}, landing)
	ended := make(chan struct{}, 1000)
	server := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		real.ServeHTTP(w, r)
	}), b, log)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		assert.NoError(t, server.Close())
		assert.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return listener.Addr().String(), ended
}

// failing fails the test with whatever is written.
type failing struct{ t *testing.T }

func (f failing) Write(p []byte) (int, error) {
	f.t.Errorf("logged: %s", p)
	return len(p), nil
}

func dial(t *testing.T, address, send string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	_, err = io.WriteString(conn, send)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	return conn
}

// cutOff holds the exporter to closing the connection, though the client never does,
// and returns what it answered before.
func cutOff(t *testing.T, conn net.Conn) string {
	t.Helper()
	answer, err := io.ReadAll(conn) // a reset is an end, too
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is held for ever")
	return string(answer)
}

func TestDoorsHoldNobodyForEver(t *testing.T) {
	quick := defaultBounds()
	quick.header, quick.request, quick.answer = 200*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	big := prometheus.NewRegistry()
	// More than the kernel's socket buffers take in.
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "big", Help: "Big."}, []string{"l"})
	for i := range 200 {
		vec.WithLabelValues(fmt.Sprint(i, strings.Repeat("x", 100_000))).Set(1)
	}
	big.MustRegister(vec)
	address, ended := doors(t, quick, big)

	t.Run("headers that never end", func(t *testing.T) {
		cutOff(t, dial(t, address, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-A"))
	})
	t.Run("headers without bound", func(t *testing.T) {
		conn := dial(t, address, "GET /metrics HTTP/1.1\r\nHost: x\r\n")
		for range 100 {
			if _, err := fmt.Fprintf(conn, "X-A: %s\r\n", strings.Repeat("a", 1000)); err != nil {
				break // refused already
			}
		}
		if answer := cutOff(t, conn); answer != "" { // a reset may overtake it
			assert.Contains(t, answer, "431")
		}
	})
	t.Run("a body that trickles", func(t *testing.T) {
		conn := dial(t, address, "POST /-/healthy HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
		cutOff(t, conn)
		<-ended
	})
	t.Run("a body without end", func(t *testing.T) {
		conn := dial(t, address, "POST /-/healthy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		sent := 0
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<16, strings.Repeat("a", 1<<16))
		for ; sent < 1<<30; sent += len(chunk) {
			if _, err := io.WriteString(conn, chunk); err != nil {
				break
			}
		}
		assert.Less(t, sent, 64<<20, "it is not read to its end")
		<-ended
	})
	t.Run("an answer that is not read", func(t *testing.T) {
		dial(t, address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			require.Fail(t, "the scrape holds its handler for ever")
		}
	})
}

// The bounds are those of requests; a live view and a profile outlive them.
func TestDoorsLeaveTheLongOnes(t *testing.T) {
	quick := defaultBounds()
	quick.request, quick.answer = 100*time.Millisecond, 100*time.Millisecond
	address, _ := doors(t, quick, prometheus.NewRegistry())
	conn := dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	_, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
	_, err = io.ReadAll(conn)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the view ended")

	began := time.Now()
	resp, err := http.Get("http://" + address + "/debug/pprof/trace?seconds=0.5")
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	assert.Greater(t, time.Since(began), 300*time.Millisecond)
}

func TestScrapesAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	entered, release := make(chan struct{}), make(chan struct{})
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow", Help: "Slow."}, func() float64 {
		entered <- struct{}{}
		<-release
		return 1
	}))
	address, _ := doors(t, defaultBounds(), registry)
	url := "http://" + address + "/metrics"
	answers := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() {
			resp, err := http.Get(url)
			if err != nil {
				answers <- 0
				return
			}
			_ = resp.Body.Close()
			answers <- resp.StatusCode
		}()
		<-entered
	}
	resp, err := http.Get(url)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	close(release)
	for range maxScrapes {
		assert.Equal(t, http.StatusOK, <-answers)
	}
}
