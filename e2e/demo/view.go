package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	alertName = "KernelGossipMetricsLie"
	rowEvery  = 3 * time.Second
)

// view asks the servers what they show, and prints it until there is all to be seen.
type view struct {
	*servers
	src    source
	tape   *recording // nil in a real run
	out    *screen
	began  time.Time
	record *recorder // may be nil

	metrics    families
	alert      alert
	whisper    []byte
	whisperAt  time.Duration
	whisperRel string
}

func (v *view) since() time.Duration { return time.Since(v.began) }

// watch prints what the two views say until the alert fires and the whisper is there.
func (v *view) watch(ctx context.Context) error {
	v.out.columns()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	lastRow := time.Duration(0)
	for !v.complete() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := v.dead(); err != nil {
			return err
		}
		if m, err := v.scrape(ctx); err == nil {
			v.metrics = m
		}
		if v.record != nil {
			if n, ok := v.syscalls(); ok {
				v.record.count(n)
			}
		}
		if err := v.readWhisper(); err != nil {
			return err
		}
		before := v.alert.state
		v.alert = v.askAlert(ctx)
		if v.metrics != nil && (v.since()-lastRow >= rowEvery || v.alert.state != before || v.complete()) {
			lastRow = v.since()
			v.printRow()
		}
		if v.since() > patience {
			return v.impatient()
		}
		v.out.wait(v.since(), v.missing())
	}
	return nil
}

// complete tells whether the whisper has both figures and the alert fires.
func (v *view) complete() bool { return v.missing() == "" }

// missing is what is waited for.
func (v *view) missing() string {
	var what []string
	if _, ok := v.reported(); !ok {
		what = append(what, "the figure of kubectl top, at the next 15 s step but one")
	}
	if v.prometheus != "" && v.alert.state != firing {
		what = append(what, "the alert")
	}
	// The whisper is whole once what is reported stands in it beside the kernel's figure.
	if !bytes.Contains(v.whisper, []byte("Metrics show")) {
		what = append(what, "the whisper with both figures")
	}
	return strings.Join(what, ", ")
}

// impatient ends well when there is a whisper, which is what matters.
func (v *view) impatient() error {
	if v.whisper == nil {
		ratio, _ := v.find("kernel_gossip_cpu_throttle_ratio")
		return fmt.Errorf("no whisper after %s: throttled in %.0f %% of periods, and %s; kernel-gossip-exporter doctor tells what this machine can measure",
			patience, 100*ratio, "a whisper takes 50 %")
	}
	v.out.note("After %s still missing: %s.", patience, v.missing())
	return nil
}

func (v *view) printRow() {
	r := row{at: v.since(), alert: v.alert.String()}
	if share, ok := v.reported(); ok {
		r.reported = &share
	}
	throttled, ok := v.find("kernel_gossip_cpu_throttled_periods_total")
	if periods, _ := v.find("kernel_gossip_cpu_periods_total"); ok && periods > 0 {
		ratio := throttled / periods
		r.kernel, r.periods = &ratio, fmt.Sprintf("%.0f of %.0f", throttled, periods)
	}
	if n, ok := v.syscalls(); ok {
		r.syscalls = grouped(n)
	}
	v.out.row(r)
}

// reported is the share of the limit that the usual view shows.
func (v *view) reported() (share float64, ok bool) {
	cores, ok := v.find("kernel_gossip_cpu_reported_cores")
	limit, limited := v.find("kernel_gossip_cpu_limit_cores")
	return cores / limit, ok && limited && limit > 0
}

// syscalls is the workload's getppid calls. In a replay it is what was recorded.
func (v *view) syscalls() (float64, bool) {
	if v.tape != nil {
		n := v.tape.syscallsAt(v.since())
		return n, n > 0
	}
	for _, s := range v.metrics["kernel_gossip_syscalls_total"].GetMetric() {
		if label(s, "container") == v.src.container() && label(s, "syscall") == "getppid" {
			return value(s), true
		}
	}
	return 0, false
}

func (v *view) readWhisper() error {
	found, err := filepath.Glob(filepath.Join(v.dir, "whispers/*/kernelwhispers/*-kw.yaml"))
	if err != nil {
		return err
	}
	for _, f := range found {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("read the whisper: %w", err)
		}
		if !bytes.Contains(b, []byte("podName: "+strings.TrimPrefix(v.src.container(), "/")+"\n")) {
			continue // about something else that is throttled on this machine
		}
		if v.whisper == nil {
			v.whisperAt = v.since()
			v.whisperRel = strings.TrimPrefix(f, v.dir+"/")
			v.out.event(v.since(), "the operator wrote "+v.whisperRel)
		}
		v.whisper = b
	}
	return nil
}

