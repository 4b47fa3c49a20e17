// Command latency measures how long it takes from the start of throttling to the
// KernelWhisper in a real API server, by the direct way: kernel, exporter, operator,
// kube-apiserver, all on this machine.
//
// A run makes a cgroup with a quota, starts a busy process in it at a random moment of
// the exporter's second, reads the kernel's counters every few milliseconds to know
// when the threshold is truly crossed, and waits for the object in a watch.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
	"github.com/kernel-gossip/kernel-gossip/e2e/performance"
	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const (
	namespace = "kernel-gossip"
	busyArg   = "busy"
	quota     = 20 * time.Millisecond
	period    = 100 * time.Millisecond
	// The exporter's defaults: over half of the periods, of at least 20.
	threshold  = 0.5
	minPeriods = 20
	look       = 2 * time.Millisecond
	giveUp     = 30 * time.Second
)

type options struct {
	runs, beside, containers int
	bin, crds, markdown      string
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == busyArg {
		busy()
		return
	}
	var o options
	flag.IntVar(&o.runs, "runs", 50, "how often to measure")
	flag.IntVar(&o.beside, "beside", 4, "runs side by side")
	flag.IntVar(&o.containers, "containers", 0, "other cgroups that the exporter reads meanwhile, each with a limit and a process")
	flag.StringVar(&o.bin, "bin", "../bin", "directory of the two binaries")
	flag.StringVar(&o.crds, "crds", "../deploy/crds", "directory of the CRDs")
	flag.StringVar(&o.markdown, "markdown", "", "a document whose section about this is written anew, such as ../docs/performance.md")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := measure(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "latency:", err)
		os.Exit(1)
	}
}

// busy takes all the CPU it gets, once its parent says so.
func busy() {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return
	}
	for n := uint64(1); ; {
		n *= 31
	}
}

