package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tPOD\tCONTAINER\tREPORTED\tOF LIMIT\tTHROTTLED\tUSED\tLIMIT\tWANTED\tGAP")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(r.Namespace), dash(r.Pod), dash(r.Container),
			cores(r.Reported), percent(r.ReportedShare), percent(r.ThrottleRatio), cores(r.Used), cores(r.Limit), cores(r.Demand), cores(r.Gap))
	}
	return w.Flush()
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
