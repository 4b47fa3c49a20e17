package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const (
	memoryPressure v1alpha1.SignalType = "memory_pressure"

	// memoryLimit is that of the pods below.
	memoryLimit = 64 << 20

	// files is for stress-ng to write more files than the limit holds beside its memory,
	// hog to want three times as much as the limit.
	files = "--hdd 1 --hdd-bytes 64M --vm 4 --vm-bytes 16M --vm-method zero-one --temp-path /scratch --quiet"
	hog   = "--vm 1 --vm-bytes 192M --vm-method zero-one --vm-ops 1 --oomable --temp-path /scratch --quiet"
)

// Memory is a pod that the kernel makes reclaim, one that it kills in, both by Debian's
// stress-ng, and a neighbour with room: the first two get a whisper each, by the exporter's event and by the
// alert; the neighbour none.
var Memory = Scenario{Name: "pods that lack memory", Run: memory}

// hungry is a pod of stress-ng with a memory limit, one for CPU that leaves some to the
// others, and a directory whose files are on the node's disk. Beside it sleeps another
// container: else the pod's limit were the same, and reached first.
func hungry(name string, args ...string) *corev1.Pod {
	c := load("app", "300m", args...)
	c.Image = StressImage
	c.Resources.Limits[corev1.ResourceMemory] = *resource.NewQuantity(memoryLimit, resource.BinarySI)
	c.VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	p := pod(name, c, load("beside", "50m", "-calm", "-rest=1h"))
	p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return p
}

func memory(ctx context.Context, e *Env, seen *Seen) error {
	short, doomed, roomy := hungry("short", "-stress="+files), hungry("doomed", "-stress="+hog), hungry("roomy", "-calm")
	began := time.Now()
	if err := e.startAll(ctx, short, doomed, roomy); err != nil {
		return err
	}

	w, err := e.signal(ctx, doomed, memoryPressure, "critical, with whom it hit", func(w *v1alpha1.KernelWhisper) error {
		v := w.Spec.Evidence.Values
		switch {
		case w.Status.Phase != v1alpha1.Active:
			return fmt.Errorf("its phase is %q", w.Status.Phase)
		case v["oom_kills"] < 1 || v["oom_victim_pid"] == 0 || v["oom_victim_rss_bytes"] == 0:
			return fmt.Errorf("its evidence is %v", v)
		case v["oom_limit_bytes"] != memoryLimit:
			return fmt.Errorf("its limit is %g, the pod's %d", v["oom_limit_bytes"], memoryLimit)
		case w.Spec.Severity != v1alpha1.Severity(advice.Critical):
			return fmt.Errorf("its severity is %q", w.Spec.Severity)
		}
		return advised(w, advice.IncreaseMemoryLimits)
	})
	if err != nil {
		return err
	}
	seen.Add("%s after %.1f s: %s", w.Name, w.CreationTimestamp.Sub(began).Seconds(), strings.Join(w.Spec.Insights, ". "))

	w, err = e.signal(ctx, short, memoryPressure, "Active with what is reported", func(w *v1alpha1.KernelWhisper) error {
		v := w.Spec.Evidence.Values
		switch {
		case w.Status.Phase != v1alpha1.Active:
			return fmt.Errorf("its phase is %q", w.Status.Phase)
		case max(v["some_pressure_percent"], v["reclaim_stall_percent"]) < 10:
			return fmt.Errorf("it is stalled for less than a tenth of the time: %v", v)
		case v["memory_limit_bytes"] != memoryLimit:
			return fmt.Errorf("its limit is %g, the pod's %d", v["memory_limit_bytes"], memoryLimit)
		}
		return advised(w, advice.IncreaseMemoryLimits)
	})
	if err != nil {
		return err
	}
	seen.Add("%s: %s", w.Name, strings.Join(w.Spec.Insights, ". "))

	if e.Monitoring != nil {
		for alert, p := range map[string]*corev1.Pod{"KernelGossipMemoryStalled": short, "KernelGossipOOMKilled": doomed} {
			if err := e.alsoAlerted(ctx, p, memoryPressure, alert, seen); err != nil {
				return err
			}
		}
	}
	var all []v1alpha1.KernelWhisper
	if err := e.asked(ctx, "the whispers of "+roomy.Name, func() (err error) { all, err = e.signalsOf(ctx, roomy.Name, memoryPressure); return err }); err != nil {
		return err
	}
	if len(all) > 0 {
		return fmt.Errorf("the neighbour has room and a whisper: %q", all[0].Spec.Insights)
	}
	seen.Add("the neighbour has none")

	if err := e.calm(ctx, short.Name); err != nil {
		return err
	}
	rested := time.Now()
	if err := e.memoryFigures(ctx, short, doomed, roomy, seen); err != nil {
		return err
	}
	if _, err := e.signal(ctx, short, memoryPressure, "Resolved after the load ended", resolved); err != nil {
		return err
	}
	seen.Add("Resolved %.0f s after the load ended", time.Since(rested).Seconds())
	return e.endAll(ctx, short, doomed, roomy)
}

