// Command soak runs the exporter beside many cgroups of its own, some of which come and
// go all the time, and holds what it uses to stay flat. As root, from within e2e/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/soak"
	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
)

type options struct {
	exporter, address string
	length, every     time.Duration
	containers        int
	churn             float64
}

func main() {
	var o options
	flag.StringVar(&o.exporter, "exporter", "../bin/kernel-gossip-exporter", "the exporter's binary")
	flag.StringVar(&o.address, "address", "127.0.0.1:19955", "where it is to serve")
	flag.DurationVar(&o.length, "length", time.Hour, "how long it runs")
	flag.DurationVar(&o.every, "every", 5*time.Second, "how often it is scraped")
	flag.IntVar(&o.containers, "containers", 250, "cgroups that stay, each with a limit and a process")
	flag.Float64Var(&o.churn, "churn", 10, "cgroups made and removed a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	var groups []*throttled.Group
	defer func() {
		for _, g := range groups {
			err = errors.Join(err, g.Close())
		}
	}()
	for i := range o.containers {
		g, err := throttled.New(fmt.Sprintf("kernel-gossip-soak-%d-%d", os.Getpid(), i), 10*time.Millisecond)
		if err != nil {
			return err
		}
		groups = append(groups, g)
	}
	exporter := exec.Command(o.exporter, "--web.listen-address="+o.address, "--kubernetes=off", "--log.level=warn")
	exporter.Stdout, exporter.Stderr = os.Stderr, os.Stderr
	exporter.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := exporter.Start(); err != nil {
		return fmt.Errorf("starting the exporter (make build makes it): %w", err)
	}
	defer func() {
		_ = exporter.Process.Signal(syscall.SIGTERM)
		_ = exporter.Wait() // as it ends, so be it
	}()

	ctx, end := context.WithTimeout(ctx, o.length)
	defer end()
	var churning sync.WaitGroup
	made, failed := 0, error(nil)
	churning.Go(func() { made, failed = churn(ctx, o.churn) })
	points := watch(ctx, o)
	end()
	churning.Wait()
	if failed != nil {
		return failed
	}
	verdicts, err := soak.Judge(points, soak.Levels())
	if err != nil {
		return err
	}
	first, last := points[0], points[len(points)-1]
	took := last.At - first.At
	const cpu = "process_cpu_seconds_total"
	fmt.Printf("%d cgroups that stay, %d made and removed in %s; CPU %.2f %% of one core, scraped every %s\n\n%s",
		o.containers, made, took.Round(time.Second), 100*(last.Values[cpu]-first.Values[cpu])/took.Seconds(), o.every, soak.Table(verdicts))
	for _, v := range verdicts {
		if !v.Flat {
			err = errors.Join(err, fmt.Errorf("%s: %.0f at first, %.0f at last", v.Name, v.Begin, v.End))
		}
	}
	return err
}

// watch scrapes until ctx ends. A scrape that fails while the exporter starts is passed over.
func watch(ctx context.Context, o options) (points []soak.Point) {
	began := time.Now()
	ticker := time.NewTicker(o.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return points
		case <-ticker.C:
		}
		p, err := scrape(ctx, o.address, time.Since(began))
		if err != nil {
			if ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "soak:", err)
			}
			continue
		}
		points = append(points, p)
	}
}

func scrape(ctx context.Context, address string, at time.Duration) (soak.Point, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return soak.Point{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return soak.Point{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return soak.Point{}, fmt.Errorf("scraping: %s", resp.Status)
	}
	return soak.Read(at, resp.Body)
}

// churn makes cgroups with a process in each, and removes each after a second or so.
func churn(ctx context.Context, perSecond float64) (made int, err error) {
	if perSecond <= 0 {
		return 0, nil
	}
	var alive []*throttled.Group
	defer func() {
		for _, g := range alive {
			err = errors.Join(err, g.Close())
		}
	}()
	ticker := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return made, nil
		case <-ticker.C:
		}
		g, err := throttled.New(fmt.Sprintf("kernel-gossip-soak-%d-brief-%d", os.Getpid(), made), 10*time.Millisecond)
		if err != nil {
			return made, err
		}
		made++
		if alive = append(alive, g); len(alive) > int(perSecond) {
			if err := alive[0].Close(); err != nil {
				return made, err
			}
			alive = alive[1:]
		}
	}
}
