package page

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// sample is the talk's container, a calm one, one of which nothing is known and one
// that is gone, n seconds after start.
func sample(n int) *sampler.Snapshot {
	at := start.Add(time.Duration(n) * time.Second)
	ptr := func(f float64) *float64 { return &f }
	limit := &cgroup.CPULimit{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond}
	return &sampler.Snapshot{
		At: at, Window: time.Minute, SyscallNames: []string{"read", "futex", "other"},
		Probes: []bpf.Status{{Probe: bpf.ProbeThrottle, Reason: "no BTF", Lost: "the durations"}},
		Containers: []sampler.Container{
			{Namespace: "shop", Pod: "cart-1", Container: "app", Group: cgroup.Group{ID: 1, Path: "/kubepods/it's"}, CPUs: 2,
				CPU: &cgroup.CPUStat{At: at, HasUsage: true, HasBandwidth: true, Usage: time.Duration(n) * 480 * time.Millisecond,
					Periods: uint64(10 * n), Throttled: uint64(9 * n), ThrottledTime: time.Duration(n) * time.Second},
				Limit: limit, Throttling: &sampler.Throttling{Window: time.Minute, Periods: 600, Throttled: 552, ThrottledTime: time.Minute},
				Reported: []reported.Usage{{Source: reported.SourceKubelet, Cores: 0.24, At: at.Add(-7 * time.Second), Window: 15 * time.Second}},
				Gap:      &gap.Parts{Used: ptr(0.25), Demand: ptr(1.2)}, Syscalls: []uint64{3, 1234, 0},
				Memory: sampler.Memory{
					Stat: &cgroup.MemoryStat{WorkingSet: 96 << 20, Usage: 3 << 30, Limit: 512},
					Counts: &cgroup.MemoryCounts{Group: cgroup.MemoryEvents{
						Count: [cgroup.MemoryEventKinds]uint64{cgroup.EventMax: 41}, Told: [cgroup.MemoryEventKinds]bool{cgroup.EventMax: true}}},
					Pressure: &cgroup.Pressure{IO: cgroup.Stall{Some: 1234 * time.Millisecond, HasSome: true}},
				},
				Security: &sampler.Security{Security: bpf.Security{
					Counts: [bpf.SecurityEvents]uint64{bpf.SecurityPtrace: 3},
					Last: map[bpf.SecurityEvent]bpf.SecurityEvidence{bpf.SecurityPtrace: {
						PID: 77, Comm: "gdb", Binary: "/usr/bin/gdb", Ancestry: []string{"sh", "<b>"}, Detail: "ATTACH to 1"}},
				}},
				Network: &sampler.Network{HasOverflows: true, Network: bpf.Network{
					SegmentsSent: 2000, Retransmits: 146, Connections: 30, AcceptOverflows: 10, Drops: [bpf.DropReasonCount]uint64{3: 77}}},
				Denied: &bpf.Histogram{Buckets: [bpf.HistogramBuckets]uint64{17: 1, 18: 9}, Sum: time.Second}},
			{Namespace: "shop", Pod: "web-1", Container: "app", Group: cgroup.Group{ID: 2}, Limit: limit,
				CPU:      &cgroup.CPUStat{At: at, HasUsage: true, HasBandwidth: true},
				Reported: []reported.Usage{{Source: reported.SourceKubelet, Cores: 0.3}},
				Gap:      &gap.Parts{Used: ptr(0.3), Demand: ptr(0.31)}},
			{Namespace: "shop", Pod: "unknown-1", Container: "app", Group: cgroup.Group{ID: 3}},
			{Namespace: "shop", Pod: "gone-1", Container: "app", Group: cgroup.Group{ID: 4, Gone: at}},
		},
	}
}

