package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// These tests run the real binary against this machine's kernel, in cgroups of
// their own. A child of theirs is the test binary itself, told by roleVariable
// what to do once it is in its cgroup and reads a line.
const roleVariable = "KERNEL_GOSSIP_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); {
	case role == "":
		dir, err := os.MkdirTemp("", "kernel-gossip-exporter-")
		if err != nil {
			panic(err)
		}
		buildDir = dir
		code := m.Run()
		_ = os.RemoveAll(dir)
		os.Exit(code)
	case role == "hog":
		awaitLine()
		for range 2 {
			go func() {
				for n := uint64(1); ; {
					n *= 31
				}
			}()
		}
		select {}
	case strings.HasPrefix(role, "getppid:"):
		callGetppid(role)
	case strings.HasPrefix(role, "churn:"), strings.HasPrefix(role, "hog:"):
		touchMemory(role)
	case strings.HasPrefix(role, "network:"):
		communicate(role)
	case strings.HasPrefix(role, "container:"):
		beginContainer(role)
	}
}

func awaitLine() { _, _ = bufio.NewReader(os.Stdin).ReadString('\n') }

// callGetppid makes that many calls, or with 0 as many as it can until its input
// ends, and prints how many it made.
func callGetppid(role string) {
	n, err := strconv.Atoi(strings.TrimPrefix(role, "getppid:"))
	if err != nil {
		panic(err)
	}
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(done)
	}()
	made := 0
	for n == 0 || made < n {
		_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		if made++; n == 0 && made%1000 == 0 {
			select {
			case <-done:
				fmt.Println(made)
				return
			default:
			}
		}
	}
	fmt.Println(made)
	<-done
}

var buildDir string // set by TestMain

// binary builds the exporter once.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, programName)
	build := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the exporter: %w: %s", err, out)
	}
	return path, nil
})

// instance is a running exporter.
type instance struct {
	t   *testing.T
	url string
	cmd *exec.Cmd
	log *journal
}

// journal is what a process writes, while it writes.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func startExporter(t *testing.T, flags ...string) *instance {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())

	e := &instance{t: t, url: "http://" + address, log: &journal{}}
	e.cmd = exec.Command(path, append([]string{"--web.listen-address=" + address, "--kubernetes=off"}, flags...)...)
	e.cmd.Stderr, e.cmd.Stdout = e.log, e.log
	require.NoError(t, e.cmd.Start())
	t.Cleanup(e.stop)
	require.Eventually(t, func() bool {
		resp, err := http.Get(e.url + "/-/ready")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 2*time.Minute, 50*time.Millisecond, "the exporter did not get ready")
	return e
}

// stop ends the exporter as an init system would, and shows its log after a failure.
func (e *instance) stop() {
	if e.cmd.ProcessState == nil {
		assert.NoError(e.t, e.cmd.Process.Signal(syscall.SIGTERM))
		assert.NoError(e.t, e.cmd.Wait(), "SIGTERM is an orderly end")
	}
	if e.t.Failed() {
		e.t.Logf("the exporter's log:\n%s", e.log)
	}
}

// scrape returns every series by name and labels as the text format spells them.
func (e *instance) scrape() map[string]float64 {
	e.t.Helper()
	resp, err := http.Get(e.url + "/metrics")
	require.NoError(e.t, err)
	defer resp.Body.Close()
	require.Equal(e.t, http.StatusOK, resp.StatusCode)
	series := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[i+1:], 64)
		require.NoError(e.t, err, line)
		series[line[:i]] = v
	}
	require.NoError(e.t, lines.Err())
	return series
}

// scrapeAfter waits for a sample that began after at.
func (e *instance) scrapeAfter(at time.Time) map[string]float64 {
	e.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		s := e.scrape()
		if s["kernel_gossip_exporter_last_sample_timestamp_seconds"] > float64(at.UnixNano())/1e9 {
			return s
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Fail(e.t, "no new sample in a minute")
	return nil
}

// eventually waits for a series and returns its value.
func (e *instance) eventually(series string, within time.Duration) float64 {
	e.t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if v, ok := e.scrape()[series]; ok {
			return v
		}
	}
	require.Fail(e.t, "no such series on /metrics", "%s within %s", series, within)
	return 0
}

