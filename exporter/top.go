package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
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
	// unmeasured stands where there is no figure; it is never a 0.
	unmeasured = "-"
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

// showTop prints what ask tells: once where nobody watches, else again and again. An
// exporter that can't be reached is an error the first time; later its last figures
// stay, with the error.
func (o *options) showTop(ctx context.Context, out io.Writer, ask func() (*liars.Ranking, error)) error {
	order := topOrder{key: o.topSort, ascending: o.topSort == liars.ByName}
	terminal := terminalOf(out)
	if o.topOnce || o.topOutput == "json" || terminal == nil {
		ranking, err := ask()
		if err != nil || ctx.Err() != nil {
			return err
		}
		return printTop(out, o, ranking, order)
	}
	ranking, err := ask()
	if err != nil || ctx.Err() != nil {
		return err
	}
	screen, err := openScreen(ctx, terminal)
	if err != nil {
		return fmt.Errorf("preparing the terminal: %w", err)
	}
	defer screen.close()
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	v := view{order: order, ranking: ranking}
	for {
		if err := screen.show(&v); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-screen.keys:
			if !v.press(key) {
				return nil
			}
		case <-screen.resized:
		case <-tick.C:
			if v.paused {
				continue
			}
			var next *liars.Ranking
			if next, v.stale = ask(); v.stale == nil {
				v.ranking = next
			}
		}
	}
}

// topOrder is how the rows are sorted.
type topOrder struct {
	key       string
	ascending bool
}

// turn sorts by the column that many places further.
func (t *topOrder) turn(by int) {
	keys := append([]string{topByLie}, topKeys()...)
	at := slices.Index(keys, t.key) + by + len(keys)
	t.key = keys[at%len(keys)]
	t.ascending = t.key == liars.ByName
}

// sorted are the ranking's rows in this order.
func (t topOrder) sorted(ranking *liars.Ranking) []liars.Row {
	if ranking == nil {
		return nil
	}
	rows := slices.Clone(ranking.Containers)
	liars.Sort(rows, t.key, t.ascending)
	if t.key == topByLie && t.ascending {
		slices.Reverse(rows)
	}
	return rows
}

// String says the order in words.
func (t topOrder) String() string {
	by := "the biggest liar first"
	if t.key != topByLie {
		by = "by " + t.key
	}
	if t.ascending && t.key != liars.ByName {
		by += ", turned round"
	}
	return by
}

// printTop prints nothing but the rows as JSON; as a table also what they rest on.
func printTop(out io.Writer, o *options, ranking *liars.Ranking, order topOrder) error {
	rows := order.sorted(ranking)
	rows = rows[:min(len(rows), o.topRows)]
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
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s; %d shown, %s\n", ranking.At.Format(time.TimeOnly), summary(ranking), len(rows), order)
	fmt.Fprintf(&b, "%s\n\n", units(rows))
	head, body := topTable(rows, order, false, 0)
	for _, l := range append([]line{head}, body...) {
		fmt.Fprintln(&b, l.plain())
	}
	for _, n := range notes(ranking) {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// summary is what a person wants to know first.
func summary(ranking *liars.Ranking) string {
	of := "containers"
	if ranking.Total == 1 {
		of = "container"
	}
	switch lying := liars.Count(ranking.Containers, (*liars.Row).Lying); lying {
	case 0:
		return fmt.Sprintf("%d %s, none lies", ranking.Total, of)
	case 1:
		return fmt.Sprintf("%d %s, 1 lies: it looks healthy and is throttled", ranking.Total, of)
	default:
		return fmt.Sprintf("%d %s, %d lie: they look healthy and are throttled", ranking.Total, of, lying)
	}
}

// notes tell what is not shown, and why.
func notes(ranking *liars.Ranking) []string {
	var out []string
	switch {
	case ranking.Total == 0:
		out = append(out, "No container or service was found; kernel-gossip-exporter doctor tells where they are looked for.")
	case !slices.ContainsFunc(ranking.Containers, func(r liars.Row) bool { return r.Reported != nil }):
		out = append(out, "Nothing is reported yet: a reported figure is the mean of some 15 s.")
	}
	for _, m := range ranking.Missing {
		out = append(out, fmt.Sprintf("Not measured: %s (%s).", m.What, m.Why))
	}
	return out
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

// units tells what the figures are in, and how far back those of throttling look.
func units(rows []liars.Row) string {
	var seconds float64
	for _, r := range rows {
		seconds = max(seconds, r.WindowSeconds)
	}
	if seconds < 1 {
		return "CPU in cores"
	}
	return fmt.Sprintf("CPU in cores, throttled over the last %.0f s", seconds)
}

// shorten cuts container IDs to the 12 digits that people know them by, and paths to
// their end, which tells more than their beginning.
func shorten(path string) string {
	const most = 64
	return ending(liars.Short(path), most)
}

// ending is at most so many of the last characters.
func ending(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return "…" + string(runes[len(runes)-most+1:])
	}
	return s
}

func cores(f *float64) string {
	if f == nil {
		return unmeasured
	}
	return fmt.Sprintf("%.3f", *f)
}

func percent(f *float64) string {
	if f == nil {
		return unmeasured
	}
	return fmt.Sprintf("%.1f %%", *f*100)
}

func dash(s string) string {
	if s == "" {
		return unmeasured
	}
	return s
}
