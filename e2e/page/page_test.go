// Package page tests the exporter's landing page in a real browser: Debian's
// chromium, headless, through the DevTools protocol.
package page

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
	landing "github.com/kernel-gossip/kernel-gossip/exporter/page"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// hostile is a cgroup's path that leaves no trick out.
const hostile = "/<img src=x onerror=\"document.title='owned'\">\n\ndata: <script>document.title='owned'</script>&'`${1}javascript:void(0)"

// patience is for a machine that is busy with everything else.
const patience = 90 * time.Second

// browser is one headless chromium with one page open, and what went wrong on it.
type browser struct {
	ctx      context.Context
	mu       sync.Mutex
	problems []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	require.NoError(t, err, "install Debian's package chromium; make test does")
	ctx, stop := context.WithTimeout(context.Background(), 4*patience)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, // root, as CI is, can't have the sandbox; all pages are our own
		chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true))
	ctx, stopAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, stopTab := chromedp.NewContext(ctx)
	t.Cleanup(func() { stopTab(); stopAllocator(); stop() })
	b := &browser{ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			b.problems = append(b.problems, fmt.Sprintf("console.%s: %v", e.Type, e.Args))
		case *runtime.EventExceptionThrown:
			b.problems = append(b.problems, fmt.Sprintf("%+v", e.ExceptionDetails))
		case *log.EventEntryAdded: // a violated policy, a file that is not there
			b.problems = append(b.problems, e.Entry.Text+" "+e.Entry.URL)
		case *page.EventJavascriptDialogOpening:
			b.problems = append(b.problems, "a dialog: "+e.Message)
		}
	}))
	_, err = chromedp.Call(ctx, runtime.Enable, cdp.Empty{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, page.Enable, page.EnableParams{})
	require.NoError(t, err)
	return b
}

func (b *browser) open(t *testing.T, url string) {
	t.Helper()
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Navigate(url)))
	b.await(t, live)
}

func (b *browser) click(t *testing.T, selector string) {
	t.Helper()
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Click(chromedp.CSS(selector))))
}

// eval returns what a JavaScript expression gives.
func eval[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	require.NoError(t, err, expression)
	return out
}

// await waits until a JavaScript expression is true. It may fail while one page gives
// way to the next.
func (b *browser) await(t *testing.T, condition string) {
	t.Helper()
	require.Eventually(t, func() bool {
		met, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](condition))
		return err == nil && met
	}, patience, 50*time.Millisecond, condition)
}

func (b *browser) clean(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Empty(t, b.problems, "the browser complained")
}

// node serves the page over samples that the test makes.
type node struct {
	*httptest.Server
	page *landing.Page
	snap atomic.Pointer[sampler.Snapshot]
	n    int
}

