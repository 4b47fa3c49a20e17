// Command cluster runs a real one-node Kubernetes cluster with kernel-gossip on it
// and tries what it promises there. It needs root; everything that it starts runs in
// namespaces of its own and ends with it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
	"github.com/kernel-gossip/kernel-gossip/e2e/scenario"
	"github.com/kernel-gossip/kernel-gossip/e2e/stages"
	"github.com/kernel-gossip/kernel-gossip/e2e/vmnode"
)

type options struct {
	markdown, logs string
	only           *regexp.Regexp
	timeout        time.Duration

	// Of the inner process.
	work  string
	root  string
	bin   cluster.Binaries
	began int64
}

func main() {
	var o options
	flag.StringVar(&o.markdown, "markdown", "", "file to write the table to, as Markdown")
	flag.StringVar(&o.logs, "logs", "", "directory for the components' logs of a run that failed (default .cache/cluster in e2e)")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "how long the scenarios may take")
	flag.Func("run", "regular expression of the scenarios to run (default all)", func(s string) (err error) { o.only, err = regexp.Compile(s); return err })
	flag.StringVar(&o.work, "work", "", "")
	flag.StringVar(&o.root, "root", "", "")
	flag.StringVar(&o.bin.Kubernetes, "kubernetes", "", "")
	flag.StringVar(&o.bin.Node, "node", "", "")
	flag.StringVar(&o.bin.Prometheus, "prometheus", "", "")
	flag.Int64Var(&o.began, "began", time.Now().UnixMilli(), "")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		stop()
		os.Exit(1)
	}
	if o.work == "" {
		log := stages.New(os.Stderr, time.UnixMilli(o.began))
		if err := prepare(ctx, &o, log); err != nil {
			_ = os.RemoveAll(o.work)
			fail(err)
		}
		os.Args = append(os.Args, "-work="+o.work, "-root="+o.root, "-kubernetes="+o.bin.Kubernetes, "-node="+o.bin.Node, "-prometheus="+o.bin.Prometheus, "-logs="+o.logs, fmt.Sprint("-began=", o.began))
		cluster.Isolate(func(code int) { tidy(o, code, log.Say) })
	}
	cluster.Isolate()
	h, err := readHandover(o.work)
	if err != nil {
		fail(err)
	}
	if err := run(ctx, o, h.Guest, stages.New(os.Stderr, time.UnixMilli(o.began), h.Stages...)); err != nil {
		fail(err)
	}
}

// handover is what the preparation leaves in the working directory for the process in
// the namespaces.
type handover struct {
	Stages []stages.Stage `json:"stages"`
	Guest  vmnode.Parts   `json:"guest"`
}

func (h handover) write(work string) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(work, "handover.json"), b, 0o644)
}

func readHandover(work string) (handover, error) {
	var h handover
	b, err := os.ReadFile(filepath.Join(work, "handover.json"))
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return h, fmt.Errorf("reading what the preparation left: %w", err)
	}
	return h, nil
}

// prepare builds all that needs the network, outside of the namespaces.
func prepare(ctx context.Context, o *options, log *stages.Log) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: it makes namespaces and cgroups (run it with sudo)")
	}
	here, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}", "github.com/kernel-gossip/kernel-gossip/e2e/cluster").Output()
	if err != nil {
		return fmt.Errorf("finding the e2e module (run this from within it): %w", err)
	}
	e2e := strings.TrimSpace(string(here))
	o.root = filepath.Dir(e2e)
	if o.logs == "" {
		o.logs = filepath.Join(e2e, ".cache", "cluster")
	}
	build := func(script string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(e2e, script), args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("building by e2e/%s: %w", script, err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	servers := log.Begin("Kubernetes, container runtime, metrics-server and Prometheus: built once per version")
	if o.bin.Kubernetes, err = build("servers/build", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"); err != nil {
		return err
	}
	if o.bin.Node, err = build("node/build"); err != nil {
		return err
	}
	if o.bin.Prometheus, err = build("prometheus/build"); err != nil {
		return err
	}
	servers()
	product := log.Begin("building the product and the workload")
	if o.work, err = os.MkdirTemp("", "kernel-gossip-e2e-"); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(o.work, "images"), 0o755); err != nil {
		return err
	}
	if err := scenario.Build(ctx, o.root, filepath.Join(o.work, "images")); err != nil {
		return err
	}
	product()
	var h handover
	if len(guestScenarios(o.only)) > 0 {
		fetched := log.Begin("the virtual machine's kernel: fetched once per version")
		if h.Guest, err = vmnode.Fetch(ctx, os.Stderr); err != nil {
			return err
		}
		fetched()
	}
	h.Stages = log.Stages()
	return h.write(o.work)
}

