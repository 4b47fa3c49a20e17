// Command load uses CPU in bursts, as a service does that works through batches: the
// kernel throttles it in nearly each period in which it works, and an average over
// 15 s stays far below its limit. Between the bursts, and whenever it is told to be
// calm, it does a little.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	var (
		threads  = flag.Int("threads", 2, "threads that work in a burst")
		busy     = flag.Duration("busy", 3*time.Second, "length of a burst")
		idle     = flag.Duration("idle", 4500*time.Millisecond, "rest between bursts")
		from     = flag.Int64("from", 0, "calm before this Unix time")
		until    = flag.Int64("until", 1<<62, "calm from this Unix time on")
		calm     = flag.Bool("calm", false, "never burst")
		rest     = flag.Duration("rest", 50*time.Millisecond, "pause between the bits of work while calm")
		stressed = flag.String("stress", "", "run stress-ng with these `arguments` until it ends or is to be calm, then be calm")
		network  = flag.String("network", "", "make TCP and UDP over loopback of these `kinds` instead of using CPU: calm, loss, queue, refuse, flood, netem")
		misdeed  = flag.String("misbehave", "", "do of what few containers should that `kind` instead of using CPU: unshare, ptrace, module")
		times    = flag.Int("times", 1, "how often to misbehave, at the start and whenever it is told to burst")
		show     = flag.String("print", "", "print that `file` and those named after it, and leave")
		tell     = flag.String("tell", "", "tell process 1 to be `calm` or to `burst`, and leave")
	)
	flag.Parse()
	if *show != "" {
		for _, path := range append([]string{*show}, flag.Args()...) {
			b, err := os.ReadFile(path)
			if err != nil {
				fmt.Fprintln(os.Stderr, "load:", err)
				os.Exit(1)
			}
			_, _ = os.Stdout.Write(b)
		}
		return
	}
	if *tell != "" {
		if err := send(*tell); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	var quiet atomic.Bool
	quiet.Store(*calm)
	told := make(chan struct{}, 1) // ends a rest
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			switch s {
			case syscall.SIGUSR1:
				quiet.Store(true)
			case syscall.SIGUSR2:
				quiet.Store(false)
			default:
				os.Exit(0)
			}
			select {
			case told <- struct{}{}:
			default:
			}
		}
	}()
	if *misdeed != "" {
		if err := misbehave(*misdeed, *times, told, quiet.Load); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
	}
	if *network != "" {
		if err := communicate(*network, quiet.Load); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
	}
	if *stressed != "" {
		if err := stress(*stressed, &quiet); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
	}
	for {
		now := time.Now().Unix()
		if quiet.Load() || now < *from || now >= *until {
			// By default work in every period, and far too little for any limit.
			spin(1, time.Now().Add(500*time.Microsecond), &quiet)
			pause(*rest, told)
			continue
		}
		spin(*threads, time.Now().Add(*busy), &quiet)
		pause(*idle, told)
	}
}

// pause does nothing at all, so that a rest adds no periods to those of the work,
// until it is over or it is told something.
func pause(d time.Duration, told <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-told:
	}
}

func send(what string) error {
	switch what {
	case "calm":
		return syscall.Kill(1, syscall.SIGUSR1)
	case "burst":
		return syscall.Kill(1, syscall.SIGUSR2)
	}
	return fmt.Errorf("-tell %q: can only tell calm or burst", what)
}

// spin makes system calls on each of the threads until end, or until it is to be calm.
func spin(threads int, end time.Time, quiet *atomic.Bool) {
	was := quiet.Load()
	var group sync.WaitGroup
	for range threads {
		group.Go(func() {
			for time.Now().Before(end) && quiet.Load() == was {
				syscall.Getppid()
			}
		})
	}
	group.Wait()
}
