// Command kernel-gossip-exporter tells Prometheus, and the operator, what the
// kernel does to the containers of this machine and what the usual metrics hide.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	app, opts := newApp()
	command, err := app.Parse(os.Args[1:])
	if err != nil {
		kingpin.Fatalf("%s. See %s --help.", err, app.Name)
	}
	if command != "run" && !opts.levelSet {
		// Their output says what the log would.
		if err := opts.logging.Level.Set("error"); err != nil {
			kingpin.Fatalf("%s", err)
		}
	}
	opts.log = promslog.New(&opts.logging)
	switch command {
	case "run":
		err = run(ctx, opts)
	case "top":
		err = top(ctx, opts, os.Stdout)
	case "doctor":
		err = doctor(ctx, opts, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", app.Name, err)
		os.Exit(1)
	}
}
