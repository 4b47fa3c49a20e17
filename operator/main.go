// Command kernel-gossip-operator takes what the kernel's listeners tell and keeps
// it as KernelWhisper and PodBirthCertificate objects.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kernel-gossip/kernel-gossip/operator/announce"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/controller"
	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/join"
	"github.com/kernel-gossip/kernel-gossip/operator/picture"
	"github.com/kernel-gossip/kernel-gossip/operator/pulls"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	core "github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

const (
	name         = "kernel-gossip-operator"
	shutdown     = 15 * time.Second
	tendEvery    = time.Minute // of a directory; the controller watches instead
	podCheck     = time.Minute
	readyTimeout = 5 * time.Second
)

type options struct {
	directory   string
	kubeconfig  string
	namespace   string
	bearerToken string
	otlpAddress string
	retention   store.Retention
	resize      resizeOptions
	limits      store.Limits
	bridge      bridgeOptions
	web         *web.FlagConfig
	logging     promslog.Config
}

func main() {
	app, o := newApp()
	command := kingpin.MustParse(app.Parse(os.Args[1:]))

	log := promslog.New(&o.logging)
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if command == bridgeCommand {
		err = runBridge(ctx, o.bridge, os.Stdin, log)
	} else {
		err = run(ctx, o, log)
	}
	stop()
	if err != nil {
		log.Error("can't go on", "err", err)
		os.Exit(1)
	}
}

// resizeOptions are of raising CPU limits.
type resizeOptions struct {
	enabled bool
	maxCPU  float64
	config  resize.Config
}

// bounds is nil when limits are left alone.
func (o resizeOptions) bounds() (*resize.Config, error) {
	if !o.enabled {
		return nil, nil
	}
	cfg := o.config
	if o.maxCPU > 0 && o.maxCPU <= core.MaxCores {
		cfg.MaxMilli = int64(o.maxCPU * 1000)
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("--resize.*: %w", err)
	}
	return &cfg, nil
}

func newApp() (*kingpin.Application, *options) {
	app := kingpin.New(name, "Takes kernel signals from the exporter, Pixie and Alertmanager and keeps them as custom resources.")
	o := &options{}
	app.Flag("store.directory", "Keep objects as YAML in this directory; no cluster is needed then.").StringVar(&o.directory)
	app.Flag("kubeconfig", "The cluster to keep objects in. Default: the one this runs in, or the usual kubeconfig.").Envar("KUBECONFIG").StringVar(&o.kubeconfig)
	app.Flag("namespace", "The operator's own namespace, with the controller's lease and whispers about cgroups that belong to no pod.").Envar("POD_NAMESPACE").Default("kernel-gossip").StringVar(&o.namespace)
	app.Flag("web.bearer-token-file", "Ask senders for the bearer token in this file; it is read again when it changes.").StringVar(&o.bearerToken)
	app.Flag("otlp.listen-address", "Take OTLP over gRPC at this address, e.g. :4317. TLS is that of --web.config.file, the token that of --web.bearer-token-file.").StringVar(&o.otlpAddress)
	app.Flag("whisper.ttl", "Delete an object this long after its condition was last seen; 0 keeps it.").Default("168h").DurationVar(&o.retention.TTL)
	app.Flag("whisper.resolved-ttl", "Delete a whisper this long after its condition was over.").Default("24h").DurationVar(&o.retention.ResolvedTTL)
	app.Flag("whisper.silence", "End the exporter's word, which it repeats each 5 minutes, when it has not for this long; 0 keeps it.").Default("15m").DurationVar(&o.retention.Silence)
	app.Flag("whisper.max-per-namespace", "At most this many objects of a kind in a namespace; 0 is no limit. A whisper more is refused, a birth certificate more makes the oldest go.").Default("500").IntVar(&o.limits.PerNamespace)
	app.Flag("whisper.max", "At most this many objects of a kind; 0 is no limit.").Default("10000").IntVar(&o.limits.Total)
	app.Flag("resize.enabled", "Raise CPU limits in place as whispers recommend, of pods with the annotation "+resize.Annotation+`="true", or in namespaces with it.`).BoolVar(&o.resize.enabled)
	app.Flag("resize.max-cpu", "Highest limit in cores that is ever set; the annotation "+resize.MaxAnnotation+" lowers it.").Default("4").Float64Var(&o.resize.maxCPU)
	app.Flag("resize.max-factor", "A step multiplies the limit by this at most.").Default("4").Float64Var(&o.resize.config.MaxFactor)
	app.Flag("resize.cool-down", "Time between two steps with a container.").Default("10m").DurationVar(&o.resize.config.CoolDown)
	app.Flag("resize.verify", "Time that the exporter has to tell what a step did.").Default("10m").DurationVar(&o.resize.config.Verify)
	o.web = kingpinflag.AddFlags(app, ":8080")
	flag.AddFlags(app, &o.logging)
	app.Command("run", "Serve; what is done without a command.").Default()
	addBridge(app, &o.bridge)
	app.Version(version.Print(name))
	app.HelpFlag.Short('h')
	return app, o
}

