// Package collector turns the sampler's last Snapshot into Prometheus metrics.
// A scrape reads memory only. What was not measured is absent, not 0; of a container that
// is gone there is what it counted, for a minute, and no gauge.
package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// stale is the age at which a Snapshot no longer tells of the present. Collectors
// then fail rather than repeat it.
const stale = 15 * time.Second

// Collector makes metrics of one concern from a Snapshot.
type Collector interface {
	// Families are the metrics that Update may add to.
	Families() []*Family
	// Update adds what the Snapshot has. A series that can't be costs only itself.
	Update(out *Exposition)
}

// Options apply to all collectors.
type Options struct {
	// ClassicHistograms sends histograms with classic buckets instead of native ones.
	ClassicHistograms bool
}

// registration is a collector as the command line knows it.
type registration struct {
	name   string
	help   string
	probes []bpf.Probe // that its metrics rest on
	make   func() Collector
	off    bool // unless asked for
}

func registrations() []registration {
	return []registration{
		{"cpu", "CPU use, limits and throttling from cpu.stat and cpu.max, requests from the pods' specs.", nil, newCPU, false},
		{"throttle", "Durations of throttles.", []bpf.Probe{bpf.ProbeThrottle, bpf.ProbeDemand}, newThrottle, false},
		{"runqueue", "Time that runnable threads waited for a CPU.", []bpf.Probe{bpf.ProbeRunqueue}, newRunqueue, false},
		{"syscalls", "System calls by name.", []bpf.Probe{bpf.ProbeSyscalls}, newSyscalls, false},
		{"memory", "Memory held, its limit and events, OOM kills, and how long allocations waited to reclaim.", []bpf.Probe{bpf.ProbeReclaim, bpf.ProbeOOM}, newMemory, false},
		{"network", "TCP segments, retransmits, resets, refused connections, full accept queues, and drops with the kernel's reason.", []bpf.Probe{bpf.ProbeNetwork}, newNetwork, false},
		{"birth", "How pods come to life: birth certificates for the operator, durations by stage, system calls. While one is in flight each system call of the node costs some 0.4 µs more; at rest nothing that can be measured.", []bpf.Probe{bpf.ProbeBirth}, newBirth, false},
		{"security", "What containers do after their birth that few should: namespaces, mounts, ptrace, modules, BPF, executables that are not the image's, gained privileges. Each system call of the node costs some 0.08 µs more.", []bpf.Probe{bpf.ProbeSecurity}, newSecurity, false},
		{"pressure", "Time lost waiting for CPU, memory and I/O (PSI, cgroup v2).", nil, newPressure, false},
		{"gap", "What the cluster is told, and the parts of the gap to the truth.", nil, newGap, false},
		{"whatif", "Throttling predicted at other CPU limits, and the limit that would be enough: an estimate, whose measured errors are in the package documentation of exporter/whatif.", []bpf.Probe{bpf.ProbeDemand}, newWhatIf, true},
		{"info", "Join key from names to pod UID, container ID and cgroup.", nil, newInfo, false},
		{"exporter", "The exporter's own cost and health.", nil, newExporter, false},
	}
}

// Selection is which collectors the command line asks for.
type Selection struct {
	Options
	enabled map[string]*bool
}

// Flags adds --collector.X for each collector, and what they have in common.
func Flags(app *kingpin.Application) *Selection {
	s := &Selection{enabled: map[string]*bool{}}
	for _, r := range registrations() {
		help, def := r.help+" Turn off with --no-collector."+r.name+".", "true"
		if r.off {
			help, def = r.help, "false"
		}
		s.enabled[r.name] = app.Flag("collector."+r.name, help).Default(def).Bool()
	}
	app.Flag("histogram.classic", "Expose histograms with classic buckets instead of native ones, for a Prometheus that does not scrape native histograms.").
		BoolVar(&s.ClassicHistograms)
	return s
}