// memoryFigures holds the exporter's figures to the kernel's, of containers at rest. Some
// files it reads at every fifth sample only.
func (e *Env) memoryFigures(ctx context.Context, short, doomed, roomy *corev1.Pod, seen *Seen) error {
	pods := []*corev1.Pod{short, doomed, roomy}
	before, err := e.ownMemory(ctx, pods)
	if err != nil {
		return err
	}
	var s *scrape
	var found []memoryFigure
	if _, err := e.until(ctx, 30*time.Second, "the exporter's figures of memory", func() error {
		if s, err = e.scrape(ctx); err != nil {
			return err
		}
		found = found[:0]
		for i, p := range pods {
			for _, c := range memoryCounters {
				low, ok := before[i][c.key]
				if !ok { // of the other version of cgroups
					continue
				}
				ours, ok := s.value(c.family, labels{p.Namespace, p.Name, "app"}, c.labels...)
				if ours *= c.unit; !ok || ours < low-digits {
					return fmt.Errorf("%s%v of %s is %g (there: %t), and %s of its cgroup %g", c.family, c.labels, p.Name, ours, ok, c.key, low)
				}
				found = append(found, memoryFigure{i, c.key, ours})
			}
		}
		return nil
	}); err != nil {
		return err
	}
	after, err := e.ownMemory(ctx, pods) // by kubectl exec, which takes memory, too
	if err != nil {
		return err
	}
	for _, f := range found {
		if high := after[f.pod][f.key]; f.ours > high+digits {
			return fmt.Errorf("%s of %s is %g, and of its cgroup %g", f.key, pods[f.pod].Name, f.ours, high)
		}
		if pods[f.pod] != roomy {
			seen.Add("%s: %s %.0f, as its cgroup has it", pods[f.pod].Name, f.key, f.ours)
		}
	}
	for i, p := range pods {
		if n := before[i]["oom_kill"]; (n > 0) != (p == doomed) {
			return fmt.Errorf("the kernel killed %g processes of %s", n, p.Name)
		}
		limit, ok := s.value("kernel_gossip_memory_limit_bytes", labels{p.Namespace, p.Name, "app"})
		if !ok || limit != memoryLimit {
			return fmt.Errorf("the limit of %s is %g (there: %t), not %d", p.Name, limit, ok, memoryLimit)
		}
	}
	stall := s.metric("kernel_gossip_memory_reclaim_stall_seconds", labels{short.Namespace, short.Name, "app"}, "kind", "memcg")
	if stall == nil || stall.Histogram.GetSampleCount() == 0 || stall.Histogram.GetSampleSum() <= 0 {
		return fmt.Errorf("%s reclaims, yet has no stalls: %v", short.Name, stall)
	}
	reclaims := float64(stall.Histogram.GetSampleCount())
	// On v1 the limit of memory and swap together, which a runtime sets to the same, comes
	// first, and the kernel does not count how often.
	if reached, v2 := after[0]["max"]; v2 && reclaims > reached {
		return fmt.Errorf("%s reclaimed %g times, and was at its limit %g times", short.Name, reclaims, reached)
	}
	if m := s.metric("kernel_gossip_memory_reclaim_stall_seconds", labels{roomy.Namespace, roomy.Name, "app"}, "kind", "memcg"); m != nil && m.Histogram.GetSampleCount() > 0 {
		return fmt.Errorf("%s has room, yet stalls: %v", roomy.Name, m)
	}
	seen.Add("%.0f stalls of %.2f ms on average", reclaims, 1000*stall.Histogram.GetSampleSum()/reclaims)
	return nil
}