func measure(ctx context.Context, o options) (err error) {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("[%5.1fs] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	server, err := apiserver.Start(ctx, apiserver.Options{CRDs: []string{o.crds}})
	if err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	api, err := client.NewWithWatch(server.Config(), client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	if err := api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return fmt.Errorf("making the namespace: %w", err)
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching() // an API server waits for its watchers before it ends
	seen, err := watchWhispers(watching, api)
	if err != nil {
		return err
	}
	operator, err := start(ctx, filepath.Join(o.bin, "kernel-gossip-operator"), "--kubeconfig="+server.Kubeconfig(), "--whisper.max-per-namespace=0")
	if err != nil {
		return err
	}
	defer operator.stop()
	exporter, err := start(ctx, filepath.Join(o.bin, "kernel-gossip-exporter"), "--kubernetes=off", "--whisper.url="+operator.url)
	if err != nil {
		return err
	}
	defer exporter.stop()
	say("API server, operator and exporter are ready")
	var others []*throttled.Group
	defer func() {
		for _, g := range others {
			err = errors.Join(err, g.Close())
		}
	}()
	for i := range o.containers {
		g, err := throttled.New(fmt.Sprintf("kernel-gossip-latency-%d-other-%d", os.Getpid(), i), quota)
		if err != nil {
			return err
		}
		others = append(others, g)
	}

	mounts, err := cgroup.FindMounts("", "/proc")
	if err != nil {
		return err
	}
	var results []result
	for len(results) < o.runs {
		wave := make([]result, min(o.beside, o.runs-len(results)))
		errs := make([]error, len(wave))
		var wg sync.WaitGroup
		for i := range wave {
			wg.Go(func() {
				name := fmt.Sprintf("kernel-gossip-latency-%d-%d", os.Getpid(), len(results)+i)
				wave[i], errs[i] = run(ctx, mounts, name, seen)
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		results = append(results, wave...)
		say("%d of %d runs", len(results), o.runs)
	}
	table := report(results)
	fmt.Print("\n", table)
	if o.markdown == "" {
		return nil
	}
	return performance.Replace(o.markdown, performance.Latency, fmt.Sprintf(
		"Written by `make latency`, on %s: kernel, exporter, operator and a real API server on one machine, %d runs, %d side by\n"+
			"side, beside %d other cgroups that the exporter reads each second. A load begins at a random moment of that second; the threshold\n"+
			"is crossed when the kernel's own counters, read every %s, say so. The goal is a p99 under 2 s from the crossing.\n\n%s",
		performance.Machine(), o.runs, o.beside, o.containers, look, table))
}

// result is of one run: both times end when the watch told of the object.
type result struct{ fromStart, fromCrossing time.Duration }

func report(results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %d runs, to the object in the API server | p50 | p99 | slowest |\n|---|---|---|---|\n", len(results))
	for _, row := range []struct {
		what string
		of   func(result) time.Duration
	}{
		{"from the start of the load", func(r result) time.Duration { return r.fromStart }},
		{"from the moment the threshold was crossed", func(r result) time.Duration { return r.fromCrossing }},
	} {
		all := make([]time.Duration, len(results))
		for i, r := range results {
			all[i] = row.of(r)
		}
		slices.Sort(all)
		at := func(q float64) time.Duration { // nearest rank
			return all[max(0, int(q*float64(len(all))+0.9999)-1)].Round(time.Millisecond)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.what, at(0.5), at(0.99), at(1))
	}
	return b.String()
}

// run measures once.
func run(ctx context.Context, mounts cgroup.Mounts, name string, seen *arrivals) (_ result, err error) {
	dirs, err := makeGroup(mounts, name)
	defer func() {
		for _, dir := range dirs {
			err = errors.Join(err, throttled.Remove(dir))
		}
	}()
	if err != nil {
		return result{}, err
	}
	cmd := exec.Command("/proc/self/exe", busyArg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	gate, err := cmd.StdinPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, fmt.Errorf("starting the load: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
			return result{}, fmt.Errorf("putting the load into its cgroup: %w", err)
		}
	}
	arrived := seen.of(name)
	time.Sleep(rand.N(time.Second)) // at any moment of the exporter's second

	if _, err := gate.Write([]byte{'\n'}); err != nil {
		return result{}, err
	}
	began := time.Now()
	var crossed time.Time
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case at := <-arrived:
			if crossed.IsZero() {
				return result{}, fmt.Errorf("%s: told before the kernel's counters crossed the threshold", name)
			}
			return result{at.Sub(began), at.Sub(crossed)}, nil
		case <-ticker.C:
			if crossed.IsZero() {
				periods, throttled, err := counters(dirs[0])
				if err != nil {
					return result{}, err
				}
				if periods >= minPeriods && throttled >= threshold*periods {
					crossed = time.Now()
				}
			}
			if time.Since(began) > giveUp {
				return result{}, fmt.Errorf("%s: no object after %s", name, giveUp)
			}
		case <-ctx.Done():
			return result{}, ctx.Err()
		}
	}
}

// makeGroup makes a cgroup with a quota, where the cpu controller is and where usage
// is counted. It returns what it made, the cpu controller's first.
func makeGroup(mounts cgroup.Mounts, name string) (dirs []string, err error) {
	roots := []string{mounts.CPU}
	files := map[string]string{"cpu.max": fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())}
	if mounts.Version == 2 {
		if err := os.WriteFile(filepath.Join(mounts.CPU, "cgroup.subtree_control"), []byte("+cpu"), 0o644); err != nil {
			return nil, fmt.Errorf("enabling the cpu controller: %w", err)
		}
	} else {
		files = map[string]string{
			"cpu.cfs_period_us": strconv.FormatInt(period.Microseconds(), 10),
			"cpu.cfs_quota_us":  strconv.FormatInt(quota.Microseconds(), 10),
		}
		if mounts.CPUAcct != "" && mounts.CPUAcct != mounts.CPU {
			roots = append(roots, mounts.CPUAcct)
		}
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return dirs, fmt.Errorf("making a cgroup (run as root, outside a container): %w", err)
		}
		dirs = append(dirs, dir)
	}
	for file, value := range files {
		if err := os.WriteFile(filepath.Join(dirs[0], file), []byte(value), 0o644); err != nil {
			return dirs, fmt.Errorf("setting the quota: %w", err)
		}
	}
	return dirs, nil
}

func counters(dir string) (periods, throttled float64, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var into *float64
		switch key {
		case "nr_periods":
			into = &periods
		case "nr_throttled":
			into = &throttled
		default:
			continue
		}
		if *into, err = strconv.ParseFloat(value, 64); err != nil {
			return 0, 0, fmt.Errorf("%s of cpu.stat: %w", key, err)
		}
	}
	return periods, throttled, nil
}

// arrivals are the times at which objects came to be, by the name of their subject.
type arrivals struct {
	mu    sync.Mutex
	first map[string]chan time.Time
}

func (a *arrivals) of(subject string) chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.first[subject]
	if c == nil {
		c = make(chan time.Time, 1)
		a.first[subject] = c
	}
	return c
}

func watchWhispers(ctx context.Context, api client.WithWatch) (*arrivals, error) {
	w, err := api.Watch(ctx, &v1alpha1.KernelWhisperList{}, client.InNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("watching KernelWhispers: %w", err)
	}
	a := &arrivals{first: map[string]chan time.Time{}}
	go func() {
		defer w.Stop()
		for event := range w.ResultChan() {
			now := time.Now()
			if whisper, ok := event.Object.(*v1alpha1.KernelWhisper); ok {
				select {
				case a.of(whisper.Spec.PodName) <- now:
				default: // not the first
				}
			}
		}
	}()
	return a, nil
}

// server is one of our binaries.
type server struct {
	url string
	cmd *exec.Cmd
}

func start(ctx context.Context, binary string, args ...string) (*server, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return nil, err
	}
	s := &server{"http://" + address, exec.Command(binary, append(args, "--web.listen-address="+address, "--log.level=error")...)}
	s.cmd.Stdout, s.cmd.Stderr = os.Stderr, os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s (make build): %w", binary, err)
	}
	for deadline := time.Now().Add(giveUp); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(s.url + "/-/ready")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s is not ready", binary)
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}
