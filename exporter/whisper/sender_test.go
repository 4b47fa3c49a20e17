package whisper

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// operator answers requests and keeps what it took. It is an http.Handler and,
// for tests on a fake clock, an http.RoundTripper.
type operator struct {
	answer func(n int, events []wire.CPUThrottle) (status int, header http.Header, body string)

	mu       sync.Mutex
	requests [][]wire.CPUThrottle
	at       []time.Time
	taken    []wire.CPUThrottle
}

func (o *operator) take(body io.Reader) (int, http.Header, string) {
	var events []wire.CPUThrottle
	if err := json.NewDecoder(body).Decode(&events); err != nil {
		return http.StatusBadRequest, nil, err.Error()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.requests)
	o.requests, o.at = append(o.requests, events), append(o.at, time.Now())
	status, header, text := http.StatusOK, http.Header{}, `{"status":"accepted"}`
	if o.answer != nil {
		status, header, text = o.answer(n, events)
	}
	if status == http.StatusOK {
		o.taken = append(o.taken, events...)
	}
	return status, header, text
}

func (o *operator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, header, text := o.take(r.Body)
	for k, v := range header {
		w.Header()[k] = v
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func (o *operator) RoundTrip(r *http.Request) (*http.Response, error) {
	status, header, text := o.take(r.Body)
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// pods lists what was taken, as pod=percentage.
func (o *operator) pods() (out []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.taken {
		out = append(out, fmt.Sprintf("%s=%g", e.PodName, e.ThrottlePercentage))
	}
	return out
}

func newSender(t *testing.T, cfg SenderConfig) *Sender {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.URL == "" {
		cfg.URL = "http://operator.test"
	}
	s, err := NewSender(cfg)
	require.NoError(t, err)
	return s
}

// onFakeClock returns a Sender that talks to o without a network.
func onFakeClock(t *testing.T, cfg SenderConfig, o *operator) *Sender {
	t.Helper()
	s := newSender(t, cfg)
	s.client = &http.Client{Transport: o}
	return s
}

// start runs s; the returned function ends and awaits it.
func start(t *testing.T, s *Sender) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			assert.NoError(t, <-done)
		})
	}
	t.Cleanup(end)
	return end
}

func outcomes(s *Sender) map[string]int {
	out := map[string]int{}
	for _, r := range []string{resultDelivered, resultSuperseded, resultDropped} {
		out[r] = int(testutil.ToFloat64(s.metrics.events.WithLabelValues(r)))
	}
	return out
}

func TestSenderBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &operator{}
		s := onFakeClock(t, SenderConfig{Batch: 40}, o)
		end := start(t, s)
		var events []wire.CPUThrottle
		for i := range 100 {
			events = append(events, event(fmt.Sprint("p", i), 90))
		}
		s.Enqueue(Events(events)...)
		synctest.Wait() // no time passes on the fake clock: all of it leaves at once
		assert.Len(t, o.pods(), 100)
		assert.Len(t, o.requests, 3)
		s.Enqueue(event("p0", 95))
		synctest.Wait()
		assert.Len(t, o.pods(), 101)
		end()
		assert.Equal(t, map[string]int{resultDelivered: 101, resultSuperseded: 0, resultDropped: 0}, outcomes(s))
	})
}

func TestSenderBacksOffAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		statuses := []int{0, 500, 502, 503, 401, 403, 404, 408, 425, 302, 504}
		o := &operator{answer: func(n int, _ []wire.CPUThrottle) (int, http.Header, string) {
			if n < len(statuses) {
				return statuses[n], nil, ""
			}
			return http.StatusOK, nil, ""
		}}
		s := onFakeClock(t, SenderConfig{Log: slog.New(slog.NewTextHandler(&log, nil))}, o)
		end := start(t, s)
		s.Enqueue(event("a", 90), event("b", 80))
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		assert.ElementsMatch(t, []string{"a=90", "b=80"}, o.pods())
		// Each wait lies in the upper half of the doubling backoff.
		for i, backoff := range []time.Duration{250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000, 15000} {
			backoff *= time.Millisecond
			wait := o.at[i+1].Sub(o.at[i])
			assert.GreaterOrEqual(t, wait, backoff/2, "wait %d", i)
			assert.LessOrEqual(t, wait, backoff, "wait %d", i)
		}
		end()
		assert.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
		assert.Contains(t, log.String(), "connection refused")
		assert.Equal(t, 1, strings.Count(log.String(), "takes events again"))
		assert.InDelta(t, len(statuses), testutil.ToFloat64(s.metrics.requests.WithLabelValues(requestRetry)), 0)
	})
}