// tidy runs when all processes have ended: it keeps the logs of a run that failed.
func tidy(o options, code int, say func(string, ...any)) {
	if code != 0 {
		to := filepath.Join(o.logs, time.Now().UTC().Format("20060102-150405"))
		if err := keep(o.work, to); err != nil {
			say("keeping the logs: %v; they are in %s", err, o.work)
			return
		}
		say("the logs of every component are in %s", to)
	}
	if err := os.RemoveAll(o.work); err != nil {
		say("removing %s: %v", o.work, err)
	}
	say("all taken down")
}

func keep(work, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"logs", "pods"} {
		from := filepath.Join(work, dir)
		if _, err := os.Stat(from); err != nil {
			continue
		}
		if err := os.CopyFS(filepath.Join(to, dir), os.DirFS(from)); err != nil {
			return fmt.Errorf("copying %s: %w", from, err)
		}
	}
	return nil
}

func run(ctx context.Context, o options, guest vmnode.Parts, log *stages.Log) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	started := log.Begin("starting the control plane and the node")
	c, err := cluster.Start(ctx, o.work, o.bin, log.Say)
	if c != nil {
		defer func() { log.Say("taking everything down"); c.Stop() }()
	}
	if err != nil {
		return err
	}
	started()
	installed := log.Begin("images, and kernel-gossip by kubectl apply -k deploy/manifests")
	for _, image := range scenario.Images(filepath.Join(o.work, "images")) {
		if err := c.Import(ctx, image); err != nil {
			return err
		}
	}
	log.Say("images imported")
	e, err := scenario.NewEnv(c.Config, cluster.NodeName, c.Kubectl)
	if err != nil {
		return err
	}
	e.Node = c
	// The machine may have other work; what goes well takes no longer for it.
	e.Patience = 3
	if err := e.Install(ctx, o.root); err != nil {
		return errors.Join(err, describe(ctx, c))
	}
	log.Say("kernel-gossip installed, all ready")
	installed()
	monitored := log.Begin("metrics-server, Prometheus and Alertmanager")
	if err := c.StartMetricsServer(ctx); err != nil {
		return err
	}
	e.Top = true
	if e.Monitoring, err = monitoring(ctx, c, o.root); err != nil {
		return err
	}
	monitored()
	tried := log.Begin("the scenarios")
	groups := []scenario.Group{{
		Title: "On this machine", About: "The kubelet runs on this machine's own kernel and cgroups, in namespaces.", Results: try(ctx, e, o.only, log.Say),
	}}
	tried()
	if len(guestScenarios(o.only)) > 0 {
		group, err := tryGuest(ctx, c, e, o, guest, log)
		if err != nil {
			return err
		}
		groups = append(groups, group)
	}
	if err := describe(ctx, c); err != nil {
		log.Say("%v", err)
	}
	return report(groups, o, log)
}