func newNode(t *testing.T) *node {
	t.Helper()
	s := &node{}
	ctx, stop := context.WithCancel(context.Background())
	var err error
	s.page, err = landing.New(ctx, landing.Config{
		Snapshot: s.snap.Load, MetricsPath: "/metrics", CgroupMount: "/sys/fs/cgroup", Node: "node-1", Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	s.Server = httptest.NewServer(s.page)
	t.Cleanup(func() { stop(); s.Close() })
	s.tick()
	s.tick()
	return s
}

// tick publishes the next second. The throttled container's ratio is n periods of 100.
func (s *node) tick() {
	s.n++
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC).Add(time.Duration(s.n) * time.Second)
	ptr := func(f float64) *float64 { return &f }
	container := func(id cgroup.ID, pod, name string, reportedCores, wanted float64) sampler.Container {
		return sampler.Container{
			Namespace: "shop", Pod: pod, Container: name, Group: cgroup.Group{ID: id, Path: "/" + name}, CPUs: 2,
			CPU: &cgroup.CPUStat{At: at, HasUsage: true, HasBandwidth: true, Usage: time.Duration(s.n) * 400 * time.Millisecond,
				Periods: uint64(10 * s.n), Throttled: uint64(5 * s.n)},
			Limit:      &cgroup.CPULimit{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond},
			Throttling: &sampler.Throttling{Window: time.Minute, Periods: 100, Throttled: uint64(s.n)},
			Reported:   []reported.Usage{{Source: reported.SourceKubelet, Cores: reportedCores, At: at, Window: 15 * time.Second}},
			Gap:        &gap.Parts{Used: ptr(0.4), Demand: ptr(wanted)},
		}
	}
	off := container(3, "", hostile, 0.1, 0.2)
	off.Namespace = ""
	snap := &sampler.Snapshot{
		At: at, Window: time.Minute,
		Containers: []sampler.Container{container(1, "cart-1", "app", 0.2, 1.2), container(2, "web-1", "app", 0.4, 0.6), off},
		Probes:     []bpf.Status{{Probe: bpf.ProbeThrottle, Reason: "no BTF", Lost: "the durations"}},
	}
	s.snap.Store(snap)
	s.page.Observe(snap)
}

// live is true once the page shows what the stream sent.
const live = `document.getElementById("state")?.className === "live"`

const names = `[...document.querySelectorAll(".list tbody th")].map(e => e.textContent)`

func TestPage(t *testing.T) {
	b, s := newBrowser(t), newNode(t)
	b.open(t, s.URL+"/")

	// Renders, by gap.
	rows := eval[[]string](t, b, names)
	require.Len(t, rows, 3)
	assert.Contains(t, rows[0], "cart-1")
	assert.Equal(t, 3, eval[int](t, b, `document.querySelectorAll(".list svg path.used").length`))
	assert.Positive(t, eval[float64](t, b, `document.querySelector(".list svg path.used").getBBox().height + document.querySelector(".list svg").getBoundingClientRect().height`))
	assert.Contains(t, eval[string](t, b, `document.querySelector(".unmeasured").textContent`), "the durations: no BTF")

	// Escapes: the name is text, whole, and nothing of it ran.
	assert.Equal(t, hostile, eval[string](t, b, `document.querySelectorAll(".list tbody th b")[2].textContent`))
	assert.Zero(t, eval[int](t, b, `document.querySelectorAll("img").length + document.querySelectorAll("main script").length`))
	assert.Equal(t, "kernel-gossip · node-1", eval[string](t, b, `document.title`))

	// Updates, without a new page, and keeps the focus.
	eval[bool](t, b, `document.querySelectorAll(".list tbody a")[1].focus(), window.kept = true`)
	s.tick()
	b.await(t, `document.querySelector("tbody .hot, tbody td[data-label='Throttled']").textContent === "3 %"`)
	assert.True(t, eval[bool](t, b, `window.kept`))
	assert.Contains(t, eval[string](t, b, `document.activeElement.textContent`), "web-1")

	// Sorts, both ways, and stays so when it updates.
	b.click(t, `thead a[href*="sort=share"]`)
	b.await(t, `document.querySelector("th[aria-sort=descending] a")?.textContent === "Reported of limit" && `+live)
	assert.Contains(t, eval[[]string](t, b, names)[0], "web-1")
	b.click(t, `thead a[href*="sort=share"]`)
	b.await(t, `document.querySelector("th[aria-sort=ascending]") !== null && `+live)
	s.tick()
	b.await(t, `document.querySelector("td[data-label='Throttled']").textContent === "4 %"`)
	assert.Equal(t, hostile, eval[[]string](t, b, names)[0])

	// Each row opens its evidence, also under a hostile name.
	for _, row := range []int{1, 3} {
		b.click(t, fmt.Sprintf(`.list tbody tr:nth-child(%d) th a`, row))
		b.await(t, `document.querySelector("pre") !== null && `+live)
		assert.Contains(t, eval[string](t, b, `document.querySelector("main").textContent`), "of 100 periods")
		b.open(t, s.URL+"/")
	}
	b.clean(t)
}

// On a phone nothing is wider than the screen, on either page and in either scheme, and
// the text stands out from what is behind it.
func TestPhoneAndDarkMode(t *testing.T) {
	b, s := newBrowser(t), newNode(t)
	papers := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		require.NoError(t, err)
		for _, width := range []int64{320, 390, 1280} {
			for _, path := range []string{"/", "/container?namespace=shop&pod=cart-1&container=app"} {
				require.NoError(t, chromedp.Do(b.ctx, chromedp.EmulateViewport(width, 800)))
				b.open(t, s.URL+path)
				wide := eval[int64](t, b, `document.documentElement.scrollWidth`)
				assert.LessOrEqual(t, wide, width, "%s scrolls sideways at %d px (%s)", path, width, scheme)
				contrast := eval[float64](t, b, contrastScript)
				assert.GreaterOrEqual(t, contrast, 4.5, "the least contrast of a text on %s (%s), WCAG 2.2 level AA", path, scheme)
			}
		}
		papers[eval[string](t, b, `getComputedStyle(document.body).backgroundColor`)] = true
	}
	assert.Len(t, papers, 2, "dark mode has a background of its own")
	b.clean(t)
}

// contrastScript is the least contrast ratio of any text with the page's background,
// by the formula of WCAG 2.2.
const contrastScript = `(() => {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\d.]+/g).map(Number).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll("body *")].filter(e => e.textContent.trim() && !e.closest("svg")).map(e => {
    const ink = luminance(getComputedStyle(e).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }));
})()`

// Without a script the page is whole, and asks to be loaded again.
func TestWithoutScript(t *testing.T) {
	b, s := newBrowser(t), newNode(t)
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(t, err)
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Navigate(s.URL+"/")))
	html, err := chromedp.Run(b.ctx, chromedp.OuterHTML(chromedp.CSS("html")))
	require.NoError(t, err)
	assert.Contains(t, html, "cart-1")
	assert.Contains(t, html, "Not measured here")
	// The browser itself reloads, within seconds, and shows the next sample.
	s.tick()
	assert.Eventually(t, func() bool {
		text, err := chromedp.Run(b.ctx, chromedp.TextContent(chromedp.CSS("time")))
		return err == nil && text == "03:04:03 UTC"
	}, patience, 200*time.Millisecond)
	b.clean(t)
}
