// Command whatif records shapes of work at one CPU limit after the other on this
// machine's own scheduler, as a file of traces; as root. whatif evaluate FILE… holds
// the predictions from each run against the others.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/e2e/performance"
	"github.com/kernel-gossip/kernel-gossip/e2e/whatif"
	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
)

const asChild = "shape"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "whatif:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if len(os.Args) > 1 && os.Args[1] == asChild {
		return whatif.Child(ctx, os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == "evaluate" {
		return evaluate(os.Args[2:])
	}
	return record(ctx)
}

// evaluate holds predictions from recorded traces against what was recorded.
func evaluate(args []string) error {
	flags := flag.NewFlagSet("evaluate", flag.ContinueOnError)
	document := flags.String("markdown", "", "a document whose section about this is written anew, such as ../docs/limits.md")
	if err := flags.Parse(args); err != nil {
		return err
	}
	traces, err := whatif.ReadFiles(flags.Args()...)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d runs on %s.\n\n%s", len(traces.Runs), traces.Machine, whatif.Accuracy(whatif.Pairs(traces)))
	fmt.Print(text)
	if *document == "" {
		return nil
	}
	return markdown.Update(*document, "accuracy", text)
}

func record(ctx context.Context) (err error) {
	out := flag.String("traces", "traces.txt", "file that the runs are written to")
	seed := flag.Uint64("seed", 1, "seed of the shapes")
	length := flag.Duration("length", 15*time.Second, "length of a run")
	only := flag.String("shape", "", "one shape; default all")
	limits := whatif.Limits()
	flag.Func("limits", "limits per period of 100ms, e.g. 20ms,60ms; default "+fmt.Sprint(limits), func(list string) error {
		limits = nil
		for text := range strings.SplitSeq(list, ",") {
			limit, err := time.ParseDuration(text)
			if err != nil {
				return err
			}
			limits = append(limits, limit)
		}
		return nil
	})
	perMS := flag.Int("iterations", 0, "iterations that are a millisecond of work; default: calibrate")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	tracer := bpf.Open(ctx, bpf.Config{Log: log, Probes: []bpf.Probe{bpf.ProbeDemand}})
	defer func() { err = errors.Join(err, tracer.Close()) }()
	if *perMS == 0 {
		*perMS = whatif.Calibrate()
	}
	log.Info("calibrated", "iterations_per_ms", *perMS)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &whatif.Recorder{Tracer: tracer, Self: []string{self, asChild}, PerMS: *perMS, Log: log}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := whatif.Begin(f, performance.Machine()); err != nil {
		return err
	}
	for _, shape := range whatif.Shapes() {
		if *only != "" && *only != shape.Name {
			continue
		}
		runs, err := r.Record(ctx, shape.Name, *seed, limits, *length)
		if err != nil {
			return err
		}
		for _, run := range runs {
			if err := run.Write(f); err != nil {
				return err
			}
			log.Info("recorded", "shape", shape.Name, "limit", run.Limit, "periods", run.Periods, "throttled", run.Throttled, "told", len(run.Trace))
		}
	}
	return nil
}