// server serves what snap holds; tick publishes the next sample.
type server struct {
	*httptest.Server
	page *Page
	snap atomic.Pointer[sampler.Snapshot]
	n    int
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	ctx, stop := context.WithCancel(context.Background())
	var err error
	s.page, err = New(ctx, Config{Snapshot: s.snap.Load, MetricsPath: "/metrics", Node: "node-1", CgroupMount: "/sys/fs/cgroup", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	s.page.every = 0
	s.Server = httptest.NewServer(s.page)
	t.Cleanup(func() { stop(); s.Close() })
	return s
}

func (s *server) tick() {
	s.n++
	s.set(sample(s.n))
}

func (s *server) set(snap *sampler.Snapshot) {
	s.snap.Store(snap)
	s.page.Observe(snap)
}

func (s *server) get(t *testing.T, path string) (*httptest.ResponseRecorder, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return w, w.Body.String()
}

func TestListIsWholeWithoutScript(t *testing.T) {
	s := newServer(t)
	_, body := s.get(t, "/")
	assert.Contains(t, body, "Nothing has been sampled yet.")
	for range 3 {
		s.tick()
	}
	resp, body := s.get(t, "/")
	assert.Equal(t, http.StatusOK, resp.Code)
	assert.Equal(t, policy, resp.Header().Get("Content-Security-Policy"))
	assert.NotContains(t, policy, "unsafe")
	for _, want := range []string{"node-1", "92 %", "48 %", "3 of 3 containers", "the durations: no BTF", `http-equiv="refresh"`, "container?container=app&amp;namespace=shop&amp;pod=cart-1"} {
		assert.Contains(t, body, want)
	}
	assert.NotContains(t, body, "gone-1")
	for _, asset := range []string{"/page.css", "/page.js"} {
		resp, _ := s.get(t, asset)
		assert.Equal(t, http.StatusOK, resp.Code, asset)
	}
	for _, none := range []string{"/list.html", "/container/x", "/nothing"} {
		resp, _ := s.get(t, none)
		assert.Equal(t, http.StatusNotFound, resp.Code, none)
	}
	w := httptest.NewRecorder()
	s.page.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("x")))
	assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
}

func TestSort(t *testing.T) {
	s := newServer(t)
	s.tick()
	for query, want := range map[string][]string{
		"":                          {"cart-1", "web-1", "unknown-1"}, // by gap
		"sort=gap&order=asc":        {"web-1", "cart-1", "unknown-1"}, // the unmeasured stays last
		"sort=share":                {"web-1", "cart-1", "unknown-1"},
		"sort=name":                 {"cart-1", "unknown-1", "web-1"},
		"sort=name&order=desc":      {"web-1", "unknown-1", "cart-1"},
		"sort=%3Cscript%3E&order=x": {"cart-1", "web-1", "unknown-1"}, // not one of ours: the default
	} {
		_, body := s.get(t, "/?"+query)
		var at []int
		for _, pod := range want {
			at = append(at, strings.Index(body, pod+" <b>"))
		}
		assert.IsIncreasing(t, at, query)
		assert.NotContains(t, at, -1, query)
		assert.Equal(t, 1, strings.Count(body, "aria-sort="), query)
		assert.NotContains(t, body, "<script>")
	}
}

// A container's ID is cut in the table, and whole in its address and its evidence.
func TestLongNames(t *testing.T) {
	s := newServer(t)
	snap, path := sample(1), "/docker/"+strings.Repeat("0123456789ab", 6)[:64]
	snap.Containers = []sampler.Container{{Container: path, Group: cgroup.Group{ID: 100}}}
	s.set(snap)
	_, body := s.get(t, "/")
	assert.Contains(t, body, "<b>/docker/0123456789ab</b>")
	address := "container?container=" + url.QueryEscape(path)
	assert.Contains(t, body, address)
	_, body = s.get(t, "/"+address)
	assert.Contains(t, body, "<h1>"+path+"</h1>")
}

// Who lies is named above the table, however that is sorted.
func TestVerdictNamesTheLiars(t *testing.T) {
	s := newServer(t)
	snap := sample(1)
	s.set(snap)
	_, body := s.get(t, "/?sort=name&order=desc")
	assert.Contains(t, body, `<b class="hot">1 container lies:</b> <a href="container?container=app&amp;namespace=shop&amp;pod=cart-1">cart-1 app</a> looks healthy, and the kernel throttles it.`)

	liar := snap.Containers[slices.IndexFunc(snap.Containers, func(c sampler.Container) bool { return c.Pod == "cart-1" })]
	for i := range maxLiars {
		liar.Pod, liar.Group = fmt.Sprintf("cart-%d", i+2), cgroup.Group{ID: cgroup.ID(100 + i)}
		snap.Containers = append(snap.Containers, liar)
	}
	s.set(snap)
	_, body = s.get(t, "/")
	assert.Contains(t, body, "4 containers lie:</b> <a href=")
	assert.Contains(t, body, ">cart-3 app</a> and 1 more look healthy, and the kernel throttles them.")
}