// memoryFigure is one of ours, in the unit of the cgroup's file.
type memoryFigure struct {
	pod  int
	key  string
	ours float64
}

const digits = 0.01 // are what decimal text may cost

// memoryCounters are our names of what a memory cgroup counts, and what one of ours is
// in its unit.
var memoryCounters = []struct {
	family string
	labels []string
	key    string
	unit   float64
}{
	{"kernel_gossip_memory_events_total", []string{"event", "max"}, "max", 1},
	{"kernel_gossip_memory_events_total", []string{"event", "failcnt"}, "failcnt", 1},
	{"kernel_gossip_memory_events_total", []string{"event", "oom_kill"}, "oom_kill", 1},
	{"kernel_gossip_oom_kills_total", nil, "oom_kill", 1},
	{"kernel_gossip_memory_refaults_total", nil, "refaults", 1},
	{"kernel_gossip_pressure_seconds_total", []string{"resource", "memory", "kind", "some"}, "some total", 1e6},
}

// ownMemory reads the files of containers' memory cgroups from within.
func (e *Env) ownMemory(ctx context.Context, pods []*corev1.Pod) ([]map[string]float64, error) {
	figures := make([]map[string]float64, len(pods))
	for i, p := range pods {
		if err := e.asked(ctx, "reading the memory cgroup of "+p.Name, func() error {
			var errs []error
			for _, files := range [][]string{
				{"memory.events", "memory.stat", "memory.pressure"},
				{"memory/memory.failcnt", "memory/memory.oom_control", "memory/memory.stat"},
			} {
				args := []string{"-n", p.Namespace, "exec", p.Name, "-c", "app", "--", "/load", "-print"}
				for _, file := range files {
					args = append(args, "/sys/fs/cgroup/"+file)
				}
				out, err := e.Kubectl(ctx, "", args...)
				if err == nil {
					figures[i], err = parseMemory(out)
					return err
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		}); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

// parseMemory reads the files one after another: a number alone is memory.failcnt. A
// container has no cgroups below, so v1's totals are its plain figures.
func parseMemory(out string) (map[string]float64, error) {
	figures := map[string]float64{}
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		var key, value string
		switch {
		case len(words) == 1:
			key, value = "failcnt", words[0]
		case len(words) == 2 && strings.HasPrefix(words[0], "workingset_refault"):
			key, value = "refaults", words[1]
		case len(words) == 2:
			key, value = words[0], words[1]
		case len(words) == 5:
			key, value = words[0]+" total", strings.TrimPrefix(words[4], "total=")
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("a memory cgroup has the line %q", line)
		}
		figures[key] += n
	}
	return figures, nil
}

func advised(w *v1alpha1.KernelWhisper, action string) error {
	if !slices.ContainsFunc(w.Status.Recommendations, func(r v1alpha1.Recommendation) bool {
		return r.Action == action && r.SuggestedValue != ""
	}) {
		return fmt.Errorf("it does not recommend %s with a value: %v", action, w.Status.Recommendations)
	}
	return nil
}
