package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// rows are of the form of px run -o json: see the package's doc. The third script
// prints the same pod with other columns.
const rows = `{"_tableName_":"memory_pressure","time_":"2026-03-01T12:00:00.123456789+01:00","pod":"shop/cache-0","container":"redis","node":"node-1","major_faults":812,"rss_bytes":1073741824,"period_seconds":29.98}
{"_tableName_":"network_issue","time_":"2026-03-01T12:00:01Z","pod":"shop/cache-0","rx_drops":41,"tx_drops":0}

{"_tableName_":"network_issue","time_":"2026-03-01T12:00:01Z","pod":"shop/cache-0","tcp_retransmits":3}
{"_tableName_":"security_event","time_":"2026-03-01T12:00:02Z","pod":"shop/web-0","container":1,"filename":"/bin/sh","shell_exec":1}
{"_tableName_":"cpu_reported","time_":"2026-03-01T12:00:03Z","pod":"shop/web-0","container":"app","reported_cpu_usage":0.31,"period_seconds":29.9}
{"_tableName_":"pod_creation","time_":"2026-03-01T12:00:04Z","pod":"shop/new-0","total_syscalls":847,"namespace_ops":1,"cgroup_writes":12,"duration_ns":183000000}
`

// keeper is a sink that keeps; it is called from several requests' writers at once.
type keeper struct {
	mu   sync.Mutex
	kept []signal.Signal
	fail int // as many times
}

func (k *keeper) of(kind signal.Type, value string) signal.Signal {
	for _, s := range k.kept {
		if _, has := s.Values[value]; s.Type == kind && (value == "" || has) {
			return s
		}
	}
	return signal.Signal{}
}

func (k *keeper) Accept(_ context.Context, s signal.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail > 0 {
		k.fail--
		return errors.New("the API server is away")
	}
	k.kept = append(k.kept, s)
	return nil
}

// operator is the real webhook before a sink that keeps.
func operator(t *testing.T, k *keeper, auth *intake.Bearer) string {
	t.Helper()
	server := httptest.NewServer(intake.New(k, intake.Options{Auth: auth, Now: func() time.Time { return time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC) }}).Handler())
	t.Cleanup(server.Close)
	return server.URL
}