func TestSenderHonoursRetryAfter(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		header func() string
		least  time.Duration
		most   time.Duration
	}{
		{"seconds", 503, func() string { return "42" }, 42 * time.Second, 42 * time.Second},
		{"date", 429, func() string { return time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat) }, 89 * time.Second, 90 * time.Second},
		{"for ever is bounded", 503, func() string { return "2000000000" }, maxWait, maxWait},
		{"in the past", 503, func() string { return "Fri, 02 Jan 1998 15:04:05 GMT" }, time.Millisecond, 250 * time.Millisecond},
		{"nonsense", 503, func() string { return "soon" }, time.Millisecond, 250 * time.Millisecond},
		{"negative", 503, func() string { return "-5" }, time.Millisecond, 250 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &operator{answer: func(n int, _ []wire.CPUThrottle) (int, http.Header, string) {
					if n == 0 {
						return tc.status, http.Header{"Retry-After": {tc.header()}}, ""
					}
					return http.StatusOK, nil, ""
				}}
				s := onFakeClock(t, SenderConfig{}, o)
				end := start(t, s)
				s.Enqueue(event("a", 90))
				time.Sleep(2 * maxWait)
				synctest.Wait()
				require.Len(t, o.at, 2)
				wait := o.at[1].Sub(o.at[0])
				assert.GreaterOrEqual(t, wait, tc.least)
				assert.LessOrEqual(t, wait, tc.most)
				end()
			})
		})
	}
}

func TestSenderLosesOnlyTheEventThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := &operator{answer: func(_ int, events []wire.CPUThrottle) (int, http.Header, string) {
			if slices.ContainsFunc(events, func(e wire.CPUThrottle) bool { return e.PodName == "bad" }) {
				return http.StatusBadRequest, nil, `{"status":"error","message":"pod_name: is not a name","field":"pod_name"}`
			}
			return http.StatusOK, nil, ""
		}}
		s := onFakeClock(t, SenderConfig{Log: slog.New(slog.NewTextHandler(&log, nil))}, o)
		end := start(t, s)
		s.Enqueue(event("a", 1), event("bad", 2), event("c", 3))
		synctest.Wait()
		assert.Equal(t, []string{"a=1", "c=3"}, o.pods())
		assert.Len(t, o.requests, 4)
		end()
		assert.Equal(t, map[string]int{resultDelivered: 2, resultSuperseded: 0, resultDropped: 1}, outcomes(s))
		assert.InDelta(t, 1, testutil.ToFloat64(s.metrics.dropped.WithLabelValues(dropRejected)), 0)
		assert.Contains(t, log.String(), "field=pod_name")
		assert.Contains(t, log.String(), "pod=bad")
	})
}

// The operator's cap on objects is about one event: the others must not wait for it.
func TestSenderSetsAsideWhatTheOperatorHasNoRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		full.Store(true)
		o := &operator{answer: func(_ int, events []wire.CPUThrottle) (int, http.Header, string) {
			if full.Load() && slices.ContainsFunc(events, func(e wire.CPUThrottle) bool { return e.PodName == "capped" }) {
				return http.StatusTooManyRequests, nil, `{"message":"the cap on objects is reached"}`
			}
			return http.StatusOK, nil, ""
		}}
		s := onFakeClock(t, SenderConfig{}, o)
		end := start(t, s)
		s.Enqueue(event("capped", 1), event("b", 2))
		synctest.Wait()
		assert.Equal(t, []string{"b=2"}, o.pods())
		s.Enqueue(event("c", 3))
		synctest.Wait()
		assert.Equal(t, []string{"b=2", "c=3"}, o.pods(), "later ones go at once")
		full.Store(false)
		time.Sleep(deferRefused)
		synctest.Wait()
		assert.Equal(t, []string{"b=2", "c=3", "capped=1"}, o.pods())
		end()
	})
}

// A cap that lasts is one line each five minutes, not one for each event and minute.
func TestSenderTellsACapOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := &operator{answer: func(int, []wire.CPUThrottle) (int, http.Header, string) {
			return http.StatusTooManyRequests, nil, `{"message":"the cap on objects is reached"}`
		}}
		s := onFakeClock(t, SenderConfig{Batch: 10, Log: slog.New(slog.NewJSONHandler(&log, nil))}, o)
		end := start(t, s)
		var events []wire.CPUThrottle
		for i := range 25 {
			events = append(events, event(fmt.Sprintf("capped-%d", i), 60))
		}
		s.Enqueue(Events(events)...)
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		end()

		var refusals []float64
		for line := range strings.Lines(log.String()) {
			var entry map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &entry))
			if n, ok := entry["refusals"].(float64); ok {
				assert.Equal(t, "the cap on objects is reached", entry["answer"])
				assert.Contains(t, entry["pod"], "capped-")
				refusals = append(refusals, n)
			}
		}
		// Told after 10 of the first minute's 25, then what 5 minutes brought each.
		require.Len(t, refusals, 3, "%s", log.String())
		assert.EqualValues(t, 10, refusals[0])
		assert.EqualValues(t, 5*25, refusals[1])
		assert.EqualValues(t, 5*25, refusals[2])
	})
}

func TestSenderNewestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &operator{answer: func(n int, _ []wire.CPUThrottle) (int, http.Header, string) {
			if n == 0 {
				return http.StatusServiceUnavailable, nil, ""
			}
			return http.StatusOK, nil, ""
		}}
		s := onFakeClock(t, SenderConfig{}, o)
		end := start(t, s)
		s.Enqueue(event("a", 60))
		synctest.Wait() // refused, and waiting
		s.Enqueue(event("a", 80))
		resolved := event("a", 0)
		resolved.Resolved = true
		s.Enqueue(resolved)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"a=0"}, o.pods())
		assert.True(t, o.taken[0].Resolved)
		end()
		assert.Equal(t, map[string]int{resultDelivered: 1, resultSuperseded: 2, resultDropped: 0}, outcomes(s))
	})
}

// A batch that takes the operator longer than a request may last shrinks until it fits.
func TestSenderShrinksWhatIsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &operator{answer: func(_ int, events []wire.CPUThrottle) (int, http.Header, string) {
			if len(events) > 10 {
				return http.StatusServiceUnavailable, nil, ""
			}
			return http.StatusOK, nil, ""
		}}
		s := onFakeClock(t, SenderConfig{}, o)
		end := start(t, s)
		for i := range 100 {
			s.Enqueue(event(fmt.Sprint("p", i), 90))
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		assert.Len(t, o.pods(), 100)
		end()
	})
}

func TestDeadOperatorNeverSlowsTheExporter(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close() // an address that refuses
	s := newSender(t, SenderConfig{URL: server.URL, Capacity: 100, Flush: 50 * time.Millisecond})
	end := start(t, s)
	const rounds, containers = 100, 200
	events := make([]wire.CPUThrottle, containers)
	for i := range events {
		events[i] = event(fmt.Sprint("p", i), 90)
	}
	began := time.Now()
	for range rounds {
		s.Enqueue(Events(events)...)
		assert.LessOrEqual(t, s.QueueLength(), 100)
	}
	assert.Less(t, time.Since(began), 2*time.Second, "20,000 events into a queue that nobody empties")
	end()
	assert.Zero(t, s.QueueLength())
	got := outcomes(s)
	assert.Equal(t, rounds*containers, got[resultSuperseded]+got[resultDropped], "each event is accounted for: %v", got)
	assert.Zero(t, got[resultDelivered])
	byReason := 0
	for _, r := range []string{dropQueueFull, dropRejected, dropShutdown} {
		byReason += int(testutil.ToFloat64(s.metrics.dropped.WithLabelValues(r)))
	}
	assert.Equal(t, got[resultDropped], byReason)
	assert.Positive(t, testutil.ToFloat64(s.metrics.dropped.WithLabelValues(dropShutdown)))
}

func TestSenderShutdown(t *testing.T) {
	t.Run("delivers what is left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := &operator{answer: func(n int, _ []wire.CPUThrottle) (int, http.Header, string) {
				if n < 8 {
					return 0, nil, ""
				}
				return http.StatusOK, nil, ""
			}}
			s := onFakeClock(t, SenderConfig{}, o)
			end := start(t, s)
			s.Enqueue(event("a", 90))
			time.Sleep(10 * time.Second) // deep in a backoff of seconds
			end()
			assert.Equal(t, []string{"a=90"}, o.pods())
		})
	})
	t.Run("gives up in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := &operator{answer: func(int, []wire.CPUThrottle) (int, http.Header, string) { return 0, nil, "" }}
			s := onFakeClock(t, SenderConfig{Flush: 3 * time.Second}, o)
			end := start(t, s)
			s.Enqueue(event("a", 90))
			synctest.Wait()
			began := time.Now()
			end()
			assert.LessOrEqual(t, time.Since(began), 3*time.Second)
			assert.InDelta(t, 1, testutil.ToFloat64(s.metrics.dropped.WithLabelValues(dropShutdown)), 0)
		})
	})
	t.Run("an answer that never comes is not waited for", func(t *testing.T) {
		hang := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
		defer server.Close()
		defer close(hang)
		s := newSender(t, SenderConfig{URL: server.URL, Flush: 100 * time.Millisecond})
		end := start(t, s)
		s.Enqueue(event("a", 90))
		require.Eventually(t, func() bool { return s.QueueLength() == 0 }, 5*time.Second, time.Millisecond)
		began := time.Now()
		end()
		assert.Less(t, time.Since(began), 5*time.Second)
		assert.Equal(t, 1, outcomes(s)[resultDropped])
	})
}