// group is a cgroup of the test's own, in each hierarchy that its figures need.
type group struct {
	t    *testing.T
	path string   // below the root
	dirs []string // cpu first
	v2   bool
}

func newGroup(t *testing.T, name string) *group {
	t.Helper()
	mounts, err := cgroup.FindMounts("", "/proc")
	require.NoError(t, err)
	g := &group{t: t, path: fmt.Sprintf("/kernel-gossip-test-%d-%s", os.Getpid(), name), v2: mounts.Version == 2}
	roots := []string{mounts.CPU}
	if mounts.CPUAcct != "" && mounts.CPUAcct != mounts.CPU {
		roots = append(roots, mounts.CPUAcct)
	}
	if g.v2 {
		require.NoError(t, os.WriteFile(filepath.Join(mounts.CPU, "cgroup.subtree_control"), []byte("+cpu"), 0o644))
	}
	for _, root := range roots {
		dir := filepath.Join(root, g.path)
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			t.Skipf("this test measures real throttling and may not create a cgroup here: %v", err)
		}
		require.NoError(t, err)
		g.dirs = append(g.dirs, dir)
		t.Cleanup(func() {
			// The last process may still be on its way out.
			assert.Eventually(t, func() bool { return os.Remove(dir) == nil }, time.Minute, 50*time.Millisecond, "removing %s", dir)
		})
	}
	return g
}

// told are the events of a type that an exporter tells.
type told[E wire.Event] struct {
	mu  sync.Mutex
	all []E
}

// listenFor has an operator of the test's own take events of a type, and returns its URL.
func listenFor[E wire.Event](t *testing.T, kind string) (*told[E], string) {
	t.Helper()
	told := &told[E]{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []E
		if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		told.mu.Lock()
		defer told.mu.Unlock()
		for _, ev := range batch {
			if ev.About().Type == kind {
				told.all = append(told.all, ev)
			}
		}
	}))
	t.Cleanup(server.Close)
	return told, server.URL
}

// of lists the events about a group.
func (e *told[E]) of(g *group) (found []E) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.About().PodName == wire.HostPod("", g.path) {
			found = append(found, ev)
		}
	}
	return found
}

func (g *group) limit(quota time.Duration) {
	const period = 100 * time.Millisecond
	g.t.Helper()
	if g.v2 {
		g.write("cpu.max", fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds()))
		return
	}
	g.write("cpu.cfs_period_us", fmt.Sprint(period.Microseconds()))
	g.write("cpu.cfs_quota_us", fmt.Sprint(quota.Microseconds()))
}

func (g *group) write(file, content string) {
	g.t.Helper()
	require.NoError(g.t, os.WriteFile(filepath.Join(g.dirs[0], file), []byte(content), 0o644))
}

// child is a process of a role inside a group, waiting for begin.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (g *group) child(role string) *child {
	g.t.Helper()
	c := &child{t: g.t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	if strings.HasPrefix(role, "network:") {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	var err error
	c.in, err = c.cmd.StdinPipe()
	require.NoError(g.t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(g.t, err)
	c.out = bufio.NewReader(out)
	require.NoError(g.t, c.cmd.Start())
	g.t.Cleanup(c.kill)
	for _, dir := range g.dirs {
		require.NoError(g.t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(c.cmd.Process.Pid)), 0o644))
	}
	return c
}

func (c *child) begin() {
	c.t.Helper()
	_, err := io.WriteString(c.in, "\n")
	require.NoError(c.t, err)
}

