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

// startsAlone is how many pods start one at a time in a round of -starts.
const startsAlone = 10

type options struct {
	markdown, logs string
	only           *regexp.Regexp
	timeout        time.Duration
	keep           bool
	starts         int
	record         string

	// Of the inner process.
	work, root, images string
	bin                cluster.Binaries
	began              int64
}

func main() {
	var o options
	flag.StringVar(&o.markdown, "markdown", "", "file to write the table to, as Markdown")
	flag.StringVar(&o.logs, "logs", "", "directory for the components' logs of a run that failed (default .cache/cluster in e2e)")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "how long the scenarios may take")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster up after the scenarios, until interrupted")
	flag.Func("run", "regular expression of the scenarios to run (default all)", func(s string) (err error) { o.only, err = regexp.Compile(s); return err })
	flag.IntVar(&o.starts, "starts", 0, "instead of the scenarios, measure starts of pods with births followed and without, in so many `rounds`")
	flag.StringVar(&o.record, "record", "", "instead of the scenarios, record both nodes' scrapes for the dashboards' tests into this `directory`")
	flag.StringVar(&o.work, "work", "", "")
	flag.StringVar(&o.root, "root", "", "")
	flag.StringVar(&o.images, "images", "", "")
	flag.StringVar(&o.bin.Kubernetes, "kubernetes", "", "")
	flag.StringVar(&o.bin.Node, "node", "", "")
	flag.StringVar(&o.bin.Prometheus, "prometheus", "", "")
	flag.Int64Var(&o.began, "began", time.Now().UnixMilli(), "")
	flag.Parse()
	if o.starts > 0 || o.record != "" {
		o.only = regexp.MustCompile(`^$`)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		stop()
		os.Exit(1)
	}
	if !cluster.Inside() {
		log := stages.New(os.Stderr, time.UnixMilli(o.began))
		if err := prepare(ctx, &o, log); err != nil {
			_ = os.RemoveAll(o.work)
			fail(err)
		}
		os.Args = append(os.Args, "-work="+o.work, "-root="+o.root, "-kubernetes="+o.bin.Kubernetes, "-node="+o.bin.Node, "-prometheus="+o.bin.Prometheus, "-images="+o.images, "-logs="+o.logs, fmt.Sprint("-began=", o.began))
		cluster.Isolate(o.work, func(code int) { tidy(o, code, log.Say) }, log.Say)
	}
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

