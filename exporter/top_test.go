package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"regexp"
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
	"github.com/kernel-gossip/kernel-gossip/exporter/page"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// ranked is the talk's container, and one of which little is known.
func ranked(namespace, pod, container string) *sampler.Snapshot {
	used, demand := 0.25, 1.2
	return &sampler.Snapshot{
		At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Window: time.Minute,
		Containers: []sampler.Container{
			{Namespace: namespace, Pod: pod, Container: "idle"},
			{
				Namespace: namespace, Pod: pod, Container: container,
				Limit:      &cgroup.CPULimit{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond},
				Throttling: &sampler.Throttling{Window: 59900 * time.Millisecond, Periods: 600, Throttled: 552},
				Reported:   []reported.Usage{{Source: reported.SourceKubelet, Cores: 0.24}},
				Gap:        &gap.Parts{Used: &used, Demand: &demand},
			},
			{Container: "gone", Group: cgroup.Group{Gone: time.Unix(1, 0)}},
		},
		Probes: []bpf.Status{{Probe: bpf.ProbeThrottle, Reason: "no BTF", Lost: "the durations"}, {Probe: bpf.ProbeSyscalls, Attached: true}},
	}
}

func table(t *testing.T, snap *sampler.Snapshot) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, printTop(&out, &options{topOutput: "table", topRows: 20}, liars.Of(snap), topOrder{key: topByLie}))
	return out.String()
}

func TestTopTable(t *testing.T) {
	assert.Equal(t, `03:04:05  2 containers, 1 lies: it looks healthy and is throttled; 2 shown, the biggest liar first
CPU in cores, throttled over the last 60 s

NAMESPACE  POD     CONTAINER    GAP  OF LIMIT  THROTTLED  REPORTED   USED  LIMIT  WANTED
shop       cart-1  app        0.960    48.0 %     92.0 %     0.240  0.250  0.500   1.200
shop       cart-1  idle           -         -          -         -      -      -       -

Not measured: the durations (no BTF).
`, table(t, ranked("shop", "cart-1", "app")))
}

func TestTopTableOffCluster(t *testing.T) {
	id := strings.Repeat("0123456789ab", 6)[:64]
	snap := ranked("", "", "/docker/"+id)
	snap.Probes, snap.Containers[1].Reported = nil, nil
	assert.Equal(t, `03:04:05  2 containers, none lies; 2 shown, the biggest liar first
CPU in cores, throttled over the last 60 s

CONTAINER             GAP  OF LIMIT  THROTTLED  REPORTED   USED  LIMIT  WANTED
/docker/0123456789ab    -         -     92.0 %         -  0.250  0.500   1.200
idle                    -         -          -         -      -      -       -

Nothing is reported yet: a reported figure is the mean of some 15 s.
`, table(t, snap))
	assert.Equal(t, "Nothing has been sampled yet.\n", table(t, nil))

	snap.Containers = nil
	empty := table(t, snap)
	assert.Contains(t, empty, "\nNo container or service was found; kernel-gossip-exporter doctor tells")
	assert.Contains(t, empty, "\nCPU in cores\n", "no window without periods")
	assert.NotContains(t, empty, "Nothing is reported")
}

func TestTopJSON(t *testing.T) {
	for name, tc := range map[string]struct {
		snap *sampler.Snapshot
		rows int
	}{"rows": {ranked("", "", "/a"), 2}, "none": {nil, 0}} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, printTop(&out, &options{topOutput: "json", topRows: 20}, liars.Of(tc.snap), topOrder{key: topByLie}))
			var rows []map[string]any
			require.NoError(t, json.Unmarshal(out.Bytes(), &rows), out.String())
			require.NotNil(t, rows, "an empty list is [], not null")
			require.Len(t, rows, tc.rows)
			if tc.rows > 0 {
				assert.Equal(t, "/a", rows[0]["container"])
				assert.InDelta(t, 0.92, rows[0]["throttle_ratio"], 1e-9)
				assert.Nil(t, rows[1]["throttle_ratio"], "not measured is null, not 0")
			}
		})
	}
}