func TestRound(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 ns": 0, "970 ns": 973, "1.23 µs": 1234, "20 ms": 20 * time.Millisecond, "24.87 ms": 24871 * time.Microsecond,
		"1 s": time.Second, "100.5 s": 100500 * time.Millisecond, "2 min 5 s": 125 * time.Second, "3 h 12 min": 3*time.Hour + 12*time.Minute + 40*time.Second, "2 d 1 h": 49 * time.Hour,
	} {
		assert.Equal(t, want, round(d))
	}
}

func TestManyContainers(t *testing.T) {
	s := newServer(t)
	snap := sample(1)
	for i := range 2 * maxRows {
		snap.Containers = append(snap.Containers, sampler.Container{Container: "/" + strings.Repeat("x", i+1), Group: cgroup.Group{ID: cgroup.ID(100 + i)}})
	}
	s.set(snap)
	_, body := s.get(t, "/?sort=name")
	assert.Equal(t, maxRows, strings.Count(body, `scope="row"`))
	assert.Contains(t, body, "./?all=1&amp;order=asc&amp;sort=name")
	_, body = s.get(t, "/?all=1")
	assert.Equal(t, 2*maxRows+3, strings.Count(body, `scope="row"`))
}

func TestEvidence(t *testing.T) {
	s := newServer(t)
	for range 4 {
		s.tick()
	}
	resp, body := s.get(t, "/container?namespace=shop&pod=cart-1&container=app")
	assert.Equal(t, http.StatusOK, resp.Code)
	for _, want := range []string{
		"Reported: 48 % of its limit.", "stopped it in 92 % of the periods", "552 of 600 periods", "nr_periods 40, nr_throttled 36",
		"kubelet, mean of 15 s that ended 7 s before this sample", "1.200 cores", "futex", "1234",
		`cat &#39;/sys/fs/cgroup/kubepods/it&#39;\&#39;&#39;s/cpu.stat&#39;`, "busiest second 0.48", "has no cpu.stat.local",
		"96.0 MiB", "3.0 GiB", "512 B", "<dt>event max</dt><dd>41 ", "1.23 s <small>io.pressure",
		"<dd>146 <small>7.3 % of those sent", "<dd>10 <small>25.0 % of the connections", "packets dropped, socket_rcvbuff",
		"<dt>ptrace</dt><dd>3 ", "last by /usr/bin/gdb (gdb, pid 77, uid 0), child of sh of &lt;b&gt;: ATTACH to 1", "no file of an overlayfs was executed", "<dd>0 <small>0.0 % of the connections",
	} {
		assert.Contains(t, body, want)
	}
	assert.Less(t, strings.Index(body, "futex"), strings.Index(body, "<dt>read"), "the most frequent call comes first")

	assert.NotContains(t, body, "event oom", "the kernel does not tell it")
	assert.NotContains(t, body, "io, all")

	_, body = s.get(t, "/container?namespace=shop&pod=unknown-1&container=app")
	for _, want := range []string{"cpu.max could not be read", "cpu.stat could not be read", "nothing yet", "memory: its", "network: its", "security: its", "pressure: cgroup v1"} {
		assert.Contains(t, body, want)
	}
	resp, body = s.get(t, "/container?container=none")
	assert.Equal(t, http.StatusNotFound, resp.Code)
	assert.Contains(t, body, "no such container")
}

// viewer is one live view.
type viewer struct {
	status int
	header http.Header
	events *bufio.Reader
	leave  func()
}

func (s *server) stream(t *testing.T, path string) viewer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	leave := func() { resp.Body.Close() }
	t.Cleanup(leave)
	return viewer{resp.StatusCode, resp.Header, bufio.NewReader(resp.Body), leave}
}

// readEvent returns the data of the next event.
func readEvent(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var data []string
	for {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			return strings.Join(data, "\n")
		}
		if d, ok := strings.CutPrefix(line, "data: "); ok {
			data = append(data, d)
		}
	}
}

func TestStream(t *testing.T) {
	s := newServer(t)
	s.tick()
	v := s.stream(t, "/?sort=used")
	assert.Equal(t, "text/event-stream", v.header.Get("Content-Type"))
	first := readEvent(t, v.events)
	assert.Contains(t, first, "03:04:06")
	assert.NotContains(t, first, "<!doctype", "only the part that changes")
	s.tick()
	assert.Contains(t, readEvent(t, v.events), "03:04:07")
}

