// Command demo shows on this machine's own kernel what averages hide: a workload
// that the usual view calls healthy and the kernel throttles, as metrics, as a
// firing alert and as a KernelWhisper. It needs root and the packaged Prometheus
// and Alertmanager; it leaves nothing behind.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	limitOfShow = 150 * time.Second
	container   = "/" + groupName
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == burstArg {
		burst()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// show is one run of the demo.
type show struct {
	dir                                          string
	exporter, operator, prometheus, alertmanager string // addresses
	began                                        time.Time
}

func (s *show) say(format string, args ...any) {
	fmt.Printf("[%3.0fs] %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kernel-gossip-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &show{dir: dir, began: time.Now()}
	for _, a := range []*string{&s.exporter, &s.operator, &s.prometheus, &s.alertmanager} {
		if *a, err = freeAddress(); err != nil {
			return err
		}
	}
	if err := s.configure(); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	for name, args := range map[string][]string{
		"bin/kernel-gossip-operator": {"--web.listen-address=" + s.operator, "--store.directory=" + filepath.Join(dir, "whispers")},
		"bin/kernel-gossip-exporter": {"run", "--web.listen-address=" + s.exporter, "--whisper.url=http://" + s.operator, "--syscalls.names=getppid,read,write,futex,openat"},
		"prometheus": {"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "tsdb"),
			"--web.listen-address=" + s.prometheus, "--enable-feature=native-histograms"},
		"prometheus-alertmanager": {"--config.file=" + filepath.Join(dir, "alertmanager.yml"), "--storage.path=" + filepath.Join(dir, "am"),
			"--web.listen-address=" + s.alertmanager, "--cluster.listen-address="},
	} {
		end, err := s.start(name, args...)
		if err != nil {
			return err
		}
		defer end()
	}
	s.say("exporter, operator (directory store), Prometheus and Alertmanager started; their logs are in %s while this runs", dir)
	w, err := startWorkload()
	if err != nil {
		return err
	}
	defer w.stop()
	s.say("workload started in cgroup %s: limit 400m, %d threads, %s of work, %s of rest", container, threads, busy, idle)
	if err := s.watch(ctx, w); err != nil {
		return err
	}
	if os.Getenv("KEEP") == "" {
		s.say("taking everything down")
		return nil
	}
	s.say("KEEP is set; open until Ctrl-C:\n  exporter      http://%s\n  operator      http://%s\n  Prometheus    http://%s/alerts\n  Alertmanager  http://%s", s.exporter, s.operator, s.prometheus, s.alertmanager)
	<-ctx.Done()
	return nil
}

// watch prints what the two views say until the alert fires and the whisper is there.
func (s *show) watch(ctx context.Context, w *workload) error {
	fmt.Printf("\n%6s  %-24s  %-34s  %-22s  %s\n", "", "15 s average (reported)", "kernel, trailing window", "syscalls counted", "alert")
	var whisper, alert string
	told := false
	ticker := time.NewTicker(3 * time.Second)
	defer ticker.Stop()
	// The whisper is whole once what is reported stands in it beside the kernel's figure.
	for !strings.Contains(whisper, "Metrics show") || alert != "firing" {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if time.Since(s.began) > limitOfShow {
			return fmt.Errorf("after %s: whisper there: %t, alert: %q; see `bin/kernel-gossip-exporter doctor`", limitOfShow, whisper != "", alert)
		}
		m, err := s.scrape(ctx)
		if err != nil {
			continue // not up yet
		}
		if !told {
			told = true
			for _, probe := range m["kernel_gossip_exporter_probe_attached"].GetMetric() {
				if value(probe) == 0 {
					s.say("probe %s is not attached on this kernel; its metrics are missing, the rest is real", label(probe, "probe"))
				}
			}
		}
		alert = s.alert(ctx)
		fmt.Printf("[%3.0fs]  %-24s  %-34s  %-22s  %s\n", time.Since(s.began).Seconds(),
			reportedLine(m), ratioLine(m), syscallLine(m), alert)
		if found, _ := filepath.Glob(filepath.Join(s.dir, "whispers/*/kernelwhispers/*.yaml")); len(found) > 0 {
			b, err := os.ReadFile(found[0])
			if err != nil {
				return err
			}
			if whisper == "" {
				s.say("the operator wrote %s", strings.TrimPrefix(found[0], s.dir+"/"))
			}
			whisper = string(b)
		}
	}
	fmt.Printf("\nThe kernel's own file, read beside the exporter: nr_periods %d, nr_throttled %d\n", w.stat("nr_periods"), w.stat("nr_throttled"))
	fmt.Printf("\nThe KernelWhisper (kubectl apply -f takes it):\n\n%s\n", whisper)
	return nil
}

func reportedLine(m families) string {
	r, ok := find(m["kernel_gossip_cpu_reported_cores"])
	limit, limited := find(m["kernel_gossip_cpu_limit_cores"])
	if !ok || !limited {
		return "not yet"
	}
	return fmt.Sprintf("%.2f cores = %.0f %% of limit", r, 100*r/limit)
}

func ratioLine(m families) string {
	r, ok := find(m["kernel_gossip_cpu_throttle_ratio"])
	if !ok {
		return "not yet"
	}
	t, _ := find(m["kernel_gossip_cpu_throttled_periods_total"])
	p, _ := find(m["kernel_gossip_cpu_periods_total"])
	return fmt.Sprintf("throttled %.1f %% (%.0f of %.0f)", 100*r, t, p)
}

func syscallLine(m families) string {
	for _, s := range m["kernel_gossip_syscalls_total"].GetMetric() {
		if label(s, "container") == container && label(s, "syscall") == "getppid" {
			return fmt.Sprintf("getppid %.0f", value(s))
		}
	}
	return "not measured here"
}

type families map[string]*dto.MetricFamily

func (s *show) scrape(ctx context.Context) (families, error) {
	body, err := get(ctx, "http://"+s.exporter+"/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(strings.NewReader(body))
}

// alert is the state of the throttle alert about the workload, in Prometheus until
// it fires and then as Alertmanager has it.
func (s *show) alert(ctx context.Context) string {
	var am []struct{ Labels map[string]string }
	if body, err := get(ctx, "http://"+s.alertmanager+"/api/v2/alerts"); err == nil && json.Unmarshal([]byte(body), &am) == nil {
		for _, a := range am {
			if a.Labels["container"] == container {
				return "firing"
			}
		}
	}
	var prom struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if body, err := get(ctx, "http://"+s.prometheus+"/api/v1/alerts"); err == nil && json.Unmarshal([]byte(body), &prom) == nil {
		for _, a := range prom.Data.Alerts {
			if a.Labels["container"] == container {
				return "pending"
			}
		}
	}
	return "inactive"
}

var (
	forClause = regexp.MustCompile(`(?m)^(\s+for:) .*$`)
	fiveMin   = regexp.MustCompile(`\[5m\]`)
)

// configure writes the configurations. The rules are the shipped ones but for time:
// `for` becomes 5 s and the 5-minute windows 30 s, so that a demo can end.
func (s *show) configure() error {
	shipped, err := filepath.Glob("rules/*.rules.yml")
	if err != nil || len(shipped) == 0 {
		return fmt.Errorf("no rules/*.rules.yml: run from the top of the repository: %w", errors.Join(err, fs.ErrNotExist))
	}
	for _, f := range shipped {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		quick := fiveMin.ReplaceAll(forClause.ReplaceAll(b, []byte("$1 5s")), []byte("[30s]"))
		if err := os.WriteFile(filepath.Join(s.dir, filepath.Base(f)), quick, 0o644); err != nil {
			return err
		}
	}
	s.say("rules: the shipped files with `for` shortened to 5 s and 5-minute windows to 30 s, for this demo only")
	am, err := os.ReadFile("rules/alertmanager.yml")
	if err != nil {
		return err
	}
	am = []byte(strings.ReplaceAll(string(am), "kernel-gossip-operator.kernel-gossip.svc:8080", s.operator))
	if err := os.WriteFile(filepath.Join(s.dir, "alertmanager.yml"), am, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "prometheus.yml"), fmt.Appendf(nil, `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["*.rules.yml"]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
  - job_name: kernel-gossip-exporter
    static_configs: [{targets: [%q]}]
`, s.alertmanager, s.exporter), 0o644)
}

// start starts a program whose output goes to a file, and returns what ends it.
func (s *show) start(path string, args ...string) (func(), error) {
	out, err := os.Create(filepath.Join(s.dir, filepath.Base(path)+".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: Ctrl-C is for this program, which ends the rest in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
	}, nil
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// find is the workload's value in a family.
func find(f *dto.MetricFamily) (float64, bool) {
	for _, m := range f.GetMetric() {
		if label(m, "container") == container {
			return value(m), true
		}
	}
	return 0, false
}

func value(m *dto.Metric) float64 {
	if m.Gauge != nil {
		return m.Gauge.GetValue()
	}
	return m.Counter.GetValue()
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