func TestShorten(t *testing.T) {
	id := strings.Repeat("0123456789ab", 6)[:64]
	for path, want := range map[string]string{
		"/system.slice/nginx.service":              "/system.slice/nginx.service",
		"/docker/" + id:                            "/docker/0123456789ab",
		"/machine.slice/libpod-" + id + ".scope/x": "/machine.slice/libpod-0123456789ab.scope/x",
		"/kubepods/burstable/pod11111111-2222-3333-4444-555555555555/" + id: "…/burstable/pod11111111-2222-3333-4444-555555555555/0123456789ab",
		"/" + strings.Repeat("日", 70):                                       "…" + strings.Repeat("日", 63),
	} {
		got := shorten(path)
		assert.Equal(t, want, got)
		assert.LessOrEqual(t, len([]rune(got)), 64)
	}
}

// Another machine's top is its exporter's page, asked for JSON.
func TestTopOfAnotherExporter(t *testing.T) {
	snap := ranked("shop", "cart-1", "app")
	var served atomic.Pointer[sampler.Snapshot]
	served.Store(snap)
	landing, err := page.New(t.Context(), page.Config{Snapshot: served.Load, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	server := httptest.NewServer(landing)
	defer server.Close()

	var local, remote bytes.Buffer
	o := &options{topOutput: "table", topRows: 20, topOnce: true, topURL: server.URL, topSort: topByLie}
	require.NoError(t, printTop(&local, o, liars.Of(snap), topOrder{key: topByLie}))
	require.NoError(t, top(t.Context(), o, &remote))
	assert.Equal(t, local.String(), remote.String())

	served.Store(nil)
	assert.ErrorContains(t, top(t.Context(), o, io.Discard), "503 Service Unavailable: nothing has been sampled yet")
	server.Close()
	assert.ErrorContains(t, top(t.Context(), o, io.Discard), "asking the exporter")
	o.topURL = "node-1:9955"
	assert.ErrorContains(t, top(t.Context(), o, io.Discard), "like http://node-1:9955")
}

func TestTopKeys(t *testing.T) {
	v := view{order: topOrder{key: topByLie}, ranking: liars.Of(ranked("shop", "cart-1", "z")), page: 1}
	assert.True(t, v.press('>'))
	assert.Equal(t, topOrder{key: liars.ByName, ascending: true}, v.order)
	assert.True(t, v.press(keyRight))
	assert.Equal(t, topOrder{key: liars.ByGap}, v.order)
	assert.True(t, v.press('r'))
	assert.True(t, v.order.ascending)
	v.press('<')
	v.press(keyLeft)
	assert.Equal(t, topOrder{key: topByLie}, v.order)
	v.press('<')
	assert.Equal(t, "wanted", v.order.key, "round the corner")
	assert.True(t, v.press('x'), "nothing")
	assert.True(t, v.press(' '))
	assert.True(t, v.paused)
	assert.False(t, v.press('q'))

	var out bytes.Buffer
	o := &options{topOutput: "table", topRows: 1}
	require.NoError(t, printTop(&out, o, liars.Of(ranked("shop", "cart-1", "z")), topOrder{key: liars.ByName, ascending: true}))
	assert.Contains(t, out.String(), "; 1 shown, by name\n")
	assert.Contains(t, out.String(), "CONTAINER▴")
	assert.Contains(t, out.String(), "idle")
}

func TestDecodeKeys(t *testing.T) {
	assert.Equal(t, []key{'q', keyUp, keyDown, keyPageDown, keyHome, 'é', 3}, decode([]byte("q\x1b[A\x1bOB\x1b[6~\x1b[Hé\x03")))
	assert.Equal(t, []key{'['}, decode([]byte("\x1b[")), "half a sequence")
	assert.Empty(t, decode([]byte{0x1b}))
}

// texts is a screen without its styles.
func texts(lines []line) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.plain())
	}
	return out
}

