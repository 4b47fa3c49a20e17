package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/allow"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/collector"
	"github.com/kernel-gossip/kernel-gossip/exporter/kube"
	"github.com/kernel-gossip/kernel-gossip/exporter/page"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	// shutdownGrace is how long a scrape in flight may take once the exporter is to end.
	shutdownGrace = 3 * time.Second
	// readyAge is the age of the last sample at which the exporter is no longer ready.
	readyAge = 15 * time.Second

	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"
)

// parts is everything between the kernel and the sampler.
type parts struct {
	tree      *cgroup.Tree
	tracer    *bpf.Tracer
	informer  *pods.Informer // nil off-cluster
	reporters []reported.Source
	sampler   *sampler.Sampler
	births    *births // nil where none are followed
}

// open attaches and finds everything. close must be called.
func open(ctx context.Context, o *options) (_ *parts, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	p := &parts{}
	defer func() {
		if err != nil {
			p.close(o.log)
		}
	}()

	client, err := o.kubernetesClient()
	if err != nil {
		return nil, err
	}
	p.tree, err = cgroup.Open(cgroup.Config{Log: o.log, Root: o.cgroupRoot, ProcFS: o.procFS, SysFS: o.sysFS})
	if err != nil {
		return nil, fmt.Errorf("finding cgroups: %w", err)
	}
	if partial := p.tree.Mounts().Partial; partial != "" {
		o.log.Warn("Not all of the host's cgroups are visible.", "reason", partial)
	}
	cfg := sampler.Config{Tree: p.tree, Window: o.window, Log: o.log}
	cfg.Memory, cfg.Pressure = o.collectors.Enabled("memory"), o.collectors.Enabled("pressure")
	if cfg.Pressure && p.tree.Mounts().Version == 1 {
		o.log.Info("This machine's containers are on cgroup v1, which keeps no pressure (PSI) by cgroup: kernel_gossip_pressure_seconds_total is absent.")
	}
	if o.collectors.Enabled("security") {
		allowed, err := allow.Read(o.allowFile)
		if err != nil {
			return nil, fmt.Errorf("--security.allow-file=%s: %w", o.allowFile, err)
		}
		cfg.Allowed = allowed.Events
	}
	if o.collectors.Enabled("whatif") {
		whatIf := whatif.DefaultConfig()
		cfg.WhatIf = &whatIf
	}
	if probes := o.collectors.Probes(); len(probes) > 0 {
		p.tracer = bpf.Open(ctx, bpf.Config{
			Log: o.log, Probes: probes, SyscallNames: o.syscallNames(), MaxGroups: o.maxGroups, ProcFS: o.procFS,
		})
		cfg.Tracer = p.tracer
	}
	if client == nil {
		cfg.Emulation = reported.NewEmulation()
	} else {
		if p.informer, p.reporters, err = o.openKubernetes(client); err != nil {
			return nil, err
		}
		cfg.Pods = p.informer
		for _, r := range p.reporters {
			cfg.Reporters = append(cfg.Reporters, r)
		}
	}
	if p.tracer != nil && o.collectors.Enabled("birth") {
		if kernel, err := p.tracer.Births(); err == nil { // the tracer has said why not
			var index podsIndex
			if p.informer != nil {
				index = p.informer
			}
			p.births = newBirths(kernel, index, o)
			cfg.Births = p.births.totals
		}
	}
	p.sampler = sampler.New(cfg)
	return p, nil
}

func (p *parts) close(log *slog.Logger) {
	var err error
	if p.tracer != nil {
		err = p.tracer.Close()
	}
	if p.tree != nil {
		err = errors.Join(err, p.tree.Close())
	}
	if err != nil {
		log.Warn("Closing left something behind.", "err", err)
	}
}

// start runs what feeds the sampler, until ctx ends.
func (p *parts) start(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return p.tree.Run(ctx) })
	if p.informer != nil {
		group.Go(func() error { return p.informer.Run(ctx) })
	}
	for _, r := range p.reporters {
		group.Go(func() error { return r.Run(ctx) })
	}
}

// kubernetesClient is nil off-cluster.
func (o *options) kubernetesClient() (*kube.Client, error) {
	if o.kubernetes == "off" {
		return nil, nil
	}
	config, err := o.kubernetesConfig()
	if errors.Is(err, rest.ErrNotInCluster) && o.kubernetes == "auto" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--kubernetes=%s: %w", o.kubernetes, err)
	}
	if o.node == "" {
		return nil, errors.New("--node-name is empty: on Kubernetes the exporter must know its node; set NODE_NAME from the field spec.nodeName")
	}
	config.UserAgent = programName + "/" + version.Version
	client, err := kube.New(config)
	if err != nil {
		return nil, fmt.Errorf("making a Kubernetes client: %w", err)
	}
	return client, nil
}

func (o *options) kubernetesConfig() (*rest.Config, error) {
	if o.kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
		return config, nil
	}
	return rest.InClusterConfig()
}

