package intake

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sink keeps what it accepts; answer, when set, decides.
type sink struct {
	mu     sync.Mutex
	got    []signal.Signal
	answer func(ctx context.Context, s signal.Signal) error
}

func (k *sink) Accept(ctx context.Context, s signal.Signal) error {
	if err := s.Validate(now); err != nil {
		panic("an invalid signal came through: " + err.Error())
	}
	if k.answer != nil {
		if err := k.answer(ctx, s); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, s)
	return nil
}

// byPod is what came in, of pods in the order of their names: different containers
// are stored side by side.
func (k *sink) byPod() []signal.Signal {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedStableFunc(slices.Values(k.got), func(a, b signal.Signal) int { return strings.Compare(a.Pod, b.Pod) })
}

type bed struct {
	*sink
	registry *prometheus.Registry
	log      *bytes.Buffer
	handler  http.Handler
}

func newBed(opts Options) *bed {
	b := &bed{sink: &sink{}, registry: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	opts.Registerer, opts.Now = b.registry, func() time.Time { return now }
	opts.Logger = slog.New(slog.NewJSONHandler(b.log, nil))
	b.handler = New(b.sink, opts).Handler()
	return b
}

func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func (b *bed) do(t *testing.T, r *http.Request) (int, reply, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	var answer reply
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
	assert.Equal(t, w.Code == http.StatusOK, answer.Status == "accepted")
	assert.NotEmpty(t, answer.Message)
	return w.Code, answer, w.Header()
}

func (b *bed) post(t *testing.T, path, body string) (int, reply) {
	t.Helper()
	code, answer, _ := b.do(t, request(path, body))
	return code, answer
}

func (b *bed) count(t *testing.T, metric string, labels ...string) float64 {
	t.Helper()
	families, err := b.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
	next:
		for _, m := range family.GetMetric() {
			for _, want := range labels {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName()+"="+l.GetValue() == want
				}
				if !found {
					continue next
				}
			}
			return m.GetCounter().GetValue()
		}
	}
	return 0
}

const (
	eventsTotal   = "kernel_gossip_operator_intake_events_total"
	rejectedTotal = "kernel_gossip_operator_intake_rejected_total"
)

const live = `{"type":"cpu_throttle","pod_name":"live-demo","namespace":"kernel-gossip","container_name":"app","throttle_percentage":78.5,"actual_cpu_usage":1.5,"reported_cpu_usage":0.6,"period_seconds":60,"timestamp":"2025-08-25T11:00:00Z"}`