// describe leaves the objects beside the logs.
func describe(ctx context.Context, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	for name, args := range map[string][]string{
		"pods.txt":     {"describe", "pods", "-A"},
		"events.txt":   {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		"whispers.txt": {"get", "kernelwhispers", "-A", "-o", "yaml"},
	} {
		out, err := c.Kubectl(ctx, "", args...)
		if err != nil {
			return fmt.Errorf("describing the cluster: %w", err)
		}
		if err := os.WriteFile(filepath.Join(c.Logs, name), []byte(out), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var (
	forClause = regexp.MustCompile(`(?m)^(\s+for:) .*$`)
	fiveMin   = strings.NewReplacer("[5m]", "[1m]", `period_seconds: "300"`, `period_seconds: "60"`)
)

// monitoring starts Prometheus with our scrape configuration and rules, and
// Alertmanager with our fragment as it is. Of the rules only time is changed: `for`
// is 10 s and the 5-minute windows are 1 minute; the true times are promtool's to test.
func monitoring(ctx context.Context, c *cluster.Cluster, root string) (*scenario.Monitoring, error) {
	scrape, err := os.ReadFile(filepath.Join(root, "deploy", "prometheus", "scrape.yml"))
	if err != nil {
		return nil, err
	}
	if err := c.PrometheusAccount(ctx, filepath.Join(root, "deploy", "prometheus", "rbac.yaml")); err != nil {
		return nil, err
	}
	rules, err := filepath.Glob(filepath.Join(root, "rules", "*.rules.yml"))
	if err != nil || len(rules) == 0 {
		return nil, fmt.Errorf("no rules in %s/rules (%w)", root, err)
	}
	for _, rule := range rules {
		b, err := os.ReadFile(rule)
		if err != nil {
			return nil, err
		}
		quick := fiveMin.Replace(forClause.ReplaceAllString(string(b), "$1 10s"))
		if _, err := c.WriteFile("prometheus/"+filepath.Base(rule), quick); err != nil {
			return nil, err
		}
	}
	config, err := c.WriteFile("prometheus/prometheus.yml", `global: {evaluation_interval: 5s}
rule_files: ["*.rules.yml"]
alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:9093"]}]}]}
`+string(scrape))
	if err != nil {
		return nil, err
	}
	m, err := c.StartMonitoring(ctx, config, filepath.Join(root, "rules", "alertmanager.yml"))
	if err != nil {
		return nil, err
	}
	return &scenario.Monitoring{Prometheus: m.API, Alertmanager: cluster.AlertmanagerURL}, nil
}

// try runs the scenarios side by side, but those that break things one after the other.
func try(ctx context.Context, e *scenario.Env, only *regexp.Regexp, say func(string, ...any)) []scenario.Result {
	skip := func(s scenario.Scenario) bool { return only != nil && !only.MatchString(s.Name) }
	side := slices.DeleteFunc([]scenario.Scenario{
		scenario.Lie, scenario.Figures, scenario.Neighbour, scenario.Containers, scenario.Static, scenario.Recreated, scenario.Crowd, scenario.Memory, scenario.Network,
	}, skip)
	faults := slices.DeleteFunc(scenario.Faults(), skip)
	last := slices.DeleteFunc([]scenario.Scenario{scenario.Orphans}, skip)
	results := make([]scenario.Result, len(side)+len(faults)+len(last))
	one := func(i int, s scenario.Scenario) { results[i] = attempt(ctx, "", s, e, say) }
	var group sync.WaitGroup
	for i, s := range side {
		group.Go(func() { one(i, s) })
	}
	group.Go(func() {
		for i, s := range faults {
			one(len(side)+i, s)
		}
	})
	group.Wait()
	for i, s := range last {
		one(len(side)+len(faults)+i, s)
	}
	return results
}

// attempt runs one scenario; its lines begin with where.
func attempt(ctx context.Context, where string, s scenario.Scenario, e *scenario.Env, say func(string, ...any)) scenario.Result {
	say("…    %s%s", where, s.Name)
	r := s.Try(ctx, e)
	if r.Err != nil {
		say("FAIL %s%s after %.0f s: %v", where, r.Name, r.Took.Seconds(), r.Err)
	} else {
		say("ok   %s%s, %.0f s: %s", where, r.Name, r.Took.Seconds(), strings.Join(r.Seen, "; "))
	}
	return r
}

func report(groups []scenario.Group, o options, log *stages.Log) error {
	if o.markdown != "" {
		f, err := os.Create(o.markdown)
		if err != nil {
			return fmt.Errorf("writing the table: %w", err)
		}
		if err := errors.Join(scenario.Markdown(f, groups, log, time.Now()), f.Close()); err != nil {
			return err
		}
	}
	var failed []string
	count := 0
	for _, g := range groups {
		count += len(g.Results)
		for _, r := range g.Results {
			if r.Err != nil {
				failed = append(failed, fmt.Sprintf("%s (%s)", r.Name, strings.ToLower(g.Title)))
			}
		}
	}
	log.Say("%d of %d scenarios passed", count-len(failed), count)
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}