func (o *options) openKubernetes(client *kube.Client) (*pods.Informer, []reported.Source, error) {
	informer, err := pods.New(client.Pods(), o.node, o.log)
	if err != nil {
		return nil, nil, fmt.Errorf("watching this node's pods: %w", err)
	}
	kubelet, err := o.openKubelet(client)
	if err != nil {
		return nil, nil, err
	}
	sources := []reported.Source{kubelet}
	if o.metricsAPI {
		api, err := reported.NewMetricsAPI(reported.MetricsAPIConfig{
			REST: client.REST(), Namespaces: informer.Namespaces, Log: o.log,
		})
		if err != nil {
			return nil, nil, fmt.Errorf("asking metrics.k8s.io: %w", err)
		}
		sources = append(sources, api)
	}
	return informer, sources, nil
}

func (o *options) openKubelet(client *kube.Client) (*reported.Kubelet, error) {
	kubelet, err := reported.NewKubelet(reported.KubeletConfig{
		URL: o.kubelet.url, Resolve: reported.NodeURL(client.Nodes(), o.node),
		TokenFile:          orFile(o.kubelet.tokenFile, serviceAccount+"token"),
		CAFile:             orFile(o.kubelet.caFile, serviceAccount+"ca.crt"),
		InsecureSkipVerify: o.kubelet.insecure,
		Log:                o.log,
	})
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet: %w", err)
	}
	return kubelet, nil
}

// orFile is path, or where it is empty the fallback, if that exists.
func orFile(path, fallback string) string {
	if path != "" {
		return path
	}
	if _, err := os.Stat(fallback); err != nil {
		return ""
	}
	return fallback
}