func TestHostile(t *testing.T) {
	event := func(field, value string) string {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(live), &fields); err != nil {
			t.Fatal(err)
		}
		if value == "" {
			delete(fields, field)
		} else {
			fields[field] = json.RawMessage(value)
		}
		body, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for name, c := range map[string]struct {
		body   string
		status int
		field  string
		says   string
	}{
		"empty":                 {"", 400, "", "not JSON"},
		"not JSON":              {"pod=live-demo", 400, "", "not JSON"},
		"null":                  {"null", 400, "", "want an object, got null"},
		"a string":              {`"cpu_throttle"`, 400, "", "want an object, got a string"},
		"cut off":               {live[:60], 400, "", "unexpected end"},
		"trailing garbage":      {live + "x", 400, "", "invalid character 'x' after"},
		"two values":            {live + live, 400, "", "invalid character '{' after"},
		"a comma too many":      {strings.Replace(live, `"}`, `",}`, 1), 400, "", "not JSON"},
		"invalid UTF-8":         {strings.Replace(live, "app", "a\xffp", 1), 400, "", "not UTF-8"},
		"UTF-16":                {"\xff\xfe{\x00}\x00", 400, "", "not UTF-8"},
		"byte order mark":       {"\ufeff" + live, 400, "", "not JSON"},
		"deep arrays":           {strings.Repeat("[", 500_000), 400, "", "not JSON"},
		"deep, closed":          {strings.Repeat("[", 40) + strings.Repeat("]", 40), 400, strings.Repeat("[0]", 32), "nested more than 32 deep"},
		"deeper than a reader":  {strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), 400, "", "depth"},
		"duplicate key":         {`{"namespace":"safe",` + live[1:], 400, "namespace", "given twice"},
		"duplicate, nested":     {`[{"cpu_throttle":{"pod_name":"a","pod_name":"b"}}]`, 400, "[0].cpu_throttle.pod_name", "given twice"},
		"duplicate by escape":   {`{"n\u0061mespace":"safe",` + live[1:], 400, "namespace", "given twice"},
		"keys match by case":    {strings.Replace(live, "pod_name", "Pod_Name", 1), 400, "pod_name", "is required"},
		"empty array":           {"[]", 400, "", "want 1 to 1000 events"},
		"too many":              {"[" + strings.Repeat("{},", 1000) + "{}]", 400, "", "want 1 to 1000 events"},
		"array of arrays":       {"[[]]", 400, "[0]", "want an object, got an array"},
		"no type":               {event("type", ""), 400, "type", "cpu_throttle"},
		"unknown type":          {event("type", `"gossip"`), 400, "type", "unknown type"},
		"type of a wrong type":  {event("type", `7`), 400, "type", "want a string, got a number"},
		"wrapped twice":         {`{"cpu_throttle":{},"pod_creation":{}}`, 400, "type", "got 2"},
		"wrapped, no object":    {`{"cpu_throttle":[]}`, 400, "cpu_throttle", "want an object, got an array"},
		"wrapped, empty":        {`{"cpu_throttle":{}}`, 400, "cpu_throttle.throttle_percentage", "is required"},
		"no pod":                {event("pod_name", ""), 400, "pod_name", "is required"},
		"null pod":              {event("pod_name", "null"), 400, "pod_name", "is required"},
		"pod is a number":       {event("pod_name", "7"), 400, "pod_name", "want a string, got a number"},
		"path in the pod":       {event("pod_name", `"../../../etc/cron.d/x"`), 400, "pod_name", "not a valid name"},
		"path in the namespace": {event("namespace", `".."`), 400, "namespace", "not a valid name"},
		"escaped path":          {event("namespace", `"\u002e\u002e\u002f"`), 400, "namespace", "not a valid name"},
		"NUL in the container":  {event("container_name", `"app\u0000"`), 400, "container_name", "not a valid name"},
		"lone surrogate":        {event("container_name", `"\ud800"`), 400, "container_name", "not a valid name"},
		"newline in the node":   {event("node_name", `"a\nlevel=error"`), 400, "node_name", "not a valid name"},
		"a huge name":           {event("pod_name", `"`+strings.Repeat("a", 100_000)+`"`), 400, "pod_name", "not a valid name"},
		"no percentage":         {event("throttle_percentage", ""), 400, "throttle_percentage", "is required"},
		"percentage as text":    {event("throttle_percentage", `"78.5"`), 400, "throttle_percentage", "want a number, got a string"},
		"percentage over 100":   {event("throttle_percentage", `140`), 400, "throttle_percentage", "between 0 and 100"},
		"percentage below 0":    {event("throttle_percentage", `-1`), 400, "throttle_percentage", "between 0 and 100"},
		"NaN":                   {strings.Replace(live, "78.5", "NaN", 1), 400, "", "not JSON"},
		"Infinity":              {strings.Replace(live, "78.5", "Infinity", 1), 400, "", "not JSON"},
		"beyond a float":        {event("actual_cpu_usage", `1e999`), 400, "actual_cpu_usage", "out of range"},
		"beyond any machine":    {event("actual_cpu_usage", `1e9`), 400, "actual_cpu_usage", "between 0 and 8192"},
		"throttle_ns fraction":  {event("throttle_ns", `1.5`), 400, "throttle_ns", "whole number"},
		"throttle_ns too large": {event("throttle_ns", `18446744073709551616`), 400, "throttle_ns", "whole number"},
		"flag as text":          {event("resolved", `"yes"`), 400, "resolved", "want true or false, got a string"},
		"no timestamp":          {event("timestamp", ""), 400, "timestamp", "is required"},
		"timestamp as number":   {event("timestamp", `1756119600`), 400, "timestamp", "want a string, got a number"},
		"timestamp, no zone":    {event("timestamp", `"2025-08-25T11:00:00"`), 400, "timestamp", "want RFC 3339"},
		"timestamp of tomorrow": {event("timestamp", `"2026-03-02T12:00:00Z"`), 400, "timestamp", "in the future"},
		"whatif is an object":   {event("whatif", `{}`), 400, "whatif", "want an array, got an object"},
		"whatif of numbers":     {event("whatif", `[1]`), 400, "whatif[0]", "want an object, got a number"},
		"whatif incomplete":     {event("whatif", `[{"limit_cores":1}]`), 400, "whatif[0].throttle_ratio", "is required"},
		"whatif endless":        {event("whatif", "["+strings.Repeat(`{},`, 5000)+"{}]"), 400, "whatif", "at most 32"},
		"prediction of text":    {event("prediction", `"sure"`), 400, "prediction", "want an object, got a string"},
		"prediction incomplete": {event("prediction", `{"outcome":"predicted"}`), 400, "prediction.periods", "is required"},
		"prediction unknown":    {event("prediction", `{"outcome":"maybe","periods":1,"window_seconds":1,"throttle_ratio":1}`), 400, "prediction.outcome", "want predicted"},
		"check incomplete":      {event("prediction", `{"outcome":"predicted","periods":1,"window_seconds":1,"throttle_ratio":1,"check":{"cpu_limit":1}}`), 400, "prediction.check.from_cpu_limit", "is required"},
		"qos class":             {event("qos_class", `"gold"`), 400, "qos_class", "want Guaranteed"},
		"the second is bad":     {"[" + live + "," + event("namespace", `"A"`) + "]", 400, "[1].namespace", "not a valid name"},
		"oversized":             {strings.Repeat(" ", MaxBodyBytes) + live, 413, "", "larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{})
			code, answer := b.post(t, PathPixie, c.body)
			assert.Equal(t, c.status, code, answer.Message)
			assert.Equal(t, c.field, answer.Field, answer.Message)
			assert.Contains(t, answer.Message, c.says)
			assert.Less(t, len(answer.Message), 500, "an answer is no place for what was sent")
			assert.Empty(t, b.got, "nothing is written")
			assert.NotEmpty(t, b.log.String())

			// The other door reads with the same care.
			if c.status == 413 {
				code, _ = b.post(t, PathAlertmanager, c.body)
				assert.Equal(t, c.status, code)
			}
		})
	}
}