func atOnce(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func run(t *testing.T, c Config, input string) (Result, error) {
	t.Helper()
	if c.Wait == nil {
		c.Wait = atOnce
	}
	b, err := New(c)
	require.NoError(t, err)
	return b.Run(t.Context(), strings.NewReader(input))
}

func TestRowsArrive(t *testing.T) {
	k := &keeper{}
	result, err := run(t, Config{URL: operator(t, k, nil)}, rows)
	require.NoError(t, err)
	assert.Equal(t, Result{Sent: 6}, result)
	require.Len(t, k.kept, 6)
	memory := k.of(signal.MemoryPressure, "")
	assert.Equal(t, signal.Signal{Type: signal.MemoryPressure, Source: signal.SourcePixie, Once: true, Namespace: "shop", Pod: "cache-0", Container: "redis",
		Node: "node-1", Observed: time.Date(2026, 3, 1, 11, 0, 0, 123456789, time.UTC),
		Values: map[string]float64{"major_faults": 812, "rss_bytes": 1 << 30, "period_seconds": 29.98}}, memory)
	assert.Equal(t, "1", k.of(signal.SecurityEvent, "shell_exec").Container, "px prints it as a number")
	assert.Equal(t, map[string]float64{"rx_drops": 41, "tx_drops": 0}, k.of(signal.NetworkIssue, "rx_drops").Values)
	assert.Equal(t, map[string]float64{"tcp_retransmits": 3}, k.of(signal.NetworkIssue, "tcp_retransmits").Values)
	require.NotNil(t, k.of(signal.CPUReported, "").Reported)
	assert.Equal(t, 0.31, k.of(signal.CPUReported, "").Reported.Cores)
	require.NotNil(t, k.of(signal.PodCreation, "").Creation)
	assert.EqualValues(t, 847, k.of(signal.PodCreation, "").Creation.TotalSyscalls)
}

func TestAStoreThatFailsIsTriedAgain(t *testing.T) {
	k := &keeper{fail: 3}
	result, err := run(t, Config{URL: operator(t, k, nil)}, rows)
	require.NoError(t, err)
	assert.Equal(t, 6, result.Sent)
	assert.GreaterOrEqual(t, len(k.kept), 6)
}

func TestResume(t *testing.T) {
	k, path := &keeper{}, filepath.Join(t.TempDir(), "state")
	url := operator(t, k, nil)
	half := strings.Join(strings.SplitAfter(rows, "\n")[:3], "")
	result, err := run(t, Config{URL: url, StateFile: path}, half)
	require.NoError(t, err)
	assert.Equal(t, Result{Sent: 2}, result)
	result, err = run(t, Config{URL: url, StateFile: path}, rows)
	require.NoError(t, err)
	assert.Equal(t, Result{Sent: 4, Skipped: 2}, result)
	assert.Len(t, k.kept, 6, "each row arrived once")
	// An older row of a subject that comes later is no repetition.
	result, err = run(t, Config{URL: url, StateFile: path}, `{"_tableName_":"network_issue","time_":"2026-03-01T11:59:00Z","pod":"shop/cache-0","tcp_retransmits":1}`)
	require.NoError(t, err)
	assert.Equal(t, Result{Sent: 1}, result)

	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = New(Config{URL: url, StateFile: path})
	assert.ErrorContains(t, err, "delete it to send everything again")
}

func TestABrokenRunGoesOn(t *testing.T) {
	k, path := &keeper{}, filepath.Join(t.TempDir(), "state")
	var many strings.Builder
	for i := range 250 {
		line, err := json.Marshal(map[string]any{"_tableName_": "network_issue", "time_": time.Unix(int64(1772366400+i), 0).UTC(), "pod": "shop/p" + string(rune('a'+i%26)), "drops": 1})
		require.NoError(t, err)
		many.Write(append(line, '\n'))
	}
	inner := intake.New(k, intake.Options{Now: func() time.Time { return time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC) }}).Handler()
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 2 {
			panic(http.ErrAbortHandler) // the operator dies under the second batch
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	b, err := New(Config{URL: server.URL, StateFile: path, Patience: time.Nanosecond})
	require.NoError(t, err)
	result, err := b.Run(t.Context(), strings.NewReader(many.String()))
	require.ErrorContains(t, err, "gave up after")
	assert.Equal(t, 100, result.Sent)
	result, err = run(t, Config{URL: server.URL, StateFile: path}, many.String())
	require.NoError(t, err)
	assert.Equal(t, Result{Sent: 150, Skipped: 100}, result)
	assert.Len(t, k.kept, 250)
}

func TestBadRowsDoNotHoldTheOthers(t *testing.T) {
	k := &keeper{}
	result, err := run(t, Config{URL: operator(t, k, nil)}, `not json
null
{"_tableName_":"network_issue","time_":"2026-03-01T12:00:00Z","pod":"no-namespace","drops":1}
{"_tableName_":"network_issue","time_":"yesterday","pod":"shop/a","drops":1}
{"time_":"2026-03-01T12:00:00Z","pod":"shop/a","drops":1}
{"_tableName_":"http_errors","time_":"2026-03-01T12:00:00Z","pod":"shop/a","drops":1}
{"_tableName_":"network_issue","time_":"2026-03-01T12:00:00Z","pod":"shop/a","drops":1}
{"_tableName_":"network_issue","time_":"2026-03-01T12:00:00Z","pod":"shop/A_","drops":1}
`)
	require.NoError(t, err)
	assert.Equal(t, Result{Sent: 1, Invalid: 5, Refused: 2}, result)
	assert.Len(t, k.kept, 1)
}

func TestAWrongTokenEndsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("s3cret"), 0o600))
	bearer, err := intake.NewBearer(path)
	require.NoError(t, err)
	k := &keeper{}
	url := operator(t, k, bearer)
	_, err = run(t, Config{URL: url, Token: "guess"}, rows)
	require.ErrorContains(t, err, "401 Unauthorized")
	result, err := run(t, Config{URL: url, Token: "s3cret"}, rows)
	require.NoError(t, err)
	assert.Equal(t, 6, result.Sent)
}

func TestNew(t *testing.T) {
	for _, url := range []string{"", "localhost:8080", "ftp://x", "http://", "http://a b"} {
		_, err := New(Config{URL: url})
		assert.Error(t, err, url)
	}
}

// FuzzRead: a line that is read makes an event that is JSON.
func FuzzRead(f *testing.F) {
	for line := range strings.SplitSeq(rows, "\n") {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := read(line)
		if err != nil {
			return
		}
		require.False(t, r.time.IsZero() && r.key == "")
		_, err = json.Marshal(r.event)
		require.NoError(t, err)
	})
}