func run(ctx context.Context, o *options) error {
	o.log.Info("Starting "+programName, "version", version.Info(), "build", version.BuildContext())
	p, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer p.close(o.log)
	// Attaching takes more memory than all that follows, the kernel's types above all; the
	// runtime would keep it for a while.
	debug.FreeOSMemory()
	if os.Getenv("GOGC") == "" {
		// Little is allocated between two samples: half the usual headroom saves memory on
		// every node for a collection more each few seconds.
		debug.SetGCPercent(50)
	}

	registry := prometheus.NewRegistry()
	own := []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("kernel_gossip_exporter"),
	}
	for _, r := range p.reporters {
		if c, ok := r.(prometheus.Collector); ok {
			own = append(own, c)
		}
	}
	whispers, err := o.openWhispers(p.informer != nil)
	if err != nil {
		return err
	}
	if whispers != nil {
		own = append(own, whispers.sender)
		if p.births != nil {
			p.births.tell = func(e wire.Event) { whispers.sender.Enqueue(e) }
		}
	}
	for _, c := range own {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("registering a collector: %w", err)
		}
	}

	group, ctx := errgroup.WithContext(ctx)
	landing, err := page.New(ctx, page.Config{
		Snapshot: p.sampler.Snapshot, MetricsPath: o.metricsPath, Version: version.Info(), Node: o.node,
		CgroupMount: p.tree.Mounts().CPU, Log: o.log,
	})
	if err != nil {
		return err
	}
	handler := o.handler(p, registry, collector.New(o.collectors, p.sampler.Snapshot, time.Now, o.log), landing)
	p.start(ctx, group)
	group.Go(func() error {
		p.sampler.Run(ctx, func(snap *sampler.Snapshot) {
			landing.Observe(snap)
			if whispers != nil {
				whispers.observe(snap)
			}
		})
		return nil
	})
	if whispers != nil {
		group.Go(func() error { return whispers.sender.Run(ctx) })
	}
	if p.births != nil {
		group.Go(func() error { return p.births.run(ctx) })
	}
	server := newServer(handler, defaultBounds(), o.log)
	group.Go(func() error {
		if err := web.ListenAndServe(server, o.web, o.log); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving %v: %w", *o.web.WebListenAddresses, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		o.log.Info("Ending: finishing scrapes and sending what whispers are left.")
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			o.log.Warn("A scrape took too long and was cut off.", "err", err)
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}

func (o *options) handler(p *parts, registry *prometheus.Registry, containers prometheus.Gatherer, landing http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", landing)
	// What is told of containers is not sent through the registry: see collector.Exposition.
	all := prometheus.NewMultiTRegistry(prometheus.ToTransactionalGatherer(registry), prometheus.ToTransactionalGatherer(containers))
	mux.Handle(o.metricsPath, promhttp.HandlerForTransactional(all, promhttp.HandlerOpts{
		ErrorLog: scrapeErrors{o.log}, ErrorHandling: promhttp.ContinueOnError, Registry: registry,
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("/-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("/-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if why := p.unready(time.Now()); why != "" {
			http.Error(w, "not ready: "+why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	if o.pprof {
		mux.HandleFunc(pprofPath, pprof.Index)
		mux.HandleFunc(pprofPath+"cmdline", pprof.Cmdline)
		mux.HandleFunc(pprofPath+"profile", pprof.Profile)
		mux.HandleFunc(pprofPath+"symbol", pprof.Symbol)
		mux.HandleFunc(pprofPath+"trace", pprof.Trace)
	}
	return mux
}

// unready says why the figures are not to be relied on; empty when they are.
func (p *parts) unready(now time.Time) string {
	snap := p.sampler.Snapshot()
	switch {
	case snap == nil:
		return "nothing has been sampled yet"
	case now.Sub(snap.At) > readyAge:
		return fmt.Sprintf("the last sample is %s old", now.Sub(snap.At).Round(time.Second))
	case p.informer != nil && !p.informer.HasSynced():
		return "the API server has not told this node's pods yet"
	}
	return ""
}

// whispers turns samples into events for the operator.
type whispers struct {
	engine    *whisper.Engine
	memory    *whisper.MemoryEngine   // nil when the memory collector is off
	network   *whisper.NetworkEngine  // nil when the network collector is off
	security  *whisper.SecurityEngine // nil when the security collector is off
	sender    *whisper.Sender
	namespace string // of what belongs to no pod
	node      string
	cluster   bool
}

// openWhispers is nil when no operator is given.
func (o *options) openWhispers(cluster bool) (*whispers, error) {
	if o.whisper.url == "" {
		return nil, nil
	}
	cfg := whisper.DefaultConfig()
	cfg.Node = o.node
	if cfg.Threshold != o.whisper.threshold {
		cfg.ResolveBelow *= o.whisper.threshold / cfg.Threshold
		cfg.Threshold = o.whisper.threshold
		var bands []float64
		for _, b := range cfg.Bands {
			if b > cfg.Threshold {
				bands = append(bands, b)
			}
		}
		cfg.Bands = bands
	}
	engine, err := whisper.NewEngine(cfg)
	if err != nil {
		return nil, fmt.Errorf("--whisper.threshold=%v: %w", o.whisper.threshold, err)
	}
	sender, err := whisper.NewSender(whisper.SenderConfig{
		URL: o.whisper.url, TokenFile: o.whisper.tokenFile, CAFile: o.whisper.caFile,
		InsecureSkipVerify: o.whisper.insecure, Log: o.log,
	})
	if err != nil {
		return nil, fmt.Errorf("sending whispers: %w", err)
	}
	w := &whispers{engine: engine, sender: sender, namespace: o.whisper.namespace, node: o.node, cluster: cluster}
	if o.collectors.Enabled("memory") {
		if w.memory, err = o.openMemoryWhispers(); err != nil {
			return nil, err
		}
	}
	if o.collectors.Enabled("network") {
		if w.network, err = o.openNetworkWhispers(); err != nil {
			return nil, err
		}
	}
	if o.collectors.Enabled("security") {
		if w.security, err = o.openSecurityWhispers(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *whispers) observe(snap *sampler.Snapshot) {
	observations := make([]whisper.Observation, 0, len(snap.Containers))
	for i := range snap.Containers {
		if c := &snap.Containers[i]; c.Group.Gone.IsZero() && c.Throttling != nil {
			observations = append(observations, w.observation(c))
		}
	}
	w.sender.Enqueue(whisper.Events(w.engine.Observe(snap.At, observations))...)
	if w.memory != nil {
		w.sender.Enqueue(whisper.Events(w.memory.Observe(snap.At, w.memoryObservations(snap)))...)
	}
	if w.network != nil {
		w.sender.Enqueue(whisper.Events(w.network.Observe(snap.At, w.networkObservations(snap)))...)
	}
	if w.security != nil {
		w.sender.Enqueue(whisper.Events(w.security.Observe(snap.At, w.securityObservations(snap)))...)
	}
}

// target names a container as the operator wants it; empty for a pod whose name the
// API server has not told yet.
func (w *whispers) target(c *sampler.Container) whisper.Target {
	switch {
	case c.Pod != "":
		return whisper.Target{Namespace: c.Namespace, Pod: c.Pod, Container: c.Container, PodUID: c.PodUID}
	case w.cluster && c.Group.PodUID != "":
		return whisper.Target{}
	}
	return whisper.Target{Namespace: w.namespace, Pod: wire.HostPod(w.node, c.Group.Path)}
}

func (w *whispers) observation(c *sampler.Container) whisper.Observation {
	t := c.Throttling
	out := whisper.Observation{
		Target: w.target(c),
		Window: t.Window, Periods: t.Periods, Throttled: t.Throttled, ThrottledTime: t.ThrottledTime,
		EBPF: c.Durations != nil || c.Denied != nil || c.Runqueue != nil,
	}
	if c.CPU != nil && c.CPU.HasUsage && t.Window > 0 {
		used := t.Used.Seconds() / t.Window.Seconds()
		out.UsedCores = &used
	}
	if cores, ok := c.Cores(); ok {
		out.LimitCores = &cores
	}
	if len(c.Reported) > 0 {
		out.ReportedCores = &c.Reported[0].Cores
	}
	predict(c, &out)
	return out
}