func run(ctx context.Context, o *options, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("kernel_gossip_operator"))
	metrics := store.NewMetrics(registry)

	// Doors close first; what they took is written before the store ends.
	storing, stored := context.WithCancel(context.WithoutCancel(ctx))
	defer stored()
	running, ending := context.WithCancel(ctx)
	defer ending()
	kept, closeStore, err := open(running, storing, o, metrics, log)
	if err != nil {
		return err
	}
	defer func() {
		ending()
		closeStore()
	}()

	door := intake.Options{Logger: log, Registerer: registry, HostNamespace: o.namespace}
	if o.bearerToken != "" {
		if door.Auth, err = intake.NewBearer(o.bearerToken); err != nil {
			return err
		}
	}
	sink := join.New(kept, time.Now)
	if o.otlpAddress != "" {
		closeOTLP, err := serveOTLP(ctx, o.otlpAddress, *o.web.WebConfigFile, sink, door)
		if err != nil {
			return err
		}
		defer closeOTLP()
	}
	mux := http.NewServeMux()
	mux.Handle("/webhook/", intake.New(sink, door).Handler())
	pictures := picture.Options{Logger: log}
	if door.Auth != nil {
		pictures.Auth = door.Auth
	}
	mux.Handle(picture.Path, picture.Handler(kept, pictures))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)}))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := kept.Ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	landing, err := web.NewLandingPage(web.LandingConfig{
		Name: "kernel-gossip operator", Version: version.Info(),
		Description: "POST events to " + strings.Join([]string{intake.PathEBPF, intake.PathPixie, intake.PathAlertmanager}, ", "),
		Links:       []web.LandingLinks{{Address: picture.Path, Text: "Births"}, {Address: "/metrics", Text: "Metrics"}, {Address: "/-/ready", Text: "Ready"}},
	})
	if err != nil {
		return fmt.Errorf("making the landing page: %w", err)
	}
	mux.Handle("/", landing)

	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- web.ListenAndServe(server, o.web, log) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.Info("shutting down")
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// keeper is what both stores are to the doors.
type keeper interface {
	store.Store
	picture.Source
}

// withPulls is a keeper whose births have their image pulls.
type withPulls struct {
	keeper
	pulls *pulls.Sink
}

func (w withPulls) Accept(ctx context.Context, s core.Signal) error { return w.pulls.Accept(ctx, s) }

// open opens the store that the flags name and starts what tends it, which ends
// with running; the store's writes end with storing. What it returns waits for the
// one and closes the other.
func open(running, storing context.Context, o *options, metrics *store.Metrics, log *slog.Logger) (keeper, func(), error) {
	opts := store.Options{Limits: o.limits, HostNamespace: o.namespace, Metrics: metrics, Logger: log}
	if o.directory != "" {
		if o.resize.enabled {
			return nil, nil, errors.New("--resize.enabled needs a cluster; leave it or --store.directory out")
		}
		opts.Announcer = announce.New(log, nil)
		dir, err := store.OpenDirectory(storing, o.directory, opts)
		if err != nil {
			return nil, nil, err
		}
		var tending sync.WaitGroup
		tending.Go(func() { tend(running, dir, o.retention, log) })
		return dir, func() {
			tending.Wait()
			_ = dir.Close()
		}, nil
	}

	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("no cluster to keep objects in: pass --kubeconfig, or --store.directory to do without: %w", err)
	}
	// A new object takes seven requests, and a storm has many. The API server's own
	// priority and fairness is what holds the operator back then.
	config.QPS, config.Burst = 1000, 2000
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, fmt.Errorf("making a client for %s: %w", config.Host, err)
	}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("making a client for %s: %w", config.Host, err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: set.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(storing); err != nil {
		return nil, nil, fmt.Errorf("recording %s: %w", eventsv1.SchemeGroupVersion, err)
	}
	bounds, err := o.resize.bounds()
	if err != nil {
		return nil, nil, err
	}
	opts.Announcer = announce.New(log, broadcaster.NewRecorder(scheme, name))
	kept := store.NewKubernetes(storing, api, opts)
	var tending sync.WaitGroup
	tending.Go(func() {
		controller.Run(running, controller.Options{
			Config: config, Scheme: scheme, Store: kept, Announcer: opts.Announcer, Metrics: metrics,
			Retention: o.retention, PodCheck: podCheck, Resize: bounds, Namespace: o.namespace, Logger: log,
		})
	})
	pulling := pulls.New(kept, set, log)
	tending.Go(func() { pulling.Run(running) })
	return withPulls{kept, pulling}, func() {
		tending.Wait() // it gives the lease back, so that another replica need not wait for its end
		broadcaster.Shutdown()
	}, nil
}

// tend looks after a directory as the controller does after a cluster.
func tend(ctx context.Context, dir *store.Directory, keep store.Retention, log *slog.Logger) {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		if err := dir.Tend(ctx, keep); err != nil && ctx.Err() == nil {
			log.Warn("can't tend the directory; trying again", "err", err, "in", tendEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