func TestOversizedWithoutLength(t *testing.T) {
	b := newBed(Options{})
	r := request(PathPixie, "")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat(" ", MaxBodyBytes+1))), -1
	code, _, _ := b.do(t, r)
	assert.Equal(t, http.StatusRequestEntityTooLarge, code)
	assert.InDelta(t, 1, b.count(t, rejectedTotal, "door=pixie", "reason=too_large"), 0)
}

func TestExactlyTheLimitIsTaken(t *testing.T) {
	b := newBed(Options{})
	code, answer := b.post(t, PathPixie, live+strings.Repeat(" ", MaxBodyBytes-len(live)))
	assert.Equal(t, http.StatusOK, code, answer.Message)
}

func TestLongKeysCostNothing(t *testing.T) {
	body := `{"` + strings.Repeat("k", 400_000) + `":[` + strings.Repeat("{},", 150_000) + `{}],"x":1,"x":2}`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := parse([]byte(body))
	runtime.ReadMemStats(&after)
	require.Error(t, err)
	// The key beside each of the elements would be 60 GB.
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30), "paths are put together for errors only")
}

func TestHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
		says   string
	}{
		"with charset":       {func(r *http.Request) { r.Header.Set("Content-Type", `application/json; charset="UTF-8"`) }, 200, ""},
		"with parameters":    {func(r *http.Request) { r.Header.Set("Content-Type", "application/json;v=1") }, 200, ""},
		"identity":           {func(r *http.Request) { r.Header.Set("Content-Encoding", "identity") }, 200, ""},
		"wrong charset":      {func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=latin1") }, 415, "want application/json in UTF-8"},
		"no type":            {func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "want application/json"},
		"curl's default":     {func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "application/x-www-form-urlencoded"},
		"unreadable type":    {func(r *http.Request) { r.Header.Set("Content-Type", "json;;;=") }, 415, "want application/json"},
		"gzip":               {func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip"); r.Body = gzipped(live) }, 415, "gzip"},
		"gzip, undeclared":   {func(r *http.Request) { r.Body = gzipped(live) }, 400, "not UTF-8"},
		"GET":                {func(r *http.Request) { r.Method = http.MethodGet }, 405, "POST"},
		"another path":       {func(r *http.Request) { r.URL.Path = "/webhook/pixies" }, 404, PathPixie},
		"a path beneath":     {func(r *http.Request) { r.URL.Path = PathPixie + "/x" }, 404, PathPixie},
		"length that is big": {func(r *http.Request) { r.ContentLength = MaxBodyBytes + 1 }, 413, "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{})
			r := request(PathPixie, live)
			c.change(r)
			code, answer, header := b.do(t, r)
			assert.Equal(t, c.status, code, answer.Message)
			assert.Contains(t, answer.Message, c.says)
			assert.Equal(t, c.status == 200, len(b.got) == 1)
			if c.status == http.StatusMethodNotAllowed {
				assert.Equal(t, "POST", header.Get("Allow"))
			}
		})
	}
}

