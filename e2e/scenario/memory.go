package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const (
	memoryPressure v1alpha1.SignalType = "memory_pressure"

	// memoryLimit is that of the pods below, and wanted three times as much.
	memoryLimit = 64 << 20
	wanted      = 3 * memoryLimit
)

// Memory is a pod that the kernel makes reclaim, one that it kills in, and a neighbour
// with room: the first two get a whisper each, by the exporter's event and by the
// alert; the neighbour none.
var Memory = Scenario{Name: "pods that lack memory", Run: memory}

// hungry is a container of the workload with a memory limit, and with one for CPU that
// leaves some to the others.
func hungry(args ...string) corev1.Container {
	c := load("app", "400m", args...)
	c.Resources.Limits[corev1.ResourceMemory] = *resource.NewQuantity(memoryLimit, resource.BinarySI)
	return c
}

func memory(ctx context.Context, e *Env, seen *Seen) error {
	short := pod("short", hungry(fmt.Sprintf("-churn=%d", wanted)))
	doomed := pod("doomed", hungry("-calm", fmt.Sprintf("-sacrifice=%d", wanted)))
	roomy := pod("roomy", hungry("-calm"))
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
	if err := e.memoryFigures(ctx, short, doomed, roomy, seen); err != nil {
		return err
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
	if _, err := e.signal(ctx, short, memoryPressure, "Resolved after the load ended", resolved); err != nil {
		return err
	}
	seen.Add("Resolved %.0f s after the load ended", time.Since(rested).Seconds())
	return e.endAll(ctx, short, doomed, roomy)
}

// memoryFigures holds the exporter's figures to each other.
func (e *Env) memoryFigures(ctx context.Context, short, doomed, roomy *corev1.Pod, seen *Seen) error {
	var s *scrape
	if err := e.asked(ctx, "scraping the exporter", func() (err error) { s, err = e.scrape(ctx); return err }); err != nil {
		return err
	}
	key := func(p *corev1.Pod) labels { return labels{p.Namespace, p.Name, "app"} }
	const kills = "kernel_gossip_oom_kills_total"
	for p, killed := range map[*corev1.Pod]bool{short: false, doomed: true, roomy: false} {
		n, ok := s.value(kills, key(p))
		if !ok || (n > 0) != killed {
			return fmt.Errorf("%s of %s is %g (there: %t), killed: %t", kills, p.Name, n, ok, killed)
		}
		limit, ok := s.value("kernel_gossip_memory_limit_bytes", key(p))
		if !ok || limit != memoryLimit {
			return fmt.Errorf("the limit of %s is %g (there: %t), not %d", p.Name, limit, ok, memoryLimit)
		}
	}
	stall := s.metric("kernel_gossip_memory_reclaim_stall_seconds", key(short), "kind", "memcg")
	if stall == nil || stall.Histogram.GetSampleCount() == 0 || stall.Histogram.GetSampleSum() <= 0 {
		return fmt.Errorf("%s reclaims, yet has no stalls: %v", short.Name, stall)
	}
	if m := s.metric("kernel_gossip_memory_reclaim_stall_seconds", key(roomy), "kind", "memcg"); m != nil && m.Histogram.GetSampleCount() > 0 {
		return fmt.Errorf("%s has room, yet stalls: %v", roomy.Name, m)
	}
	seen.Add("%d stalls of %.2f ms on average", stall.Histogram.GetSampleCount(), 1000*stall.Histogram.GetSampleSum()/float64(stall.Histogram.GetSampleCount()))
	return nil
}

func advised(w *v1alpha1.KernelWhisper, action string) error {
	if !slices.ContainsFunc(w.Status.Recommendations, func(r v1alpha1.Recommendation) bool {
		return r.Action == action && r.SuggestedValue != ""
	}) {
		return fmt.Errorf("it does not recommend %s with a value: %v", action, w.Status.Recommendations)
	}
	return nil
}
