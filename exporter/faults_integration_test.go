package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Names that the kernel takes for a cgroup and a person would not choose: each is a
// label, a row and a page of its own, and nothing else.
func TestHostileCgroupNames(t *testing.T) {
	names := []string{
		"<script>alert(1)</script>", `" onload="x`, "esc\x1b[2J", "%s%n%d", "\xff\xfe", `{a="b"} 1`, `back\slash`, "..", "tab\tcr\r", "\u202egnp.exe",
		"日本", strings.Repeat("x", 150),
	}
	groups := map[string]*group{}
	for i, name := range names {
		name = strings.ReplaceAll(name, "/", "\u2215") // what no file name holds
		g := newGroup(t, fmt.Sprintf("%d-%s", i, name))
		g.limit(10 * time.Millisecond)
		groups[strings.ToValidUTF8(g.path, "\uFFFD")] = g
	}
	e := startExporter(t, "--log.level=debug", "--no-collector.syscalls", "--no-collector.runqueue", "--no-collector.network")
	e.scrapeAfter(time.Now().Add(time.Second))
	get := func(path string) (int, string) {
		resp, err := http.Get(e.url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	_, body := get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(t, err, "Prometheus could not read it either")
	limits := map[string]float64{}
	for _, m := range families["kernel_gossip_cpu_limit_cores"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "container" {
				limits[l.GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	_, list := get("/")
	for path := range groups {
		assert.Equal(t, 0.1, limits[path], "%q", path)
		code, body := get("/container?" + url.Values{"container": {path}}.Encode())
		assert.Equal(t, http.StatusOK, code, "%q", path)
		assert.NotContains(t, body+list, "<script>alert")
		assert.NotContains(t, body+list, `" onload="`)
	}
	e.stop()
	lines := 0
	for line := range strings.Lines(e.log.String()) {
		lines++
		assert.True(t, strings.HasPrefix(line, "time="), "a forged line: %q", line)
		assert.NotContains(t, line, "\x1b")
		assert.NotContains(t, line, "%!")
	}
	assert.Positive(t, lines)
}

// Two exporters on one node count the same, each for itself.
func TestTwoExportersOnANode(t *testing.T) {
	const calls = 100_000
	both := []*instance{startExporter(t, "--syscalls.names=getppid"), startExporter(t, "--syscalls.names=getppid")}
	for _, e := range both {
		if e.scrape()[`kernel_gossip_exporter_probe_attached{probe="syscalls"}`] != 1 {
			t.Skip("this kernel or these capabilities do not let the syscalls probe attach; doctor says why")
		}
	}
	g := newGroup(t, "counted-twice")
	g.limit(10 * time.Millisecond)
	c := g.child(fmt.Sprintf("getppid:%d", calls))
	c.begin()
	require.Equal(t, calls, c.count())
	c.kill()
	g.settled()
	periods, throttled, _, _ := g.kernel()
	now := time.Now()
	for i, e := range both {
		s := e.scrapeAfter(now)
		assert.Equal(t, float64(calls), s[g.series("syscalls_total", "syscall", "getppid")], "exporter %d", i)
		assert.Equal(t, periods, s[g.series("cpu_periods_total")], "exporter %d", i)
		assert.Equal(t, throttled, s[g.series("cpu_throttled_periods_total")], "exporter %d", i)
	}
}

// Maps that are full lose what they have no room for, say so, and cost nothing else.
func TestMapsThatAreFull(t *testing.T) {
	e := startExporter(t, "--bpf.max-cgroups=2", "--syscalls.names=getppid")
	if e.scrape()[`kernel_gossip_exporter_probe_attached{probe="syscalls"}`] != 1 {
		t.Skip("this kernel or these capabilities do not let the syscalls probe attach; doctor says why")
	}
	var groups []*group
	for i := range 6 {
		g := newGroup(t, fmt.Sprintf("crowd-%d", i))
		g.limit(10 * time.Millisecond)
		c := g.child("getppid:1000")
		c.begin()
		require.Equal(t, 1000, c.count())
		groups = append(groups, g)
	}
	var s map[string]float64
	const lost = `kernel_gossip_exporter_events_lost_total{probe="syscalls",reason="map_full"}`
	require.Eventually(t, func() bool {
		s = e.scrape()
		return s[lost] > 0
	}, time.Minute, 500*time.Millisecond, "what found no room is counted")
	s = e.scrapeAfter(time.Now())
	counted := 0
	for _, g := range groups {
		assert.Equal(t, 0.1, s[g.series("cpu_limit_cores")], "what comes from files needs no map")
		assert.Contains(t, s, g.series("cpu_periods_total"))
		if n, ok := s[g.series("syscalls_total", "syscall", "getppid")]; ok {
			counted++
			assert.Positive(t, n, "absent, and not 0, where it found no room")
		}
	}
	assert.LessOrEqual(t, counted, 2)
	for series, capacity := range s {
		if name, ok := strings.CutPrefix(series, "kernel_gossip_exporter_map_capacity"); ok {
			assert.LessOrEqual(t, s["kernel_gossip_exporter_map_entries"+name], capacity, series)
		}
	}
	resp, err := http.Get(e.url + "/-/ready")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

// Cgroups that go while they are read disturb nobody: no error, and their neighbours
// go on. What a reader sees of them in the middle is a test of package cgroup.
func TestCgroupsThatComeAndGo(t *testing.T) {
	stays := newGroup(t, "stays")
	stays.limit(10 * time.Millisecond)
	e := startExporter(t, "--no-collector.syscalls", "--no-collector.runqueue", "--no-collector.network")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		for i := range 20 {
			for _, dir := range stays.dirs {
				child := filepath.Join(filepath.Dir(dir), fmt.Sprintf("kernel-gossip-test-%d-brief-%d", os.Getpid(), i))
				require.NoError(t, os.Mkdir(child, 0o755))
				require.NoError(t, os.Remove(child))
			}
		}
		e.scrape()
	}
	s := e.scrapeAfter(time.Now())
	assert.Equal(t, 0.1, s[stays.series("cpu_limit_cores")])
	assert.NotContains(t, e.log.String(), "level=ERROR")
}