func gzipped(s string) io.ReadCloser {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return io.NopCloser(&b)
}

func TestTheSinkDecides(t *testing.T) {
	notFound := fmt.Errorf("applying: %w", &signal.InvalidError{Field: "namespace", Problem: "shop does not exist"})
	capped := fmt.Errorf("shop has 100 whispers: %w", signal.ErrCapacity)
	down := errors.New("connection refused")
	for name, c := range map[string]struct {
		err                  error
		webhook, alertmanger int
		result, field        string
	}{
		"never":   {notFound, 422, 200, "invalid", "namespace"},
		"capped":  {capped, 429, 200, "capped", ""},
		"failing": {down, 503, 503, "failed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{})
			b.answer = func(_ context.Context, s signal.Signal) error {
				if s.Pod == "bad" {
					return c.err
				}
				return nil
			}
			bad := strings.Replace(live, "live-demo", "bad", 1)
			code, answer, header := b.do(t, request(PathEBPF, "["+bad+","+live+"]"))
			assert.Equal(t, c.webhook, code)
			assert.Equal(t, c.field, answer.Field)
			assert.Contains(t, answer.Message, "1 of 2")
			assert.Contains(t, answer.Message, c.err.Error())
			assert.Equal(t, code == 503, header.Get("Retry-After") != "")
			require.Len(t, b.got, 1, "the good one is stored all the same")
			assert.InDelta(t, 1, b.count(t, eventsTotal, "door=ebpf", "result="+c.result), 0)
			assert.InDelta(t, 1, b.count(t, eventsTotal, "door=ebpf", "result=stored"), 0)

			alert := `{"status":"firing","labels":{"alertname":"KernelGossipMetricsLie","namespace":"shop","pod":%q},"annotations":{"throttle_percentage":"50"},"startsAt":"2026-03-01T11:30:00Z"}`
			code, answer, header = b.do(t, request(PathAlertmanager, fmt.Sprintf(`{"version":"4","alerts":[`+alert+`,`+alert+`]}`, "bad", "good")))
			assert.Equal(t, c.alertmanger, code, answer.Message)
			assert.Equal(t, code == 503, header.Get("Retry-After") != "")
			require.Len(t, b.got, 2)
			assert.Equal(t, "good", b.got[1].Pod)
			assert.InDelta(t, 1, b.count(t, eventsTotal, "door=alertmanager", "result="+c.result), 0)
			assert.Contains(t, b.log.String(), c.err.Error())
		})
	}
}

func TestDifferentContainersAreStoredSideBySide(t *testing.T) {
	b := newBed(Options{})
	var waiting sync.WaitGroup
	waiting.Add(storesPerRequest)
	b.answer = func(_ context.Context, s signal.Signal) error {
		if s.Container == "first" { // each waits for the others
			waiting.Done()
			waiting.Wait()
		}
		return nil
	}
	var events []string
	for i := range storesPerRequest {
		for _, container := range []string{"first", "second"} {
			for _, resolved := range []string{"false", "true"} {
				if container == "first" && resolved == "true" {
					continue
				}
				events = append(events, fmt.Sprintf(`{"type":"cpu_throttle","pod_name":"pod-%d","namespace":"shop","container_name":%q,`+
					`"throttle_percentage":90,"resolved":%s,"timestamp":"2026-03-01T11:00:00Z"}`, i, container, resolved))
			}
		}
	}
	code, answer := b.post(t, PathEBPF, "["+strings.Join(events, ",")+"]")
	require.Equal(t, http.StatusOK, code, answer.Message)
	require.Len(t, b.got, len(events))
	over := map[string]bool{}
	for _, s := range b.got {
		if s.Container == "second" {
			assert.Equal(t, over[s.Pod], s.Resolved, "the words about one container keep their order")
			over[s.Pod] = true
		}
	}
}

func TestAHangingSinkIsA503(t *testing.T) {
	b := newBed(Options{Timeout: 20 * time.Millisecond})
	b.answer = func(ctx context.Context, _ signal.Signal) error { <-ctx.Done(); return ctx.Err() }
	code, answer := b.post(t, PathPixie, "["+live+","+live+"]")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, answer.Message, "2 of 2 could not be stored")
	assert.Empty(t, b.got)
}

