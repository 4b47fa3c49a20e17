package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

const (
	topEvery = 2 * time.Second
	// topFirst is how long the first ranking waits: three samples.
	topFirst = 2 * time.Second
)

// top prints the ranking once, or again and again until ctx ends.
func top(ctx context.Context, o *options, out io.Writer) error {
	p, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer p.close(o.log)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	p.start(ctx, group)
	group.Go(func() error { p.sampler.Run(ctx, nil); return nil })
	group.Go(func() error {
		defer stop()
		once := o.topOnce || o.topOutput == "json"
		wait := time.After(topFirst + 100*time.Millisecond)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-wait:
			}
			if !once {
				fmt.Fprint(out, "\x1b[H\x1b[2J")
			}
			if err := printTop(out, o, p.sampler.Snapshot()); err != nil {
				return fmt.Errorf("printing: %w", err)
			}
			if once {
				return nil
			}
			wait = time.After(topEvery)
		}
	})
	return group.Wait()
}

// printTop prints nothing but the rows as JSON; as a table also what they rest on.
func printTop(out io.Writer, o *options, snap *sampler.Snapshot) error {
	rows := liars.Rank(snap, o.topRows)
	if o.topOutput == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if rows == nil {
			rows = []liars.Row{}
		}
		return enc.Encode(rows)
	}
	if snap == nil {
		_, err := fmt.Fprintln(out, "Nothing has been sampled yet.")
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %d of %d containers, the biggest liar first; CPU in cores, throttled over the last %s\n\n",
		snap.At.Format(time.TimeOnly), len(rows), living(snap), window(rows))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	inPods := slices.ContainsFunc(rows, func(r liars.Row) bool { return r.Pod != "" })
	if inPods {
		fmt.Fprint(w, "NAMESPACE\tPOD\t")
	}
	fmt.Fprintln(w, "CONTAINER\tREPORTED\tOF LIMIT\tTHROTTLED\tUSED\tLIMIT\tWANTED\tGAP")
	for _, r := range rows {
		if inPods {
			fmt.Fprintf(w, "%s\t%s\t", dash(r.Namespace), dash(r.Pod))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(shorten(r.Container)),
			cores(r.Reported), percent(r.ReportedShare), percent(r.ThrottleRatio), cores(r.Used), cores(r.Limit), cores(r.Demand), cores(r.Gap))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(r liars.Row) bool { return r.Reported != nil }) {
		fmt.Fprintln(&b, "\nNothing is reported yet: a reported figure is the mean of some 15 s.")
	}
	for _, p := range snap.Probes {
		if !p.Attached {
			fmt.Fprintf(&b, "\nNot measured: %s (%s).\n", p.Lost, p.Reason)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func living(snap *sampler.Snapshot) (n int) {
	for i := range snap.Containers {
		if snap.Containers[i].Group.Gone.IsZero() {
			n++
		}
	}
	return n
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
