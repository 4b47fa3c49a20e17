// Package beside measures processes that watch the same containers at the same time:
// what the kernel charges each one, and what a scrape of each costs.
package beside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
)

const mount = "/sys/fs/cgroup"

// Hierarchies are where a container has its cgroups: one directory on cgroup v2, one
// for each controller on v1.
func Hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		return []string{mount}, nil
	}
	var dirs []string
	for _, name := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "blkio"} {
		dir := filepath.Join(mount, name)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 {
		return nil, errors.New("no cgroup hierarchy in " + mount)
	}
	return dirs, nil
}

// Group is one cgroup in all hierarchies, and a process in it where there is one.
type Group struct {
	dirs []string
	work *exec.Cmd
}

// NewGroup makes path, and what is above it, in all hierarchies.
func NewGroup(path string) (*Group, error) {
	hierarchies, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	g := &Group{}
	for _, h := range hierarchies {
		at := h
		for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			if h == mount { // v2: a controller has to be let down, step by step
				_ = os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+cpu +memory +pids"), 0o644)
			}
			above := at
			at = filepath.Join(at, name)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return g, fmt.Errorf("making a cgroup (run as root, where cgroups may be written): %w", err)
			}
			if filepath.Base(h) == "cpuset" {
				for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
					if from, err := os.ReadFile(filepath.Join(above, file)); err == nil {
						_ = os.WriteFile(filepath.Join(at, file), from, 0o644)
					}
				}
			}
		}
		g.dirs = append(g.dirs, at)
	}
	return g, nil
}

// Start runs a command whose process is in the cgroup from its first instruction on.
func (g *Group) Start(cmd *exec.Cmd) error {
	var join strings.Builder
	for _, dir := range g.dirs {
		fmt.Fprintf(&join, "echo $$ > %s/cgroup.procs && ", dir)
	}
	shell := exec.Command("sh", append([]string{"-c", join.String() + `exec "$@"`, "sh"}, cmd.Args...)...)
	shell.Stdout, shell.Stderr, shell.Env = cmd.Stdout, cmd.Stderr, cmd.Env
	shell.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := shell.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Args[0], err)
	}
	g.work = shell
	return nil
}

// Limit gives the cgroup a CPU quota, in cores.
func (g *Group) Limit(cores float64) error {
	const period = 100_000
	for _, dir := range g.dirs {
		var err error
		switch {
		case exists(filepath.Join(dir, "cpu.max")):
			err = os.WriteFile(filepath.Join(dir, "cpu.max"), fmt.Appendf(nil, "%.0f %d", cores*period, period), 0o644)
		case exists(filepath.Join(dir, "cpu.cfs_quota_us")):
			err = os.WriteFile(filepath.Join(dir, "cpu.cfs_quota_us"), fmt.Appendf(nil, "%.0f", cores*period), 0o644)
		}
		if err != nil {
			return fmt.Errorf("setting the quota: %w", err)
		}
	}
	return nil
}

func exists(file string) bool { _, err := os.Stat(file); return err == nil }

// Close ends the process and removes the cgroup, and what is above it and empty.
func (g *Group) Close() error {
	if g.work != nil {
		_ = g.work.Process.Kill()
		_ = g.work.Wait() // killed
	}
	var errs []error
	for _, dir := range g.dirs {
		errs = append(errs, throttled.Remove(dir))
		for up := filepath.Dir(dir); strings.Count(up, "/") > strings.Count(mount, "/")+1 && syscall.Rmdir(up) == nil; up = filepath.Dir(up) {
		}
	}
	return errors.Join(errs...)
}

// Usage is what the kernel charges a cgroup and its process.
type Usage struct {
	CPU       time.Duration
	Anonymous int64 // bytes of the process that belong to it alone
	File      int64 // bytes mapped of files, the program's own above all, and of BPF rings
	Charged   int64 // bytes charged to the cgroup: page cache and BPF maps too
}