// prepare builds all that needs the network, outside of the namespaces. What is there
// already is not built anew, so that a warm run is past this after seconds.
func prepare(ctx context.Context, o *options, log *stages.Log) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: it makes namespaces and cgroups (run it with sudo)")
	}
	if err := cluster.Lock(ctx, log.Say); err != nil {
		return err
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
	if o.work, err = cluster.WorkDir(); err != nil {
		return err
	}
	var h handover
	fetched := make(chan error, 1)
	if len(guestScenarios(*o)) > 0 {
		end := log.Begin("the virtual machine's kernel: fetched once per version")
		go func() {
			var err error
			h.Guest, err = vmnode.Fetch(ctx, os.Stderr)
			end()
			fetched <- err
		}()
	} else {
		fetched <- nil
	}
	for _, b := range []struct {
		what, script string
		args         []string
		bin          *string
	}{
		{"Kubernetes", "servers/build", []string{"kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"}, &o.bin.Kubernetes},
		{"container runtime and metrics-server", "node/build", nil, &o.bin.Node},
		{"Prometheus", "prometheus/build", nil, &o.bin.Prometheus},
	} {
		end := log.Begin(b.what + ": built once per version")
		cmd := exec.CommandContext(ctx, filepath.Join(e2e, b.script), b.args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("building by e2e/%s: %w", b.script, err)
		}
		*b.bin = strings.TrimSpace(string(out))
		end()
	}
	product := log.Begin("the product and the workload")
	o.images = filepath.Join(e2e, ".cache", "images")
	if err := scenario.Build(ctx, o.root, o.images); err != nil {
		return err
	}
	product()
	if err := <-fetched; err != nil {
		return err
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

func run(ctx context.Context, o options, parts vmnode.Parts, log *stages.Log) error {
	interrupted := ctx.Done()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	defer func() { _ = log.Text(os.Stderr) }()
	started := log.Begin("starting the control plane and the node")
	c, err := cluster.Start(ctx, o.work, o.bin, log.Say)
	if c != nil {
		defer func() { log.Say("taking everything down"); c.Stop() }()
	}
	if err != nil {
		return err
	}
	defer func() {
		if said := describe(ctx, c); said != nil {
			log.Say("%v", said)
		}
		if o.keep {
			log.Say("the cluster stays up until this is interrupted")
			<-interrupted
		}
	}()
	started()

	applied := log.Begin("images, and kernel-gossip by kubectl apply -k deploy/manifests")
	stress, err := scenario.Stress(o.images)
	if err != nil {
		return err
	}
	for _, image := range append(scenario.Images(o.images, false), stress) {
		if err := c.Import(ctx, image); err != nil {
			return err
		}
	}
	e, err := scenario.NewEnv(c.Config, cluster.NodeName, "shop", c.Kubectl)
	if err != nil {
		return err
	}
	e.Node = c
	// The machine may have other work; what goes well takes no longer for it.
	e.Patience = 3
	if err := e.Apply(ctx, o.root); err != nil {
		return err
	}
	applied()

	// The node in the virtual machine comes up while the scenarios of this one run.
	ready := make(chan struct{})
	var groups [2]scenario.Group
	var guest sync.WaitGroup
	var guestErr error
	if len(guestScenarios(o)) > 0 {
		guest.Go(func() { groups[1], guestErr = tryGuest(ctx, c, e, ready, o, parts, log) })
	}
	defer guest.Wait()
	defer cancel()
	served, err := furnish(ctx, c, e, o.root, log)
	defer func() { cancel(); _ = served() }()
	if err != nil {
		return err
	}
	close(ready)
	tried := log.Begin("the scenarios on this machine")
	results := func() []scenario.Result { return try(ctx, e, o.only, log.Say) }
	if o.starts > 0 {
		results = func() []scenario.Result {
			return []scenario.Result{attempt(ctx, "", scenario.Starts(o.starts, startsAlone), e, log.Say)}
		}
	}
	if o.record != "" {
		results = func() []scenario.Result {
			return []scenario.Result{attempt(ctx, "", scenario.Record(filepath.Join(o.record, "recording.promql")), e, log.Say)}
		}
	}
	groups[0] = scenario.Group{
		Title: "On this machine", About: "The kubelet runs on this machine's own kernel and cgroups, in namespaces.", Results: results(),
	}
	tried()
	guest.Wait()
	if err := errors.Join(guestErr, served()); err != nil {
		return err
	}
	return report(slices.DeleteFunc(groups[:], func(g scenario.Group) bool { return len(g.Results) == 0 }), o, log)
}

// furnish waits until kernel-gossip is ready, and has the monitoring beside it; e is
// whole then. metrics-server takes two of its own rounds to serve: who needs it waits,
// and served tells what came of it.
func furnish(ctx context.Context, c *cluster.Cluster, e *scenario.Env, root string, log *stages.Log) (served func() error, err error) {
	var m *scenario.Monitoring
	errs := make([]error, 3)
	part := func(i int, what string, do func() error) func() {
		return func() {
			end := log.Begin(what)
			if errs[i] = do(); errs[i] == nil {
				end()
			}
		}
	}
	var metrics, rest sync.WaitGroup
	metrics.Go(part(0, "metrics-server", func() error { return c.StartMetricsServer(ctx) }))
	rest.Go(part(1, "exporter and operator ready", func() error { return e.Ready(ctx) }))
	rest.Go(part(2, "Prometheus and Alertmanager", func() (err error) { m, err = monitoring(ctx, c, root); return err }))
	rest.Wait()
	e.Top, e.Monitoring = true, m
	return func() error { metrics.Wait(); return errs[0] }, errors.Join(errs[1:]...)
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

var forClause = regexp.MustCompile(`(?m)^(\s+for:) .*$`)

// hurried shortens the times of a configuration, as scenario.Markdown tells: what is
// averaged over minutes is judged in half a minute.
func hurried(config string) string {
	return strings.NewReplacer(
		"[5m]", "[30s]", `period_seconds: "300"`, `period_seconds: "30"`,
		"scrape_interval: 15s", "scrape_interval: 5s", "group_wait: 5s", "group_wait: 1s", "group_interval: 30s", "group_interval: 5s",
	).Replace(forClause.ReplaceAllString(config, "$1 10s"))
}

// monitoring starts Prometheus with our scrape configuration and rules, and Alertmanager
// with our fragment. Of each only time is changed, see hurried; the true times are
// promtool's to test.
func monitoring(ctx context.Context, c *cluster.Cluster, root string) (*scenario.Monitoring, error) {
	read := func(elem ...string) (string, error) {
		b, err := os.ReadFile(filepath.Join(append([]string{root}, elem...)...))
		return hurried(string(b)), err
	}
	scrape, err := read("deploy", "prometheus", "scrape.yml")
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
		body, err := read("rules", filepath.Base(rule))
		if err != nil {
			return nil, err
		}
		if _, err := c.WriteFile("prometheus/"+filepath.Base(rule), body); err != nil {
			return nil, err
		}
	}
	config, err := c.WriteFile("prometheus/prometheus.yml", `global: {evaluation_interval: 5s}
rule_files: ["*.rules.yml"]
alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:9093"]}]}]}
`+scrape)
	if err != nil {
		return nil, err
	}
	routes, err := read("rules", "alertmanager.yml")
	if err != nil {
		return nil, err
	}
	if routes, err = c.WriteFile("alertmanager.yml", routes); err != nil {
		return nil, err
	}
	m, err := c.StartMonitoring(ctx, config, routes)
	if err != nil {
		return nil, err
	}
	return &scenario.Monitoring{Prometheus: m.API, Alertmanager: cluster.AlertmanagerURL}, nil
}

// try runs the scenarios side by side, each when the one that it is to come after has
// ended, and at the end those that judge what is left.
func try(ctx context.Context, e *scenario.Env, only *regexp.Regexp, say func(string, ...any)) []scenario.Result {
	skip := func(s scenario.Scenario) bool { return only != nil && !only.MatchString(s.Name) }
	all, last := slices.DeleteFunc(append(scenario.SideBySide(), scenario.Faults()...), skip), slices.DeleteFunc(scenario.Last(), skip)
	results := make([]scenario.Result, len(all), len(all)+len(last))
	ended := map[string]chan struct{}{}
	for _, s := range all {
		ended[s.Name] = make(chan struct{})
	}
	var group sync.WaitGroup
	for i, s := range all {
		group.Go(func() {
			defer close(ended[s.Name])
			for _, name := range s.After {
				if first, ok := ended[name]; ok {
					<-first
				}
			}
			results[i] = attempt(ctx, "", s, e, say)
		})
	}
	group.Wait()
	for _, s := range last {
		results = append(results, attempt(ctx, "", s, e, say))
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
