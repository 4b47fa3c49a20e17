package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/collector"
)

const programName = "kernel-gossip-exporter"

// defaultSyscalls tell what a container does and where it waits, and leave room in
// the budget of series.
const defaultSyscalls = "read,write,openat,close,mmap,munmap,futex,epoll_wait,epoll_pwait,recvfrom,sendto,connect,accept4,execve,sched_yield,clock_nanosleep"

type options struct {
	logging  promslog.Config
	levelSet bool // by the user
	log      *slog.Logger

	web         *web.FlagConfig
	metricsPath string
	pprof       bool
	collectors  *collector.Selection

	cgroupRoot, procFS, sysFS string
	maxGroups                 int
	syscalls                  string
	window                    time.Duration

	kubernetes, kubeconfig, node string
	kubelet                      struct {
		url, tokenFile, caFile string
		insecure               bool
	}
	metricsAPI  bool
	birthAlways bool

	whisper struct {
		url, tokenFile, caFile string
		insecure               bool
		namespace              string
		threshold              float64
		memory                 float64
		network                float64
	}
	allowFile string

	topOnce    bool
	topOutput  string
	topRows    int
	topURL     string
	topSort    string
	doctorJSON bool
}

func newApp() (*kingpin.Application, *options) {
	o := &options{}
	app := kingpin.New(programName, "Tells what the kernel does to containers and what the usual metrics hide.")
	app.HelpFlag.Short('h')
	app.Version(version.Print(programName))
	app.UsageWriter(os.Stdout)

	o.web = kingpinflag.AddFlags(app, ":9955")
	app.Flag("web.telemetry-path", "Path under which metrics are exposed.").Default("/metrics").StringVar(&o.metricsPath)
	app.Flag("web.enable-pprof", "Serve profiles under /debug/pprof/.").BoolVar(&o.pprof)
	o.collectors = collector.Flags(app)

	app.Flag("cgroup.root", "Directory that holds the cgroup hierarchies; the host's when the exporter runs in a container. Default: as mounted.").PlaceHolder("DIR").StringVar(&o.cgroupRoot)
	app.Flag("procfs", "Mount point of the host's proc.").Default("/proc").StringVar(&o.procFS)
	app.Flag("sysfs", "Mount point of the host's sys.").Default("/sys").StringVar(&o.sysFS)
	app.Flag("bpf.max-cgroups", "Cgroups that each BPF map can hold, allocated at the start: 5.3 KiB each and 1.2 KiB more per CPU.").Default(strconv.Itoa(bpf.DefaultMaxGroups)).IntVar(&o.maxGroups)
	app.Flag("syscalls.names", fmt.Sprintf("System calls counted by name, separated by commas, at most %d; the rest is %q.", bpf.MaxSyscallNames, bpf.OtherSyscalls)).
		Default(defaultSyscalls).StringVar(&o.syscalls)
	app.Flag("throttle.window", "Trailing window of the throttle ratio.").Default("60s").DurationVar(&o.window)

	app.Flag("birth.count-always", "Count system calls of births from their very beginning, by hooks that stay attached. Default: they are attached once a pod's cgroup is made, or off-cluster a runtime is executed, of which the first moments then go uncounted.").BoolVar(&o.birthAlways)

	app.Flag("kubernetes", "Name containers by the API server: on, off, or auto (on in a cluster).").Default("auto").EnumVar(&o.kubernetes, "auto", "on", "off")
	app.Flag("kubeconfig", "Kubeconfig file, to run outside the cluster. Default: the service account.").PlaceHolder("FILE").StringVar(&o.kubeconfig)
	app.Flag("node-name", "Name of this node in Kubernetes.").PlaceHolder("NAME").Envar("NODE_NAME").StringVar(&o.node)
	app.Flag("kubelet.url", "URL of this node's kubelet. Default: as the Node object tells.").PlaceHolder("URL").StringVar(&o.kubelet.url)
	app.Flag("kubelet.token-file", "File with the bearer token for the kubelet. Default: the service account's.").PlaceHolder("FILE").StringVar(&o.kubelet.tokenFile)
	app.Flag("kubelet.ca-file", "CA that signed the kubelet's serving certificate. Default: the service account's.").PlaceHolder("FILE").StringVar(&o.kubelet.caFile)
	app.Flag("kubelet.insecure-skip-verify", "Do not verify the kubelet's serving certificate, which is self-signed on many clusters.").BoolVar(&o.kubelet.insecure)
	app.Flag("reported.metrics-api", "Ask metrics.k8s.io, too: the very figures of kubectl top, at the cost of a request per namespace.").BoolVar(&o.metricsAPI)

	app.Flag("whisper.url", "URL of the operator; events about throttled containers are sent there. None: no events.").PlaceHolder("URL").StringVar(&o.whisper.url)
	app.Flag("whisper.token-file", "File with the bearer token for the operator.").PlaceHolder("FILE").StringVar(&o.whisper.tokenFile)
	app.Flag("whisper.ca-file", "CA that signed the operator's certificate. Default: the system's.").PlaceHolder("FILE").StringVar(&o.whisper.caFile)
	app.Flag("whisper.insecure-skip-verify", "Do not verify the operator's certificate.").BoolVar(&o.whisper.insecure)
	app.Flag("whisper.namespace", "Namespace of whispers about cgroups that belong to no pod; the operator's --namespace, so that alerts about them find the same whisper.").Default("kernel-gossip").StringVar(&o.whisper.namespace)
	app.Flag("whisper.threshold", "Throttle ratio, 0 to 1, from which a container whispers.").Default("0.5").Float64Var(&o.whisper.threshold)
	app.Flag("whisper.memory-threshold", "Share of the time stalled for memory, 0 to 1, from which a container whispers; an OOM kill always does.").Default("0.1").Float64Var(&o.whisper.memory)
	app.Flag("whisper.network-threshold", "Share of a container's traffic, 0 to 1, that is sent again, turned away at the accept queue, refused or dropped, from which it whispers.").Default("0.05").Float64Var(&o.whisper.network)
	app.Flag("security.allow-file", "YAML file with the security events that are expected of pods, by namespace and label: they are counted and make no whisper. None: those of the cluster's own agents.").PlaceHolder("FILE").StringVar(&o.allowFile)
	promslogflag.AddFlags(app, &o.logging)
	app.GetFlag(promslogflag.LevelFlagName).IsSetByUser(&o.levelSet)

	app.Command("run", "Serve metrics and send events.").Default()
	topCmd := app.Command("top", "Show the containers whose reported figures hide the most.")
	topCmd.Flag("once", "Sample for two seconds, print once and end, as it does where it is not shown on a terminal.").BoolVar(&o.topOnce)
	topCmd.Flag("output", "Output format: table or json (implies --once).").Short('o').Default("table").EnumVar(&o.topOutput, "table", "json")
	topCmd.Flag("rows", "Containers to print; on a terminal all can be scrolled through.").Default("20").IntVar(&o.topRows)
	topCmd.Flag("sort", "Sort by lie (throttled while it looks idle), "+strings.Join(topKeys(), ", ")+".").Default(topByLie).EnumVar(&o.topSort, append(topKeys(), topByLie)...)
	topCmd.Flag("url", "Show what this exporter sees, such as http://NODE:9955, instead of this machine.").PlaceHolder("URL").StringVar(&o.topURL)
	doctorCmd := app.Command("doctor", "Tell what can be measured on this machine, what can't, why, and what to do.")
	doctorCmd.Flag("json", "Print JSON.").BoolVar(&o.doctorJSON)
	return app, o
}

