package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
)

const (
	topEvery = 2 * time.Second
	// topFirst is how long the first ranking waits: three samples.
	topFirst = 2 * time.Second
	// topByLie is the order of liars.Rank.
	topByLie = "lie"

	clear      = "\x1b[H\x1b[2J" // ECMA-48
	ownScreen  = "\x1b[?1049h\x1b[?25l"
	backScreen = "\x1b[?25h\x1b[?1049l" // xterm's alternate screen, and its cursor
)

func topKeys() []string {
	var keys []string
	for _, c := range liars.Columns() {
		keys = append(keys, c.Key)
	}
	return keys
}

// top prints the ranking once, or again and again until ctx ends or somebody types q.
func top(ctx context.Context, o *options, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	ask, shut, err := o.topSource(ctx, group)
	if err != nil {
		return err
	}
	defer shut()
	group.Go(func() error {
		defer stop()
		return o.showTop(ctx, out, ask)
	})
	return group.Wait()
}

// topSource samples this machine, or asks another exporter. shut is for after the group's end.
func (o *options) topSource(ctx context.Context, group *errgroup.Group) (ask func() (*liars.Ranking, error), shut func(), err error) {
	if o.topURL != "" {
		u, err := url.Parse(o.topURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, nil, fmt.Errorf("--url=%q: must be an exporter's address, like http://node-1:9955", o.topURL)
		}
		return func() (*liars.Ranking, error) { return askExporter(ctx, o.topURL) }, func() {}, nil
	}
	p, err := open(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	p.start(ctx, group)
	group.Go(func() error { p.sampler.Run(ctx, nil); return nil })
	select {
	case <-ctx.Done():
	case <-time.After(topFirst + 100*time.Millisecond):
	}
	return func() (*liars.Ranking, error) { return liars.Of(p.sampler.Snapshot()), nil }, func() { p.close(o.log) }, nil
}

// askExporter takes the ranking from another exporter's page.
func askExporter(ctx context.Context, address string) (*liars.Ranking, error) {
	const (
		patience = 10 * time.Second
		most     = 16 << 20
	)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the exporter: %w", err) // names the URL, its password left out
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, most)
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(body, 200)) // what it says, if it says something
		return nil, fmt.Errorf("asking the exporter at %s: %s: %s", req.URL.Redacted(), resp.Status, strings.TrimSpace(string(why)))
	}
	var ranking liars.Ranking
	if err := json.NewDecoder(body).Decode(&ranking); err != nil {
		return nil, fmt.Errorf("asking the exporter at %s: it does not answer as one of this version: %w", req.URL.Redacted(), err)
	}
	return &ranking, nil
}

// showTop prints what ask tells. An exporter that can't be reached is an error the first
// time; later its last figures stay, with the error.
func (o *options) showTop(ctx context.Context, out io.Writer, ask func() (*liars.Ranking, error)) error {
	order := topOrder{key: o.topSort, ascending: o.topSort == liars.ByName}
	if o.topOnce || o.topOutput == "json" {
		ranking, err := ask()
		if err != nil || ctx.Err() != nil {
			return err
		}
		return printTop(out, o, ranking, order)
	}
	screen, err := openScreen(ctx, out)
	if err != nil {
		return fmt.Errorf("preparing the terminal: %w", err)
	}
	defer screen.close()
	ranking, err := ask()
	if err != nil {
		return err
	}
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for {
		var b bytes.Buffer
		if printErr := printTop(&b, o, ranking, order); printErr != nil {
			return fmt.Errorf("printing: %w", printErr)
		}
		if err != nil {
			fmt.Fprintf(&b, "\nThese are old figures: %s.\n", err)
		}
		if printErr := screen.show(b.String()); printErr != nil {
			return fmt.Errorf("printing: %w", printErr)
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-screen.keys:
			if !order.press(key) {
				return nil
			}
		case <-tick.C:
			var next *liars.Ranking
			if next, err = ask(); err == nil {
				ranking = next
			}
		}
	}
}

// topOrder is how the rows are sorted.
type topOrder struct {
	key       string
	ascending bool
}

// press does what a key asks for; false ends.
func (t *topOrder) press(key byte) bool {
	keys := append([]string{topByLie}, topKeys()...)
	at := slices.Index(keys, t.key)
	switch key {
	case 'q', 'Q', 3, 4: // and ^C, ^D
		return false
	case 'r', 'R':
		t.ascending = !t.ascending
		return true
	case '>', '.':
		at = (at + 1) % len(keys)
	case '<', ',':
		at = (at + len(keys) - 1) % len(keys)
	default:
		return true
	}
	t.key = keys[at]
	t.ascending = t.key == liars.ByName
	return true
}

// printTop prints nothing but the rows as JSON; as a table also what they rest on.
func printTop(out io.Writer, o *options, ranking *liars.Ranking, order topOrder) error {
	var rows []liars.Row
	if ranking != nil {
		rows = slices.Clone(ranking.Containers)
		liars.Sort(rows, order.key, order.ascending)
		if order.key == topByLie && order.ascending {
			slices.Reverse(rows)
		}
		rows = rows[:min(len(rows), o.topRows)]
	}
	if o.topOutput == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if rows == nil {
			rows = []liars.Row{}
		}
		return enc.Encode(rows)
	}
	if ranking == nil {
		_, err := fmt.Fprintln(out, "Nothing has been sampled yet.")
		return err
	}
	by := "the biggest liar first"
	if order.key != topByLie {
		by = "by " + order.key
	}
	if order.ascending && order.key != liars.ByName {
		by += ", turned round"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %d of %d containers, %s; CPU in cores, throttled over the last %s\n\n",
		ranking.At.Format(time.TimeOnly), len(rows), ranking.Total, by, window(rows))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	inPods := slices.ContainsFunc(rows, func(r liars.Row) bool { return r.Pod != "" })
	if inPods {
		fmt.Fprint(w, "NAMESPACE\tPOD\t")
	}
	fmt.Fprintln(w, "CONTAINER\tREPORTED\tOF LIMIT\tTHROTTLED\tUSED\tLIMIT\tWANTED\tGAP")
	for _, r := range rows {
		if inPods {
			fmt.Fprintf(w, "%s\t%s\t", dash(printable(r.Namespace)), dash(printable(r.Pod)))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(printable(shorten(r.Container))),
			cores(r.Reported), percent(r.ReportedShare), percent(r.ThrottleRatio), cores(r.Used), cores(r.Limit), cores(r.Demand), cores(r.Gap))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(r liars.Row) bool { return r.Reported != nil }) {
		fmt.Fprintln(&b, "\nNothing is reported yet: a reported figure is the mean of some 15 s.")
	}
	for _, m := range ranking.Missing {
		fmt.Fprintf(&b, "\nNot measured: %s (%s).\n", m.What, m.Why)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printable keeps a name from moving the cursor, or doing worse: a cgroup's may hold
// anything but a slash and NUL.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, name)
}

// window is the longest that the rows' throttle ratios look back on.
func window(rows []liars.Row) time.Duration {
	var seconds float64
	for _, r := range rows {
		seconds = max(seconds, r.WindowSeconds)
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second)
}

// shorten cuts container IDs to the 12 digits that people know them by, and paths to
// their end, which tells more than their beginning.
func shorten(path string) string {
	const most = 64
	path = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{52}\b`).ReplaceAllString(path, "$1")
	if runes := []rune(path); len(runes) > most {
		return "…" + string(runes[len(runes)-most+1:])
	}
	return path
}

func cores(f *float64) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *f)
}

func percent(f *float64) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", *f*100)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