// count is what callGetppid printed.
func (c *child) count() int {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	require.NoError(c.t, err)
	n, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(c.t, err)
	return n
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// kernel reads the group's counters by hand, out of the files, with no code of ours.
func (g *group) kernel() (periods, throttled, throttledSeconds, usageSeconds float64) {
	g.t.Helper()
	stat := map[string]float64{}
	b, err := os.ReadFile(filepath.Join(g.dirs[0], "cpu.stat"))
	require.NoError(g.t, err)
	for line := range strings.Lines(string(b)) {
		var key string
		var v float64
		_, err := fmt.Sscan(line, &key, &v)
		require.NoError(g.t, err, line)
		stat[key] = v
	}
	if g.v2 {
		return stat["nr_periods"], stat["nr_throttled"], stat["throttled_usec"] / 1e6, stat["usage_usec"] / 1e6
	}
	b, err = os.ReadFile(filepath.Join(g.dirs[len(g.dirs)-1], "cpuacct.usage"))
	require.NoError(g.t, err)
	usage, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	require.NoError(g.t, err)
	return stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"] / 1e9, usage / 1e9
}

// settled waits until the kernel no longer counts: the bandwidth timer runs for a
// period after the last thread is gone.
func (g *group) settled() {
	g.t.Helper()
	var lastPeriods, lastUsage float64
	require.Eventually(g.t, func() bool {
		periods, _, _, usage := g.kernel()
		same := periods == lastPeriods && usage == lastUsage
		lastPeriods, lastUsage = periods, usage
		return same
	}, 10*time.Second, 500*time.Millisecond, "the kernel still counts")
}

func (g *group) series(metric string, labels ...string) string {
	all := []string{fmt.Sprintf("container=%q", g.path), `namespace=""`, `pod=""`}
	for i := 0; i < len(labels); i += 2 {
		all = append(all, fmt.Sprintf("%s=%q", labels[i], labels[i+1]))
	}
	slices.Sort(all)
	return "kernel_gossip_" + metric + "{" + strings.Join(all, ",") + "}"
}

// Counters equal the kernel's own files at the same instant, and the ratio is
// Δnr_throttled/Δnr_periods over the window.
func TestCountersEqualTheKernels(t *testing.T) {
	const window = 6
	g := newGroup(t, "hog")
	g.limit(2 * time.Millisecond)
	e := startExporter(t, fmt.Sprintf("--throttle.window=%ds", window))
	hog := g.child("hog")
	hog.begin()

	// Each sample's counters, to compute the ratio by hand: of a stretch in which no
	// scrape came so late that a sample may have gone by unseen, and whose window
	// does not begin so near a sample that the clocks could disagree on it.
	type sample struct{ at, periods, throttled float64 }
	const missed, unsure = 900 * time.Millisecond, 0.05
	var samples []sample
	var first, last sample
	var s map[string]float64
	scraped, deadline := time.Now(), time.Now().Add(3*time.Minute)
	for decided := false; !decided; time.Sleep(50 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "no undisturbed window of %d s in 3 minutes", window)
		s = e.scrape()
		if time.Since(scraped) > missed {
			samples = nil
		}
		scraped = time.Now()
		last = sample{s["kernel_gossip_exporter_last_sample_timestamp_seconds"], s[g.series("cpu_periods_total")], s[g.series("cpu_throttled_periods_total")]}
		if len(samples) > 0 && samples[len(samples)-1] == last {
			continue
		}
		samples = append(samples, last)
		// Throttled in one sample and free in the next, so that the ratio is neither 0 nor 1.
		g.limit([]time.Duration{2 * time.Millisecond, 10 * time.Second}[len(samples)%2])
		start := last.at - window - 0.5 // and half a sampling interval
		if samples[0].at > start-1 {
			continue
		}
		decided = true
		for _, old := range slices.Backward(samples) {
			if old.at >= start {
				first = old
			}
			decided = decided && math.Abs(old.at-start) > unsure
		}
	}
	byHand := (last.throttled - first.throttled) / (last.periods - first.periods)
	require.Greater(t, last.periods-first.periods, 30.0)
	assert.Equal(t, byHand, s[g.series("cpu_throttle_ratio")], "Δnr_throttled/Δnr_periods from sample %v to %v", first, last)
	assert.Greater(t, byHand, 0.05, "a hog at a fiftieth of a CPU is throttled, however busy the machine is")
	assert.Less(t, byHand, 0.95, "and without a limit that counts it is not")
	t.Logf("ratio by hand %v, on /metrics %v, over %.3f s", byHand, s[g.series("cpu_throttle_ratio")], last.at-first.at)

	g.limit(2 * time.Millisecond)
	assert.Equal(t, 0.02, e.scrapeAfter(time.Now())[g.series("cpu_limit_cores")])

	hog.kill()
	g.settled()
	periods, throttled, throttledSeconds, usage := g.kernel()
	s = e.scrapeAfter(time.Now())
	assert.Equal(t, periods, s[g.series("cpu_periods_total")])
	assert.Equal(t, throttled, s[g.series("cpu_throttled_periods_total")])
	assert.InDelta(t, throttledSeconds, s[g.series("cpu_throttled_seconds_total")], 1e-9)
	assert.InDelta(t, usage, s[g.series("cpu_usage_seconds_total")], 1e-9)
	t.Logf("kernel: %v periods, %v throttled, %v s throttled, %v s used; /metrics: the same", periods, throttled, throttledSeconds, usage)
	e.eventually(g.series("cpu_demand_cores"), 10*time.Second)
	// A figure comes at a 15 s step of the wall clock, and not from under 10 s of life.
	e.eventually(g.series("cpu_reported_cores", "source", "emulated-15s-window"), time.Minute)
}