// validate finds what kingpin can't: the error says which flag, what is wrong and
// what would be right.
func (o *options) validate() error {
	if o.window < 5*time.Second || o.window > 10*time.Minute {
		return fmt.Errorf("--throttle.window=%s: must be between 5s and 10m", o.window)
	}
	if !strings.HasPrefix(o.metricsPath, "/") || o.metricsPath == "/" {
		return fmt.Errorf("--web.telemetry-path=%q: must begin with a slash and be more than that, such as /metrics", o.metricsPath)
	}
	if o.maxGroups <= 0 {
		return fmt.Errorf("--bpf.max-cgroups=%d: must be positive", o.maxGroups)
	}
	names := o.syscallNames()
	if len(names) > bpf.MaxSyscallNames {
		return fmt.Errorf("--syscalls.names: %d names, at most %d can be counted by name", len(names), bpf.MaxSyscallNames)
	}
	for _, n := range names {
		// A default may be of another architecture; a name that somebody typed may not.
		if o.syscalls != defaultSyscalls && !bpf.KnownSyscall(n) {
			return fmt.Errorf("--syscalls.names: this architecture has no system call %q; names are as in syscalls(2), such as openat", n)
		}
	}
	if o.whisper.url != "" {
		if u, err := url.Parse(o.whisper.url); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--whisper.url=%q: must be like http://kernel-gossip-operator.kernel-gossip:8080", o.whisper.url)
		}
	}
	return nil
}

func (o *options) syscallNames() []string {
	var names []string
	seen := map[string]bool{}
	for n := range strings.SplitSeq(o.syscalls, ",") {
		if n = strings.TrimSpace(n); n != "" && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}