func TestStreamsAreBounded(t *testing.T) {
	s := newServer(t)
	s.tick()
	open := make([]viewer, maxStreams)
	for i := range open {
		open[i] = s.stream(t, "/")
		require.Equal(t, http.StatusOK, open[i].status)
		readEvent(t, open[i].events)
	}
	refused := s.stream(t, "/")
	assert.Equal(t, http.StatusServiceUnavailable, refused.status)
	assert.NotEmpty(t, refused.header.Get("Retry-After"))
	_, body := s.get(t, "/")
	assert.Contains(t, body, "cart-1", "the static page has no bound")

	// Who leaves gives its place away.
	open[0].leave()
	assert.Eventually(t, func() bool { return s.stream(t, "/").status == http.StatusOK }, 30*time.Second, 10*time.Millisecond)
}

func TestStreamsEndWithTheServer(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	p, err := New(ctx, Config{Snapshot: func() *sampler.Snapshot { return sample(1) }, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	s := &server{Server: httptest.NewServer(p), page: p}
	defer s.Close()
	events := s.stream(t, "/").events
	readEvent(t, events)
	stop()
	_, err = events.ReadByte()
	assert.ErrorIs(t, err, io.EOF)
}

// What a name holds must neither end an event's field nor leave its element.
func FuzzHostileNames(f *testing.F) {
	for _, name := range []string{"<script>alert(1)</script>", `" onload="x`, "a\nevent: view\ndata: x", "a\rb", "\r\n\r\n", "javascript:alert(1)", "\x00", "日本"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.TrimSpace(name) == "" || len(name) > 500 {
			return
		}
		name = strings.ToValidUTF8(name, "\uFFFD") // as sampler names cgroups
		snap := sample(1)
		snap.Containers = []sampler.Container{{Container: name, Group: cgroup.Group{ID: 1, Path: "/" + name}, Syscalls: []uint64{1}}}
		p, err := New(t.Context(), Config{Snapshot: func() *sampler.Snapshot { return snap }, CgroupMount: "/x", Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		for _, path := range []string{"/", "/container?" + url.Values{"container": {name}}.Encode()} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			body := w.Body.String()
			require.Equal(t, http.StatusOK, w.Code)
			assert.Equal(t, 1, strings.Count(body, "<script"), "only our own")
			assert.NotContains(t, body, "javascript:alert(1)\"")
		}
		var event bytes.Buffer
		writeEvent(&event, "view", "<p>"+name+"</p>")
		lines := strings.Split(strings.TrimSuffix(event.String(), "\n\n"), "\n")
		assert.Equal(t, "event: view", lines[0])
		for _, l := range lines[1:] {
			assert.True(t, strings.HasPrefix(l, "data: "), "%q", l)
			assert.NotContains(t, l, "\r")
		}
	})
}

func TestTrail(t *testing.T) {
	tr := newTrail()
	for n := range trailLength + 10 {
		tr.observe(sample(n))
	}
	points := tr.of(1)
	require.Len(t, points, trailLength)
	assert.InDelta(t, 0.48, points[0].used, 1e-9)
	assert.InDelta(t, 0.9, points[0].throttled, 1e-9)
	assert.InDelta(t, 0.24, points[0].reported, 1e-9)
	assert.Empty(t, tr.of(3), "never read")
	assert.Empty(t, tr.of(4), "gone")

	c := draw(tr.of(2), nil)
	assert.Empty(t, c.Throttled)
	assert.Empty(t, c.Limit, "without a limit there is no line for it")

	// Another life of the cgroup, whose counters begin again.
	tr.observe(sample(1))
	last := tr.of(1)[trailLength-1]
	assert.True(t, math.IsNaN(last.used), "not measured")
	c = draw(tr.of(1), nil)
	assert.Equal(t, 1, strings.Count(c.Used, "M"), "the line ends before the gap")
	assert.NotContains(t, c.Used+c.Area+c.Throttled+c.Reported, "NaN")
}

func TestJSON(t *testing.T) {
	s := newServer(t)
	ask := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("Accept", "application/json")
		w := httptest.NewRecorder()
		s.page.ServeHTTP(w, r)
		return w
	}
	assert.Equal(t, http.StatusServiceUnavailable, ask().Code)
	s.tick()
	var got liars.Ranking
	require.NoError(t, json.Unmarshal(ask().Body.Bytes(), &got))
	assert.Equal(t, *liars.Of(sample(1)), got)
}
