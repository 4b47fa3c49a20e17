package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// OwnFile holds our counters, and the durations of throttles that BPF measures by
// fentry, to cpu.stat of the container's own cgroup: equal, and not nearly so, because
// it is read while the container rests. It is for a node with cgroup v2 whose kernel
// has fentry, and whose kubelet works from the root of the tree with the cgroupfs driver.
var OwnFile = Scenario{Name: "counters and durations against the pod's own cpu.stat", Run: ownFile}

// groupTree is where the reader has the node's cgroups.
const groupTree = "/node-cgroups"

// reader is a pod that reads the node's cgroups, so that reading costs the pod that is
// read about nothing.
func reader() *corev1.Pod {
	c := load("reader", "500m", "-calm", "-rest=1h")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "groups", MountPath: groupTree, ReadOnly: true}}
	p := pod("reader", c)
	p.Spec.Volumes = []corev1.Volume{{Name: "groups", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/sys/fs/cgroup"}}}}
	return p
}

// cpuStat is the file, by its keys.
type cpuStat map[string]float64

func parseCPUStat(s string) (cpuStat, error) {
	stat := cpuStat{}
	for lines := bufio.NewScanner(strings.NewReader(s)); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("cpu.stat has the line %q", lines.Text())
		}
		stat[key] = float64(n)
	}
	for _, c := range ownCounters {
		if _, ok := stat[c.key]; !ok {
			return nil, fmt.Errorf("cpu.stat lacks %s: %q", c.key, s)
		}
	}
	return stat, nil
}

// ownCounters are our names of what cpu.stat counts (kernel/sched/core.c, cpu_cfs_stat_show
// and kernel/cgroup/rstat.c, cgroup_base_stat_cputime_show), and what one of ours is in theirs.
var ownCounters = []struct {
	family, key string
	unit        float64
}{
	{"kernel_gossip_cpu_periods_total", "nr_periods", 1},
	{"kernel_gossip_cpu_throttled_periods_total", "nr_throttled", 1},
	{"kernel_gossip_cpu_throttled_seconds_total", "throttled_usec", 1e6},
	{"kernel_gossip_cpu_usage_seconds_total", "usage_usec", 1e6},
}

// cpuStat reads the file of a pod's only container by way of the reader.
func (e *Env) cpuStat(ctx context.Context, p *corev1.Pod) (cpuStat, error) {
	if len(p.Status.ContainerStatuses) != 1 {
		return nil, fmt.Errorf("pod %s has %d containers, not one", p.Name, len(p.Status.ContainerStatuses))
	}
	_, id, ok := strings.Cut(p.Status.ContainerStatuses[0].ContainerID, "://")
	if !ok {
		return nil, fmt.Errorf("the container of pod %s has the ID %q", p.Name, p.Status.ContainerStatuses[0].ContainerID)
	}
	file := path.Join(groupTree, "kubepods", "burstable", "pod"+string(p.UID), id, "cpu.stat")
	out, err := e.Kubectl(ctx, "", "-n", e.Namespace, "exec", "reader", "--", "/load", "-print", file)
	if err != nil {
		return nil, err
	}
	return parseCPUStat(out)
}

func ownFile(ctx context.Context, e *Env, seen *Seen) error {
	r, p := reader(), pod("exact", load("app", "100m", "-rest=20s"))
	if err := e.startAll(ctx, r, p); err != nil {
		return err
	}
	const enough = 60
	if _, err := e.until(ctx, 2*time.Minute, "the container's own cpu.stat", func() error {
		if err := e.API.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		stat, err := e.cpuStat(ctx, p)
		if err != nil {
			return err
		}
		if stat["nr_throttled"] < enough {
			return fmt.Errorf("%g of %g periods throttled: fewer than %d", stat["nr_throttled"], stat["nr_periods"], enough)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := e.calm(ctx, p.Name); err != nil {
		return err
	}
	stat, s, err := e.resting(ctx, p)
	if err != nil {
		return err
	}
	key := labels{p.Namespace, p.Name, "app"}
	var told []string
	for _, c := range ownCounters {
		ours, ok := s.value(c.family, key)
		if !ok {
			return fmt.Errorf("the exporter has no %s of %s", c.family, p.Name)
		}
		// Decimal text of a float64: exact to far less than a microsecond.
		if math.Abs(ours*c.unit-stat[c.key]) > 0.01 {
			return fmt.Errorf("%s of %s is %g, its cpu.stat has %s %g", c.family, p.Name, ours, c.key, stat[c.key])
		}
		told = append(told, fmt.Sprintf("%s %.0f", c.key, stat[c.key]))
	}
	seen.Add("equal to its cpu.stat at rest: %s", strings.Join(told, ", "))

	if !s.attached("throttle") {
		return errors.New("the exporter's probe throttle is not attached: this kernel was to let it, by fentry")
	}
	m := s.metric("kernel_gossip_cpu_throttle_duration_seconds", key)
	if m == nil || m.Histogram.GetSampleCount() == 0 {
		return fmt.Errorf("the exporter has no cpu_throttle_duration_seconds of %s", p.Name)
	}
	sum, file := m.Histogram.GetSampleSum(), stat["throttled_usec"]/1e6
	if off := math.Abs(sum-file) / file; off > 0.001 {
		return fmt.Errorf("the %d throttles of %s lasted %.6f s by fentry, %.6f s by cpu.stat: %.3f %% apart", m.Histogram.GetSampleCount(), p.Name, sum, file, 100*off)
	}
	seen.Add("probe throttle attached by fentry; cpu_throttle_duration_seconds: %d throttles of %.6f s together, throttled_usec %.6f s", m.Histogram.GetSampleCount(), sum, file)
	return e.endAll(ctx, p, r)
}

// resting reads a pod's cpu.stat, what the exporter sampled after that, and the file
// again, until it is the same as before: then it was so at the time of the sample.
func (e *Env) resting(ctx context.Context, p *corev1.Pod) (stat cpuStat, s *scrape, err error) {
	_, err = e.until(ctx, 3*time.Minute, "pod "+p.Name+" at rest", func() error {
		if stat, err = e.cpuStat(ctx, p); err != nil {
			return err
		}
		first, err := e.scrape(ctx)
		if err != nil {
			return err
		}
		// The sample after the next was begun after the file was read.
		if _, err := e.until(ctx, 30*time.Second, "the exporter's next samples", func() error {
			if s, err = e.scrape(ctx); err != nil {
				return err
			}
			if !s.at.After(first.at.Add(1500 * time.Millisecond)) {
				return fmt.Errorf("its last is of %s", s.at.Format(time.TimeOnly))
			}
			// After an outage the exporter takes a while to hear of new pods again.
			if _, ok := s.value(ownCounters[0].family, labels{p.Namespace, p.Name, "app"}); !ok {
				return fmt.Errorf("it has nothing of %s", p.Name)
			}
			return nil
		}); err != nil {
			return err
		}
		again, err := e.cpuStat(ctx, p)
		if err != nil {
			return err
		}
		for _, c := range ownCounters {
			if stat[c.key] != again[c.key] {
				return fmt.Errorf("it works: %s went from %g to %g", c.key, stat[c.key], again[c.key])
			}
		}
		return nil
	})
	return stat, s, err
}

// attached tells whether the exporter has attached a probe.
func (s *scrape) attached(probe string) bool {
	for _, m := range s.families["kernel_gossip_exporter_probe_attached"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "probe" && l.GetValue() == probe {
				return m.GetGauge().GetValue() == 1
			}
		}
	}
	return false
}