func TestTopScreen(t *testing.T) {
	v := view{order: topOrder{key: topByLie}, ranking: liars.Of(ranked("shop", "cart-1", "app"))}
	assert.Equal(t, []string{
		"kernel-gossip  03:04:05  2 containers, 1 lies: it looks healthy and is throttled",
		"CPU in cores, throttled over the last 60 s; the biggest liar first",
		"NAMESPACE  POD     CONTAINER    GAP           OF LIMIT          THROTTLED  REPORTED   USED  LIMIT  WANTED",
		"shop       cart-1  app        0.960  █████░░░░░ 48.0 %  █████████░ 92.0 %     0.240  0.250  0.500   1.200",
		"shop       cart-1  idle           -                  -                  -         -      -      -       -",
		"",
		"Not measured: the durations (no BTF).",
		" q  quit   ← →  sort by another column   r  turn round   ↑ ↓  scroll   space  pause",
	}, texts(v.draw(120, 30)))

	narrow := texts(v.draw(90, 30))
	assert.Contains(t, narrow[3], "app        0.960    48.0 %     92.0 %", "without bars where there is no room for them")
	long := v
	long.ranking = liars.Of(ranked("shop", "cart-1", "/"+strings.Repeat("x", 60)+"/end"))
	cut := texts(long.draw(96, 30))
	assert.Contains(t, cut[3], "…xxxxxxxxxxxx/end  0.960    48.0 %", "figures before the beginnings of names")
	assert.Len(t, []rune(cut[3]), 96)
	for _, size := range [][2]int{{1, 1}, {40, 5}, {80, 8}, {300, 2}} {
		lines := v.draw(size[0], size[1])
		assert.LessOrEqual(t, len(lines), size[1])
		for _, l := range texts(lines) {
			assert.LessOrEqual(t, len([]rune(l)), size[0])
		}
	}
	v.stale = errors.New("no answer")
	assert.Contains(t, texts(v.draw(120, 30)), "These are old figures: no answer.")
	assert.Len(t, (&view{}).draw(80, 24), 1)
}

func TestTopScrolls(t *testing.T) {
	snap := ranked("shop", "cart-1", "app")
	for i := range 50 {
		snap.Containers = append(snap.Containers, sampler.Container{Container: fmt.Sprintf("/c%02d", i)})
	}
	v := view{order: topOrder{key: liars.ByName, ascending: true}, ranking: liars.Of(snap)}
	shown := func() string { return strings.Join(texts(v.draw(120, 16)), "\n") }
	require.Contains(t, shown(), "rows 1 to 10")
	assert.Contains(t, shown(), "/c09")
	v.press(keyPageDown)
	assert.Contains(t, shown(), "rows 11 to 20")
	v.press(keyEnd)
	assert.Contains(t, shown(), "rows 43 to 52")
	v.press(keyDown)
	shown()
	v.press(keyUp)
	assert.Contains(t, shown(), "rows 42 to 51", "no further than the end")
	v.press(keyHome)
	v.press(keyUp)
	assert.Contains(t, shown(), "rows 1 to 10")
}

// Styles do not change what is read, and end where they should.
func TestTopStyles(t *testing.T) {
	v := view{order: topOrder{key: topByLie}, ranking: liars.Of(ranked("shop", "cart-1", "app"))}
	sgr := regexp.MustCompile(`\x1b\[[0-9;]*m`)
	for _, l := range v.draw(120, 30) {
		assert.Equal(t, l.plain(), strings.TrimRight(sgr.ReplaceAllString(l.styled(), ""), " "))
		assert.Len(t, sgr.FindAllString(l.styled(), -1), 2*strings.Count(l.styled(), "\x1b[0m"))
	}
	assert.Contains(t, v.draw(120, 30)[3].styled(), "\x1b[1;31m█████████░ 92.0 %\x1b[0m")
}

// A name must not reach the terminal as a command.
func TestTopNamesAreText(t *testing.T) {
	out := table(t, ranked("", "", "/\x1b]0;owned\a\x1b[2J\r\n\tx"))
	assert.NotContains(t, out, "\x1b")
	assert.NotContains(t, out, "\a")
	assert.Contains(t, out, "owned")
}
