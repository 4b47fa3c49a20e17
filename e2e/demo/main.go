// Command demo shows what averages hide: a workload that the usual view calls
// healthy and the kernel throttles, as metrics, as a firing alert and as a
// KernelWhisper, through the same binaries that are deployed.
//
// It runs a real workload in a cgroup of its own. Where no cgroup can be made it
// replays the recording of such a run: the exporter then reads a copy of the
// cgroup's files, which change as they did when they were recorded. It leaves
// nothing behind, however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience is how long the demo waits for the alert and the whisper.
const patience = 150 * time.Second

type options struct {
	bin    string // directory of the exporter and the operator
	keep   bool
	replay bool
	record string // file to write
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == burstArg {
		burst()
		return
	}
	if len(os.Args) == 2 && os.Args[1] == bornArg {
		return
	}
	var o options
	flag.StringVar(&o.bin, "bin", filepath.Dir(os.Args[0]), "directory with kernel-gossip-exporter and kernel-gossip-operator")
	flag.BoolVar(&o.keep, "keep", false, "leave everything open until Ctrl-C")
	flag.BoolVar(&o.replay, "replay", false, "replay the recording, also where cgroups can be made")
	flag.StringVar(&o.record, "record", "", "write a recording of this run to the file")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Println("\nEnded early. Nothing is left behind.")
		os.Exit(130) // as a shell reports SIGINT
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// source is what the exporter looks at.
type source interface {
	// container is how the exporter names it.
	container() string
	// exporterArgs are the flags that make the exporter see it.
	exporterArgs() []string
	// begin lets it run.
	begin() error
	// stat is a figure of the kernel's own cpu.stat.
	stat(field string) (uint64, error)
	// stop ends it and removes what it made.
	stop() error
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "kernel-gossip-demo-")
	if err != nil {
		return fmt.Errorf("make a working directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	out := newScreen(os.Stdout)
	src, tape, err := open(o, dir, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.stop()) }()

	s, err := startServers(ctx, o.bin, dir, src.exporterArgs())
	defer s.stop()
	if err != nil {
		return err
	}
	if tape == nil {
		tellMissing(ctx, o.bin, out)
	}
	if s.prometheus == "" {
		out.note("no Prometheus or Alertmanager is installed: no alert is shown; the whisper comes straight from the exporter")
	} else {
		out.note("alerts: the shipped rules with time running %d times faster, thresholds as they are", speed)
	}
	if err := src.begin(); err != nil {
		return err
	}
	var rec *recorder
	if o.record != "" {
		w, ok := src.(*workload)
		if !ok {
			return errors.New("-record needs a real run, and this machine can't make a cgroup")
		}
		rec = w.record()
	}
	v := &view{servers: s, src: src, tape: tape, out: out, began: time.Now(), record: rec}
	if err := v.watch(ctx); err != nil {
		return err
	}
	v.sum(ctx)
	if err := v.birth(ctx); err != nil {
		return err
	}
	if rec != nil {
		if err := rec.save(o.record); err != nil {
			return err
		}
		out.note("recorded %s", o.record)
	}
	if o.keep {
		s.tell(out)
		<-ctx.Done()
	}
	return nil
}

// open makes the cgroup, or prepares the replay; tape is nil in a real run.
func open(o options, dir string, out *screen) (_ source, tape *recording, err error) {
	why := errors.New("asked for by -replay")
	if !o.replay {
		var w *workload
		if w, why = newWorkload(); why == nil {
			out.title("on this machine's own kernel", platform(w.version), fmt.Sprintf(
				"A service with a CPU limit of %dm: %d threads work %.1f s and rest %.1f s, over and over,\n"+
					"as one that serves batches does. It runs in a cgroup of its own, %s.",
				1000*quota/period, threads, busy.Seconds(), idle.Seconds(), w.container()))
			return w, nil, nil
		}
	}
	if tape, err = shipped(); err != nil {
		return nil, nil, err
	}
	p, err := newPlayer(tape, dir)
	if err != nil {
		return nil, nil, err
	}
	out.replay = true
	out.title("REPLAY of a recorded run, not this machine", tape.Platform, fmt.Sprintf(
		"Why: %v.\n"+
			"Recorded %s. The exporter reads a copy of the cgroup's files that change as they did then;\n"+
			"everything after that is real. BPF programs can't be replayed: syscalls are shown as recorded.", why, tape.Made.Format("2 January 2006")))
	return p, tape, nil
}