// A program that makes exactly 1,000,000 known calls counts exactly those, and so
// does each of 8 busy neighbours.
func TestSyscallsAreExact(t *testing.T) {
	const calls, neighbours = 1_000_000, 8
	e := startExporter(t, "--syscalls.names=getppid,futex")
	if e.scrape()[`kernel_gossip_exporter_probe_attached{probe="syscalls"}`] != 1 {
		t.Skip("this kernel or these capabilities do not let the syscalls probe attach; doctor says why")
	}
	var groups []*group
	var busy []*child
	for i := range neighbours {
		g := newGroup(t, fmt.Sprintf("neighbour-%d", i))
		groups = append(groups, g)
		busy = append(busy, g.child("getppid:0"))
	}
	mine := newGroup(t, "million")
	c := mine.child(fmt.Sprintf("getppid:%d", calls))
	for _, b := range busy {
		b.begin()
	}
	c.begin()
	require.Equal(t, calls, c.count())
	made := make([]int, neighbours)
	for i, b := range busy {
		require.NoError(t, b.in.Close())
		made[i] = b.count()
	}

	s := e.scrapeAfter(time.Now())
	assert.Equal(t, float64(calls), s[mine.series("syscalls_total", "syscall", "getppid")])
	for i, g := range groups {
		assert.Equal(t, float64(made[i]), s[g.series("syscalls_total", "syscall", "getppid")],
			"neighbour %d; its other calls: %v, its run-queue waits: %v", i,
			s[g.series("syscalls_total", "syscall", "other")], s[g.series("cpu_runqueue_wait_seconds_count")])
	}
	for _, reason := range []string{"map_full", "skipped"} {
		lost := fmt.Sprintf(`kernel_gossip_exporter_events_lost_total{probe="syscalls",reason="%s"}`, reason)
		assert.Zero(t, e.eventually(lost, 20*time.Second), reason)
	}
	t.Logf("%d calls counted as %v; neighbours made %v", calls, s[mine.series("syscalls_total", "syscall", "getppid")], made)
}