// sum says it once more, and shows that the exporter's figures are the kernel's own.
func (v *view) sum(ctx context.Context) {
	out := v.out
	out.heading("What happened")
	if share, ok := v.reported(); ok {
		cores, _ := v.find("kernel_gossip_cpu_reported_cores")
		limit, _ := v.find("kernel_gossip_cpu_limit_cores")
		verdict := "healthy"
		if share >= 0.8 {
			verdict = "busy" // a dashboard would show that
		}
		out.pair("metrics said", fmt.Sprintf("%.2f of %.2f cores, %.0f %% of the limit: %s", cores, limit, 100*share, verdict))
	}
	if ratio, ok := v.find("kernel_gossip_cpu_throttle_ratio"); ok {
		out.pair("the kernel said", fmt.Sprintf("out of quota in %.1f %% of its periods over the trailing window: stopped, over and over", 100*ratio))
	}
	out.pair("check", v.check(ctx))
	if v.alert.state != "" {
		out.pair("alert", fmt.Sprintf("%s %s: %s", v.alert.name, v.alert.state, v.alert.summary))
	}
	if v.whisper != nil {
		out.pair("whisper", fmt.Sprintf("after %.0f s, in the format that kubectl apply -f takes:", v.whisperAt.Seconds()))
		out.heading(v.whisperRel)
		for line := range strings.Lines(string(v.whisper)) {
			out.print(indent + strings.TrimRight(line, "\n"))
		}
	}
	out.print("")
}

// check compares the exporter's counters with the kernel's own file, read before and
// after them, since the workload goes on.
func (v *view) check(ctx context.Context) string {
	before, err := v.src.stat("nr_throttled")
	if err != nil {
		return fmt.Sprintf("cpu.stat can't be read: %v", err)
	}
	// The exporter samples once a second: what it serves two seconds later is newer.
	select {
	case <-ctx.Done():
		return "not made: the demo was ended"
	case <-time.After(2 * time.Second):
	}
	m, err := v.scrape(ctx)
	if err != nil {
		return fmt.Sprintf("the exporter does not answer: %v", err)
	}
	v.metrics = m
	after, err := v.src.stat("nr_throttled")
	if err != nil {
		return fmt.Sprintf("cpu.stat can't be read: %v", err)
	}
	served, _ := v.find("kernel_gossip_cpu_throttled_periods_total")
	verdict := "agreed"
	if served < float64(before) || served > float64(after) {
		verdict = "WRONG: the exporter must be between the two"
	}
	return fmt.Sprintf("nr_throttled: cpu.stat %d, then the exporter %.0f, then cpu.stat %d: %s", before, served, after, verdict)
}

// The states of an alert.
const (
	pending = "pending"
	firing  = "firing"
)

type alert struct{ name, state, summary string }

func (a alert) String() string {
	switch a.state {
	case "":
		return ""
	case firing:
		return "FIRING " + strings.TrimPrefix(a.name, "KernelGossip")
	}
	return a.state + " " + strings.TrimPrefix(a.name, "KernelGossip")
}

// askAlert is the alert about the workload: pending as Prometheus has it, firing once
// Alertmanager has it.
func (v *view) askAlert(ctx context.Context) (a alert) {
	if v.prometheus == "" {
		return a
	}
	type one struct {
		State               string // of Prometheus
		Labels, Annotations map[string]string
	}
	pick := func(alerts []one, state string) (a alert) {
		for _, o := range alerts {
			if o.Labels["container"] == v.src.container() && o.Labels["alertname"] == alertName {
				a = alert{alertName, state, o.Annotations["summary"]}
			}
		}
		return a
	}
	var fired []one
	if err := v.getJSON(ctx, "http://"+v.alertmanager+"/api/v2/alerts", &fired); err == nil {
		if a := pick(fired, firing); a.state != "" {
			return a
		}
	}
	var prom struct{ Data struct{ Alerts []one } }
	if err := v.getJSON(ctx, "http://"+v.prometheus+"/api/v1/alerts", &prom); err == nil {
		return pick(prom.Data.Alerts, pending)
	}
	return a
}

func (v *view) getJSON(ctx context.Context, url string, to any) error {
	body, err := get(ctx, url)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), to)
}

type families map[string]*dto.MetricFamily

func (v *view) scrape(ctx context.Context) (families, error) {
	body, err := get(ctx, "http://"+v.exporter+"/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(strings.NewReader(body))
}

// find is the workload's value in a family.
func (v *view) find(family string) (float64, bool) {
	for _, m := range v.metrics[family].GetMetric() {
		if label(m, "container") == v.src.container() {
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

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
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
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(b), err
}

// tellMissing says which probes this kernel does not take, why, and what is lost.
func tellMissing(ctx context.Context, bin string, out *screen) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, filepath.Join(bin, "kernel-gossip-exporter"), "--kubernetes=off", "doctor", "--json").Output()
	var findings []struct {
		What, How, Lost string
		OK              bool
	}
	if err == nil {
		err = json.Unmarshal(b, &findings)
	}
	if err != nil {
		out.note("what this machine can't measure is not known: the doctor failed: %v", err)
		return
	}
	for _, f := range findings {
		if probe, ok := strings.CutPrefix(f.What, "probe "); ok && !f.OK {
			out.note("not measured here: probe %s: %s", probe, f.How)
			out.note("              lost: %s", f.Lost)
		}
	}
}
