// Command beside runs the exporter, cAdvisor as the kubelet has it, and node_exporter on
// the same containers at the same time, and writes what each of them takes into
// docs/performance.md. As root, from within e2e/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/beside"
	"github.com/kernel-gossip/kernel-gossip/e2e/performance"
)

type options struct {
	length, settle, every time.Duration
	containers, churn     []int
	markdown              string
}

func main() {
	var o options
	flag.DurationVar(&o.length, "length", 45*time.Second, "how long each measurement lasts")
	flag.DurationVar(&o.settle, "settle", 25*time.Second, "how long to wait before it")
	flag.DurationVar(&o.every, "every", 15*time.Second, "how often each is scraped")
	flag.StringVar(&o.markdown, "markdown", "../docs/performance.md", "the document that gets the table; empty: none")
	o.containers, o.churn = []int{20, 250, 1000}, []int{0, 10}
	flag.Func("containers", "numbers of containers (20,250,1000)", list(&o.containers))
	flag.Func("churn", "containers made and removed a second (0,10)", list(&o.churn))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "beside:", err)
		os.Exit(1)
	}
}

func list(into *[]int) func(string) error {
	return func(value string) error {
		*into = nil
		for field := range strings.SplitSeq(value, ",") {
			n, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			*into = append(*into, n)
		}
		return nil
	}
}

// rival is a process that is measured.
type rival struct {
	name    string
	url     string
	command []string
	group   *beside.Group
	scrapes []beside.Scrape
	before  beside.Usage
	probes  float64
}

func rivals() []*rival {
	return []*rival{
		{name: "**kernel-gossip**", url: "http://127.0.0.1:19955/metrics", command: []string{
			"../bin/kernel-gossip-exporter", "--web.listen-address=127.0.0.1:19955", "--kubernetes=off", "--log.level=error"}},
		{name: "cAdvisor as in the kubelet", url: "http://127.0.0.1:19957/metrics", command: []string{
			"../bin/cadvisor", "-listen=127.0.0.1:19957", "-root=/kubepods"}},
		{name: "node_exporter, of the machine alone", url: "http://127.0.0.1:19958/metrics", command: []string{
			"prometheus-node-exporter", "--web.listen-address=127.0.0.1:19958", "--log.level=error"}},
	}
}

func run(ctx context.Context, o options) error {
	var results []beside.Result
	for _, n := range o.containers {
		for _, churn := range o.churn {
			r, err := measure(ctx, o, n, churn)
			if err != nil {
				return fmt.Errorf("%d containers, %d made and removed a second: %w", n, churn, err)
			}
			results = append(results, r...)
			fmt.Print(beside.Table(r))
		}
	}
	fmt.Print("\n", beside.Table(results))
	if o.markdown == "" {
		return nil
	}
	return performance.Replace(o.markdown, performance.Beside, document(o, results))
}

func document(o options, results []beside.Result) string {
	return fmt.Sprintf("Written by `make bench-beside`, on %s: all three at once on the same containers, each of which has a CPU limit and a\n"+
		"process that sleeps; measured for %s, each scraped every %s. CPU and what is charged are the kernel's\n"+
		"account of each one's cgroup. The exporter samples every second, cAdvisor every 10 to 15. Off-cluster the exporter shows each pod's\n"+
		"own cgroup as well, as cAdvisor does: 250 containers are 500 cgroups. \"Of files\" is the program's own file and, of\n"+
		"kernel-gossip, 8 MiB of the ring of births, mapped twice; what is charged has the BPF maps and cached files too.\n"+
		"\"In its probes\" is what BPF programs took of whoever met them, on the whole machine.\n\n"+
		"The goals at 250 are under 1 %% of a core and under 50 MiB resident, a fifth of cAdvisor's CPU or less and a tenth of the time of its scrape.\n\n",
		performance.Machine(), o.length, o.every) + beside.Table(results)
}

func measure(ctx context.Context, o options, n, churn int) (results []beside.Result, err error) {
	var groups []*beside.Group
	rs := rivals()
	defer func() {
		for _, r := range rs {
			if r.group != nil {
				err = errors.Join(err, r.group.Close())
			}
		}
		for _, g := range groups {
			err = errors.Join(err, g.Close())
		}
	}()
	for i := range n {
		g, err := container(i)
		if g != nil {
			groups = append(groups, g)
		}
		if err != nil {
			return nil, err
		}
	}
	for i, r := range rs {
		if r.group, err = beside.NewGroup(fmt.Sprintf("/kernel-gossip-beside-%d", i)); err != nil {
			return nil, err
		}
		cmd := exec.Command(r.command[0], r.command[1:]...)
		cmd.Stderr = os.Stderr
		cmd.Env = os.Environ()
		if err := r.group.Start(cmd); err != nil {
			return nil, err
		}
	}
	ctx, end := context.WithCancel(ctx)
	var churning sync.WaitGroup
	failed := error(nil)
	churning.Go(func() { failed = comeAndGo(ctx, n, churn) })
	defer func() {
		end()
		churning.Wait()
		err = errors.Join(err, failed)
	}()

	if err := wait(ctx, o.settle); err != nil {
		return nil, err
	}
	for _, r := range rs {
		s, err := beside.Get(ctx, r.url) // what comes with the first
		if err != nil {
			return nil, err
		}
		r.probes = s.Values[runSeconds]
		if r.before, err = r.group.Usage(); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	for time.Since(began) < o.length {
		if err := wait(ctx, o.every); err != nil {
			return nil, err
		}
		for _, r := range rs {
			s, err := beside.Get(ctx, r.url)
			if err != nil {
				return nil, err
			}
			r.scrapes = append(r.scrapes, s)
		}
	}
	took := time.Since(began).Seconds()
	for _, r := range rs {
		u, err := r.group.Usage()
		if err != nil {
			return nil, err
		}
		probes := r.scrapes[len(r.scrapes)-1].Values[runSeconds] - r.probes
		results = append(results, beside.Result{
			Name: r.name, Containers: n, Churn: float64(churn), Usage: u,
			Cores: (u.CPU - r.before.CPU).Seconds() / took, Probes: probes / took, Scrape: beside.Median(r.scrapes),
		})
	}
	return results, nil
}

const runSeconds = "kernel_gossip_exporter_bpf_run_seconds_total"

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// container is one as the kubelet names them, with a limit and a process.
func container(i int) (*beside.Group, error) {
	g, err := beside.NewGroup(fmt.Sprintf("/kubepods/burstable/pod00000000-0000-4000-8000-%012d/%064x", i, i+1))
	if err != nil {
		return g, err
	}
	if err := g.Limit(0.1); err != nil {
		return g, err
	}
	return g, g.Start(exec.Command("sleep", "infinity"))
}

// comeAndGo makes containers, and removes each after a second or so.
func comeAndGo(ctx context.Context, from, perSecond int) (err error) {
	if perSecond <= 0 {
		return nil
	}
	var alive []*beside.Group
	defer func() {
		for _, g := range alive {
			err = errors.Join(err, g.Close())
		}
	}()
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	for i := from; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		g, err := container(i)
		if g != nil {
			alive = append(alive, g)
		}
		if err != nil {
			return err
		}
		if len(alive) > perSecond {
			if err := alive[0].Close(); err != nil {
				return err
			}
			alive = alive[1:]
		}
	}
}