// A throttled cgroup reaches the operator within seconds, and is told to be over.
func TestWhisperReachesTheOperator(t *testing.T) {
	var mu sync.Mutex
	var got []wire.CPUThrottle
	operator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "unauthorised", http.StatusUnauthorized)
			return
		}
		var events []wire.CPUThrottle
		if json.Unmarshal(body, &events) != nil {
			var one wire.CPUThrottle
			if err := json.Unmarshal(body, &one); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			events = []wire.CPUThrottle{one}
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, events...)
		fmt.Fprintln(w, `{"status":"accepted"}`)
	}))
	defer operator.Close()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("secret"), 0o600))

	startExporter(t, "--whisper.url="+operator.URL, "--whisper.token-file="+token)
	g := newGroup(t, "whispers")
	g.limit(2 * time.Millisecond)
	hog := g.child("hog")
	hog.begin()
	began := time.Now()
	first := func() *wire.CPUThrottle {
		mu.Lock()
		defer mu.Unlock()
		for i := range got {
			if strings.HasSuffix(g.path, got[i].PodName) {
				return &got[i]
			}
		}
		return nil
	}
	require.Eventually(t, func() bool { return first() != nil }, time.Minute, 20*time.Millisecond)
	event := first()
	t.Logf("after %s of throttling: %.1f %% of periods over %.1f s", time.Since(began).Round(time.Millisecond), event.ThrottlePercentage, event.PeriodSeconds)
	assert.Greater(t, event.ThrottlePercentage, 50.0)
	assert.Equal(t, "kernel-gossip", event.Namespace)
	if assert.NotNil(t, event.CPULimit) {
		assert.Equal(t, 0.02, *event.CPULimit)
	}
	if assert.NotNil(t, event.ActualCPUUsage) {
		assert.InDelta(t, 0.02, *event.ActualCPUUsage, 0.02)
	}
	assert.False(t, event.Resolved)
}

func TestPages(t *testing.T) {
	g := newGroup(t, "page<script>")
	g.limit(10 * time.Millisecond)
	g.child("hog").begin()
	e := startExporter(t)
	e.scrapeAfter(time.Now().Add(time.Second))
	get := func(path string) (int, string) {
		resp, err := http.Get(e.url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	code, body := get("/")
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, "page&lt;script&gt;")
	assert.NotContains(t, body, "<script>")
	assert.Contains(t, body, `href="metrics"`, "relative, so that it holds behind a proxy")
	code, body = get("/-/healthy")
	assert.Equal(t, http.StatusOK, code, body)
	code, _ = get("/nowhere")
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = get("/debug/pprof/")
	assert.Equal(t, http.StatusNotFound, code, "profiles are off by default")
}

func TestTopAndDoctor(t *testing.T) {
	path, err := binary()
	require.NoError(t, err)
	g := newGroup(t, "top")
	g.limit(2 * time.Millisecond)
	g.child("hog").begin()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()

	out, err := exec.CommandContext(ctx, path, "top", "-o", "json", "--kubernetes=off", "--log.level=error").Output()
	require.NoError(t, err)
	var rows []map[string]any
	require.NoError(t, json.Unmarshal(out, &rows))
	found := false
	for _, r := range rows {
		if r["container"] == g.path {
			found = true
			assert.Equal(t, 0.02, r["limit_cores"])
			assert.Greater(t, r["throttle_ratio"], 0.5)
			assert.InDelta(t, 0.02, r["used_cores"], 0.02)
		}
	}
	assert.True(t, found, "%s", out)

	out, err = exec.CommandContext(ctx, path, "doctor", "--kubernetes=off", "--log.level=error").Output()
	require.NoError(t, err)
	for _, what := range []string{"cgroups", "throttle counters", "probe throttle", "probe syscalls", "probe runqueue", "Kubernetes"} {
		assert.Contains(t, string(out), what)
	}
}

// A mistake on the command line is told in one line that names it, and nothing starts.
func TestMistakesAreTold(t *testing.T) {
	path, err := binary()
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		flags []string
		want  string
	}{
		"no such call":     {[]string{"--syscalls.names=read,opennat"}, `no system call "opennat"`},
		"window too short": {[]string{"--throttle.window=1s"}, "--throttle.window=1s: must be between 5s and 10m"},
		"operator's URL":   {[]string{"--whisper.url=operator:8080"}, "--whisper.url="},
		"no cgroups there": {[]string{"--cgroup.root=" + t.TempDir(), "--kubernetes=off"}, "finding cgroups"},
		"not in a cluster": {[]string{"--kubernetes=on"}, "--kubernetes=on"},
		"unknown flag":     {[]string{"--colector.cpu"}, "colector.cpu"},
		"metrics at root":  {[]string{"--web.telemetry-path=/"}, "--web.telemetry-path"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, path, append(tt.flags, "--web.listen-address=127.0.0.1:0")...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 1, exit.ExitCode())
			assert.Contains(t, string(out), tt.want)
		})
	}
}