// All is every collector, without a command line.
func All(o Options) *Selection {
	s := &Selection{Options: o, enabled: map[string]*bool{}}
	for _, r := range registrations() {
		on := true
		s.enabled[r.name] = &on
	}
	return s
}

// Enabled tells whether a collector is asked for by its name.
func (s *Selection) Enabled(name string) bool {
	on := s.enabled[name]
	return on != nil && *on
}

// Probes are what the enabled collectors rest on, each once.
func (s *Selection) Probes() []bpf.Probe {
	var probes []bpf.Probe
	for _, r := range registrations() {
		for _, p := range r.probes {
			if *s.enabled[r.name] && !slices.Contains(probes, p) {
				probes = append(probes, p)
			}
		}
	}
	return probes
}

// Set is the enabled collectors as one prometheus.Gatherer. It makes the messages that
// are encoded itself: see Exposition.
type Set struct {
	snapshot          func() *sampler.Snapshot
	now               func() time.Time
	log               *slog.Logger
	classic           bool
	collectors        []named
	families          int
	duration, success *Family
}

type named struct {
	name string
	Collector
}

var _ prometheus.Gatherer = (*Set)(nil)

// New returns the enabled collectors over what snapshot returns at each scrape.
func New(s *Selection, snapshot func() *sampler.Snapshot, now func() time.Time, log *slog.Logger) *Set {
	set := &Set{snapshot: snapshot, now: now, log: log, classic: s.ClassicHistograms}
	set.duration, set.success = scrapeFamilies()
	set.number(set.duration, set.success)
	for _, r := range registrations() {
		if *s.enabled[r.name] {
			c := r.make()
			set.number(c.Families()...)
			set.collectors = append(set.collectors, named{r.name, c})
		}
	}
	return set
}

// number gives each family its place in an Exposition.
func (s *Set) number(families ...*Family) {
	for _, f := range families {
		f.number = s.families
		s.families++
	}
}

func scrapeFamilies() (duration, success *Family) {
	return newFamily(gauge, "exporter_collector_duration_seconds",
			"How long a collector took to turn the last sample into metrics, in seconds.", "collector"),
		newFamily(gauge, "exporter_collector_success",
			"1 when a collector succeeded, 0 when it failed or the last sample was too old to tell of the present.", "collector")
}

// Gather implements prometheus.Gatherer. A collector that fails is told of by
// exporter_collector_success and in the log, and is no error of the others.
func (s *Set) Gather() ([]*dto.MetricFamily, error) {
	snap := s.snapshot()
	var stands error
	switch {
	case snap == nil:
		stands, snap = errors.New("nothing has been sampled yet"), &sampler.Snapshot{}
	case s.now().Sub(snap.At) > stale:
		stands = fmt.Errorf("the last sample is %s old", s.now().Sub(snap.At).Round(time.Second))
	}
	out := newExposition(snap, s.families, s.classic)
	for _, c := range s.collectors {
		begin := time.Now()
		err := stands
		if err == nil {
			c.Update(out)
			err = errors.Join(out.errs...)
			out.errs = nil
		}
		ok := 1.0
		if err != nil {
			ok = 0
			s.log.Error("Collector failed; its metrics are missing from this scrape.", "collector", c.name, "err", err)
		}
		out.node(s.duration, time.Since(begin).Seconds(), c.name)
		out.node(s.success, ok, c.name)
	}
	return out.sorted(), nil
}

// Info describes one metric for people.
type Info struct {
	Collector string
	Name      string
	Type      string
	Labels    []string
	Help      string
}

// Describe lists every metric of every collector, in the order of the collectors.
func Describe() []Info {
	var out []Info
	add := func(collector string, fs ...*Family) {
		for _, f := range fs {
			out = append(out, Info{Collector: collector, Name: f.name, Type: f.kind.String(), Labels: f.labels, Help: f.help})
		}
	}
	for _, r := range registrations() {
		add(r.name, r.make().Families()...)
	}
	duration, success := scrapeFamilies()
	add("exporter", duration, success)
	return out
}