func TestSenderTLSAndToken(t *testing.T) {
	var mu sync.Mutex
	want := "Bearer first"
	o := &operator{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Authorization") != want || r.URL.Path != defaultPath || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		o.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	require.NoError(t, os.WriteFile(token, []byte("first\n"), 0o600))

	s := newSender(t, SenderConfig{URL: server.URL, TokenFile: token, CAFile: ca, MaxBackoff: 250 * time.Millisecond})
	start(t, s)
	s.Enqueue(event("a", 1))
	require.Eventually(t, func() bool { return len(o.pods()) == 1 }, 10*time.Second, time.Millisecond)

	mu.Lock()
	want = "Bearer second"
	mu.Unlock()
	s.Enqueue(event("b", 2))
	require.Eventually(t, func() bool { return testutil.ToFloat64(s.metrics.requests.WithLabelValues(requestRetry)) >= 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, os.WriteFile(token, []byte("second"), 0o600))
	require.Eventually(t, func() bool { return len(o.pods()) == 2 }, 10*time.Second, time.Millisecond)

	untrusting := newSender(t, SenderConfig{URL: server.URL, TokenFile: token})
	failure := untrusting.post(t.Context(), []*item{{event: event("c", 3)}})
	require.NotNil(t, failure)
	assert.True(t, failure.retry)
	assert.Contains(t, failure.Error(), "certificate")
}

func TestSenderFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("followed, with authorization %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	s := newSender(t, SenderConfig{URL: server.URL})
	failure := s.post(t.Context(), []*item{{event: event("a", 1)}})
	require.NotNil(t, failure)
	assert.True(t, failure.retry)
	assert.Equal(t, http.StatusTemporaryRedirect, failure.status)
}

func TestNewSenderRefuses(t *testing.T) {
	for _, tc := range []struct {
		cfg  SenderConfig
		want string
	}{
		{SenderConfig{}, "http://host:port"},
		{SenderConfig{URL: "operator:8080"}, "http://host:port"},
		{SenderConfig{URL: "http://user:hidden@/"}, "http://host:port"},
		{SenderConfig{URL: "http://h", Capacity: -1}, "must be positive"},
		{SenderConfig{URL: "http://h", MinBackoff: time.Hour}, "longest backoff"},
		{SenderConfig{URL: "http://h", CAFile: "sender.go"}, "CA"},
	} {
		_, err := NewSender(tc.cfg)
		require.ErrorContains(t, err, tc.want)
		assert.NotContains(t, err.Error(), "hidden")
	}
	s := newSender(t, SenderConfig{URL: "http://h:1/own/path"})
	assert.Equal(t, "http://h:1/own/path", s.url)
}

func TestSenderMetrics(t *testing.T) {
	s := newSender(t, SenderConfig{})
	s.Enqueue(event("a", 1), event("a", 2), event("b", 3))
	require.NoError(t, testutil.CollectAndCompare(s, strings.NewReader(`
# HELP kernel_gossip_whisper_events_total Events for the operator by what finally became of them: delivered, superseded by a newer one of the same container, or dropped.
# TYPE kernel_gossip_whisper_events_total counter
kernel_gossip_whisper_events_total{result="delivered"} 0
kernel_gossip_whisper_events_total{result="dropped"} 0
kernel_gossip_whisper_events_total{result="superseded"} 1
# HELP kernel_gossip_whisper_queue_length Containers with an event that waits for delivery.
# TYPE kernel_gossip_whisper_queue_length gauge
kernel_gossip_whisper_queue_length 2
# HELP kernel_gossip_whisper_queue_capacity Containers that the queue has room for.
# TYPE kernel_gossip_whisper_queue_capacity gauge
kernel_gossip_whisper_queue_capacity 4096
`), "kernel_gossip_whisper_events_total", "kernel_gossip_whisper_queue_length", "kernel_gossip_whisper_queue_capacity"))
	problems, err := testutil.CollectAndLint(s)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{"", "5", "-1", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 02 Jan 2006 15:04:05 GMT"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if d := retryAfter(v, time.Unix(1795132800, 0)); d < 0 {
			t.Fatalf("%q gives %s", v, d)
		}
		if n, err := strconv.Atoi(v); err == nil && n > 0 && n < 1000 && v[0] != '+' {
			if d := retryAfter(v, time.Now()); d != time.Duration(n)*time.Second {
				t.Fatalf("%q gives %s", v, d)
			}
		}
	})
}