// Usage reads it.
func (g *Group) Usage() (u Usage, err error) {
	for _, dir := range g.dirs {
		if b, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				return u, fmt.Errorf("%s: %w", dir, err)
			}
			u.CPU = time.Duration(n)
		} else if b, err := os.ReadFile(filepath.Join(dir, "cpu.stat")); err == nil && strings.HasPrefix(string(b), "usage_usec ") {
			var µs int64
			if _, err := fmt.Sscanf(string(b), "usage_usec %d", &µs); err != nil {
				return u, fmt.Errorf("%s: %w", dir, err)
			}
			u.CPU = time.Duration(µs) * time.Microsecond
		}
		for _, file := range []string{"memory.usage_in_bytes", "memory.current"} {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				if u.Charged, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil {
					return u, fmt.Errorf("%s: %w", dir, err)
				}
			}
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.work.Process.Pid))
	if err != nil {
		return u, fmt.Errorf("reading what the process holds: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		for field, into := range map[string]*int64{"RssAnon:": &u.Anonymous, "RssFile:": &u.File} {
			if v, ok := strings.CutPrefix(line, field); ok {
				if _, err := fmt.Sscanf(v, "%d kB", into); err != nil {
					return u, fmt.Errorf("reading %q: %w", line, err)
				}
				*into <<= 10
			}
		}
	}
	return u, nil
}

// Scrape is one.
type Scrape struct {
	Took   time.Duration
	Bytes  int // as text, not compressed
	Series int
	Values map[string]float64 // sums over a metric's series
}

// Get scrapes, as Prometheus would, and reads the answer after the clock has stopped.
func Get(ctx context.Context, url string) (Scrape, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Scrape{}, err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	req.Header.Set("Accept-Encoding", "identity")
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Scrape{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s := Scrape{Took: time.Since(began), Bytes: len(body), Values: map[string]float64{}}
	if err != nil {
		return s, fmt.Errorf("scraping %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("scraping %s: %s", url, resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	if err != nil {
		return s, fmt.Errorf("reading metrics of %s: %w", url, err)
	}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			s.Series += series(m)
			s.Values[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return s, nil
}

func series(m *dto.Metric) int {
	switch {
	case m.GetHistogram() != nil:
		return len(m.GetHistogram().GetBucket()) + 2
	case m.GetSummary() != nil:
		return len(m.GetSummary().GetQuantile()) + 2
	}
	return 1
}

// Result is one process with one number of containers.
type Result struct {
	Name       string
	Containers int
	Churn      float64 // containers made and removed a second
	Cores      float64
	Probes     float64 // cores that BPF programs took of those who met them
	Usage      Usage   // at the end
	Scrape     Scrape  // of median time
}

// Median is the scrape of median time.
func Median(scrapes []Scrape) Scrape {
	slices.SortFunc(scrapes, func(a, b Scrape) int { return cmp.Compare(a.Took, b.Took) })
	return scrapes[len(scrapes)/2]
}

// Table shows results, each beside the first of the same containers, which is ours.
func Table(results []Result) string {
	var b strings.Builder
	b.WriteString("| containers | made and removed a second | | CPU, % of a core | ours to it | resident: own + of files, MiB | charged to its cgroup, MiB | scrape, ms | ours to it | series | kB |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	var ours Result
	for i, r := range results {
		cpu, scrape := "", ""
		if i == 0 || r.Containers != ours.Containers || r.Churn != ours.Churn {
			ours = r
		} else {
			cpu, scrape = ratio(ours.Cores, r.Cores), ratio(float64(ours.Scrape.Took), float64(r.Scrape.Took))
		}
		fmt.Fprintf(&b, "| %d | %g | %s | %.2f%s | %s | %.1f + %.1f | %.1f | %.1f | %s | %d | %.0f |\n", r.Containers, r.Churn, r.Name,
			100*r.Cores, probes(r.Probes), cpu, mib(r.Usage.Anonymous), mib(r.Usage.File), mib(r.Usage.Charged),
			float64(r.Scrape.Took.Microseconds())/1000, scrape, r.Scrape.Series, float64(r.Scrape.Bytes)/1000)
	}
	return b.String()
}

func probes(cores float64) string {
	if cores == 0 {
		return ""
	}
	return fmt.Sprintf(", and %.2f in its probes", 100*cores)
}

func ratio(a, b float64) string {
	if b <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