func TestBackPressure(t *testing.T) {
	b := newBed(Options{MaxConcurrent: 2})
	entered, release := make(chan struct{}), make(chan struct{})
	b.answer = func(context.Context, signal.Signal) error { entered <- struct{}{}; <-release; return nil }
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() { b.handler.ServeHTTP(httptest.NewRecorder(), request(PathPixie, live)) })
		<-entered
	}
	code, answer, header := b.do(t, request(PathAlertmanager, `{"version":"4","alerts":[]}`))
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "1", header.Get("Retry-After"))
	assert.Contains(t, answer.Message, "2 requests")
	close(release)
	wait.Wait()
	assert.Len(t, b.got, 2)
	b.answer = nil
	code, _ = b.post(t, PathPixie, live)
	assert.Equal(t, http.StatusOK, code, "the slots are free again")
}

func TestASlowBodyIsCutOff(t *testing.T) {
	b := newBed(Options{Timeout: 50 * time.Millisecond})
	server := httptest.NewServer(b.handler)
	defer server.Close()
	for media, want := range map[string]string{"application/json": "HTTP/1.1 408", "text/plain": "HTTP/1.1 415"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\n{", PathPixie, media)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		answer, err := io.ReadAll(conn)
		require.NoError(t, err, "the connection is closed after the answer")
		assert.Contains(t, string(answer), want)
	}
}

// A read deadline that outlives the body would cancel the context of the store.
func TestTheStoreOutlivesTheBodysDeadline(t *testing.T) {
	b := newBed(Options{Timeout: 100 * time.Millisecond})
	b.answer = func(ctx context.Context, _ signal.Signal) error {
		select {
		case <-ctx.Done():
			return errors.New("given up too early")
		case <-time.After(60 * time.Millisecond):
			return nil
		}
	}
	server := httptest.NewServer(b.handler)
	defer server.Close()
	body, writer := io.Pipe()
	go func() {
		time.Sleep(60 * time.Millisecond)
		_, _ = io.WriteString(writer, live)
		_ = writer.Close()
	}()
	resp, err := http.Post(server.URL+PathPixie, "application/json", body)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestBearer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	_, err := NewBearer(file)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte(" \n"), 0o600))
	_, err = NewBearer(file)
	require.ErrorContains(t, err, "is empty")

	require.NoError(t, os.WriteFile(file, []byte("hearsay\n"), 0o600))
	auth, err := NewBearer(file)
	require.NoError(t, err)
	b := newBed(Options{Auth: auth})
	try := func(header string) int {
		r := request(PathPixie, live)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		code, answer, h := b.do(t, r)
		assert.Equal(t, code == http.StatusUnauthorized, h.Get("WWW-Authenticate") == "Bearer")
		assert.NotContains(t, answer.Message, "hearsay")
		return code
	}
	for header, want := range map[string]int{
		"Bearer hearsay": 200, "bearer hearsay": 200,
		"": 401, "Bearer": 401, "Bearer ": 401, "hearsay": 401, "Basic hearsay": 401, "Bearer hearsa": 401, "Bearer hearsay2": 401,
	} {
		assert.Equal(t, want, try(header), header)
	}
	stored := len(b.got)

	require.NoError(t, os.WriteFile(file, []byte("rumour"), 0o600))
	require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(time.Hour)))
	assert.Equal(t, 401, try("Bearer hearsay"), "the old token is gone")
	assert.Equal(t, 200, try("Bearer rumour"))

	require.NoError(t, os.WriteFile(file, nil, 0o600))
	assert.Equal(t, 503, try("Bearer rumour"))
	assert.Equal(t, 503, try("Bearer "), "an empty file lets no one in")
	require.NoError(t, os.Remove(file))
	assert.Equal(t, 503, try("Bearer rumour"))
	assert.Len(t, b.got, stored+1)
	assert.NotContains(t, b.log.String(), "rumour")
}

func TestMetricsAreWellNamed(t *testing.T) {
	b := newBed(Options{})
	b.post(t, PathPixie, live)
	b.post(t, PathPixie, "x")
	problems, err := testutil.GatherAndLint(b.registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
	assert.InDelta(t, 1, b.count(t, eventsTotal, "door=pixie", "result=stored"), 0)
	assert.InDelta(t, 1, b.count(t, eventsTotal, "door=pixie", "result=invalid"), 0)
	assert.InDelta(t, 1, b.count(t, rejectedTotal, "door=pixie", "reason=invalid"), 0)
	n, err := testutil.GatherAndCount(b.registry, "kernel_gossip_operator_intake_request_duration_seconds")
	require.NoError(t, err)
	assert.Equal(t, 2, n, "one series for 200, one for 400")
}
