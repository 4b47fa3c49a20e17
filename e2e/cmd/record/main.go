// Command record runs the exporter and the operator beside workloads on this
// machine's own kernel and keeps what they expose, for the dashboards' tests. It
// needs root and a cgroup hierarchy that may be written.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/kernel-gossip/kernel-gossip/e2e/recording"
	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
	"github.com/kernel-gossip/kernel-gossip/e2e/traffic"
)

// prefix begins the names of the cgroups that are recorded.
const prefix = "kernel-gossip-recorded-"

type options struct {
	bin, out         string
	instance, kernel string
	interval, length time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "../bin", "directory with kernel-gossip-exporter and kernel-gossip-operator")
	flag.StringVar(&o.out, "o", "../dashboards/testdata/recording.promql", "file to write")
	flag.DurationVar(&o.interval, "interval", 30*time.Second, "time between scrapes")
	flag.DurationVar(&o.length, "length", 13*time.Minute, "length of the recording; the alerts that it holds fire after 10 minutes")
	flag.StringVar(&o.instance, "instance", "node-1", "the node's name in the recording")
	flag.StringVar(&o.kernel, "kernel", "", "series of Debian's kernel to record on in QEMU, such as 6.12; default: this machine's kernel")
	network := flag.Bool("network", false, "make the recorded traffic, as one of the workloads")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	do := run
	switch {
	case *network:
		do = communicate
	case o.kernel != "":
		do = recordInGuest
	}
	err := do(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "kernel-gossip-record-")
	if err != nil {
		return fmt.Errorf("making a working directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	operator, exporter, err := addresses(ctx)
	if err != nil {
		return err
	}
	for _, program := range [][]string{
		{"kernel-gossip-operator", "--web.listen-address=" + operator, "--store.directory=" + dir},
		{"kernel-gossip-exporter", "--web.listen-address=" + exporter, "--kubernetes=off", "--whisper.url=http://" + operator, "--collector.whatif"},
	} {
		end, err := start(filepath.Join(o.bin, program[0]), program[1:]...)
		if err != nil {
			return err
		}
		defer end()
	}
	endWork, err := work()
	defer func() { err = errors.Join(err, endWork()) }()
	if err != nil {
		return err
	}

	targets := map[recording.Target]string{
		{Job: "kernel-gossip-exporter", Instance: o.instance}:                      "http://" + exporter + "/metrics",
		{Job: "kernel-gossip-operator", Instance: "operator beside " + o.instance}: "http://" + operator + "/metrics",
	}
	kept := &recording.Recording{}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for range int(o.length / o.interval) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		var scrapes []recording.Scrape
		for target, url := range targets {
			families, err := scrape(ctx, url)
			if err != nil {
				return err
			}
			scrapes = append(scrapes, recording.Scrape{Target: target, Families: families})
		}
		if err := kept.Add(scrapes, keep); err != nil {
			return err
		}
	}
	f, err := os.Create(o.out)
	if err != nil {
		return fmt.Errorf("writing the recording: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return kept.Write(f, fmt.Sprintf(`Scrapes of a real exporter and a real operator on Linux %s, %s.
Written by make record. Do not edit.`, release(), time.Now().UTC().Format(time.DateOnly)), o.interval)
}

// keep keeps the recorded cgroups, and what the programs tell of themselves.
func keep(name string, labels map[string]string) bool {
	if container, ok := labels["container"]; ok {
		return strings.HasPrefix(container, "/"+prefix)
	}
	return name == "up" || strings.HasPrefix(name, "kernel_gossip_") ||
		name == "process_cpu_seconds_total" || name == "process_resident_memory_bytes" || name == "process_start_time_seconds"
}

// liar works 0.4 s of every 1.2 s. Its use averages far below its limit of
// 0.4 CPUs, and the kernel throttles it in most periods in which it runs. Each
// minute it wants more memory than its limit lets it have.
const liar = `n=0
while :; do
	timeout 0.4 sh -c 'while :; do :; done'
	sleep 0.8
	n=$((n+1))
	[ $((n % 50)) = 10 ] || continue
	head -c 16m /dev/zero >"$FILE"
	head -c 64m /dev/zero | tail -c 64m >/dev/null
	rm -f "$FILE"
done`

// communicate waits for a byte, so that it is in its cgroup by then, and makes traffic
// that goes wrong in each way, and some that does not.
func communicate(ctx context.Context, _ options) error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("waiting to begin: %w", err)
	}
	return traffic.Run(ctx, []traffic.Kind{traffic.Loss, traffic.Queue, traffic.Refuse, traffic.Flood, traffic.Calm},
		func() bool { return false })
}

// startTraffic puts traffic into the liar's cgroup.
func startTraffic(g *throttled.Group) (end func() error, err error) {
	cmd := exec.Command("/proc/self/exe", "-network")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	gate, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("making the traffic's gate: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the traffic: %w", err)
	}
	end = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // killed
		return err
	}
	// On cgroup v2 it is in the liar's memory cgroup as well, and not to be killed there.
	// Where that may not be asked for, memory is a hierarchy of its own.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("-1000"), 0o644); err != nil && !errors.Is(err, os.ErrPermission) {
		return end, fmt.Errorf("keeping the traffic from being killed: %w", err)
	}
	if err := g.Join(cmd.Process.Pid); err != nil {
		return end, err
	}
	if _, err := gate.Write([]byte{1}); err != nil {
		return end, fmt.Errorf("starting the traffic: %w", err)
	}
	return end, nil
}

// work starts the workloads; the function that ends them is there also with an error.
func work() (end func() error, err error) {
	var ends []func() error
	end = func() error {
		var errs []error
		for _, e := range ends {
			errs = append(errs, e())
		}
		return errors.Join(errs...)
	}
	file, err := os.CreateTemp("", "kernel-gossip-record-")
	if err != nil {
		return end, fmt.Errorf("making the workload's file: %w", err)
	}
	ends = append(ends, func() error { return os.RemoveAll(file.Name()) })
	if err := file.Close(); err != nil {
		return end, err
	}
	bursts, err := throttled.New(prefix+"liar", 40*time.Millisecond)
	if err != nil {
		return end, err
	}
	ends = append(ends, bursts.Close)
	cmd := exec.Command("sh", "-c", liar)
	cmd.Env = append(os.Environ(), "FILE="+file.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return end, fmt.Errorf("starting the workload: %w", err)
	}
	ends = append([]func() error{func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed
		return err
	}}, ends...)
	memory, err := limitMemory(prefix+"liar", 24<<20)
	if err != nil {
		return end, err
	}
	ends = append(ends, memory.remove)
	if err := errors.Join(memory.join(cmd.Process.Pid), bursts.Join(cmd.Process.Pid)); err != nil {
		return end, err
	}

	endTraffic, err := startTraffic(bursts)
	if endTraffic != nil {
		ends = append([]func() error{endTraffic}, ends...)
	}
	if err != nil {
		return end, err
	}

	busy, err := throttled.New(prefix+"busy", 10*time.Millisecond)
	if err != nil {
		return end, err
	}
	ends = append(ends, busy.Close)
	return end, busy.Work()
}

// memoryGroup is a cgroup of the memory controller, on v2 the one that throttled made.
type memoryGroup struct {
	dir  string
	made bool
}

func limitMemory(name string, bytes int) (memoryGroup, error) {
	g := memoryGroup{dir: filepath.Join("/sys/fs/cgroup", name)}
	file := "memory.max"
	if v1 := "/sys/fs/cgroup/memory"; exists(filepath.Join(v1, "memory.limit_in_bytes")) {
		g, file = memoryGroup{dir: filepath.Join(v1, name), made: true}, "memory.limit_in_bytes"
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			return g, fmt.Errorf("making a cgroup: %w", err)
		}
	} else if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
		return g, fmt.Errorf("enabling the memory controller: %w", err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, file), fmt.Append(nil, bytes), 0o644); err != nil {
		return g, errors.Join(fmt.Errorf("limiting memory: %w", err), g.remove())
	}
	return g, nil
}

func (g memoryGroup) join(pid int) error {
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), fmt.Append(nil, pid), 0o644); err != nil {
		return fmt.Errorf("putting the workload into its memory cgroup: %w", err)
	}
	return nil
}

// remove waits for the last process to go.
func (g memoryGroup) remove() error {
	if !g.made {
		return nil
	}
	var err error
	for range 100 {
		if err = os.Remove(g.dir); err == nil || os.IsNotExist(err) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("removing a cgroup: %w", err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// start starts a program that ends when end is called, or this process does.
func start(path string, args ...string) (end func(), err error) {
	cmd := exec.Command(path, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s (make build makes it): %w", filepath.Base(path), err)
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to end
	}, nil
}

// scrape asks as Prometheus does when it wants native histograms.
func scrape(ctx context.Context, url string) ([]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", string(format))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("scraping: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scraping %s: %s", url, response.Status)
	}
	var families []*dto.MetricFamily
	decoder := expfmt.NewDecoder(response.Body, format)
	for {
		f := &dto.MetricFamily{}
		switch err := decoder.Decode(f); {
		case errors.Is(err, io.EOF):
			return families, nil
		case err != nil:
			return nil, fmt.Errorf("reading the scrape of %s: %w", url, err)
		}
		families = append(families, f)
	}
}

func addresses(ctx context.Context) (operator, exporter string, err error) {
	for _, a := range []*string{&operator, &exporter} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("finding a free port: %w", err)
		}
		*a = l.Addr().String()
		defer l.Close()
	}
	return operator, exporter, nil
}

// release is the kernel's version.
func release() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-") // without the build's name
	return version
}
