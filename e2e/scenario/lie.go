package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// alertmanager is the source that the Alertmanager intake gives.
const alertmanager v1alpha1.Source = "alertmanager"

// reportedMost is the share of its limit that a lying pod may be reported at.
const reportedMost = 0.60

// Lie is the first scenario: a pod that kubectl top calls healthy and the kernel
// throttles gets one whisper, by the exporter's event and by the alert, which
// resolves when the load ends and goes when the pod goes.
var Lie = Scenario{Name: "throttled pod that metrics call healthy", Run: lie}

func lie(ctx context.Context, e *Env, seen *Seen) error {
	const limit = "200m"
	p := pod("checkout", load("app", limit, e.Load...))
	if err := e.start(ctx, p); err != nil {
		return err
	}
	began := time.Now()
	w, _, err := e.whisper(ctx, 90*time.Second, p.Name, "app", "there", there)
	if err != nil {
		return err
	}
	seen.Add("whisper %s %.1f s after the container's start", w.Name, w.CreationTimestamp.Sub(startOf(p)).Seconds())
	if w.Name != p.Name+"-kw" {
		return fmt.Errorf("the whisper is named %s, not %s-kw", w.Name, p.Name)
	}
	// The container's start is in the first figures: on a slow node it weighs.
	w, _, err = e.whisper(ctx, 2*time.Minute, p.Name, "app", "Active with both figures, and right", func(w *v1alpha1.KernelWhisper) error {
		if err := active(w); err != nil {
			return err
		}
		return judgeLie(w, p, e.NodeName)
	})
	if err != nil {
		return err
	}
	seen.Add("whisper: throttled %.1f %%, reported %.0f %% of the limit of %gm", *w.Spec.Evidence.ThrottlePercentage,
		*w.Spec.Evidence.ReportedPercentOfLimit, 1000**w.Spec.Evidence.CPULimitCores)
	if err := e.event(ctx, p, "KernelWhisper"); err != nil {
		return err
	}
	seen.Add("Event on the pod")
	if e.Top {
		if err := e.top(ctx, p, limit, seen); err != nil {
			return err
		}
	}
	if e.Monitoring != nil {
		if err := e.alerted(ctx, p, w, began, seen); err != nil {
			return err
		}
	}

	if err := e.calm(ctx, p.Name); err != nil {
		return err
	}
	w, took, err := e.whisper(ctx, 4*time.Minute, p.Name, "app", "Resolved after the load ended", resolved)
	if err != nil {
		return err
	}
	seen.Add("Resolved %.0f s after the load ended", took.Seconds())
	if err := owned(w, p); err != nil {
		return err
	}
	return e.end(ctx, p, seen)
}

// judgeLie tells whether w says all that it must about p.
func judgeLie(w *v1alpha1.KernelWhisper, p *corev1.Pod, node string) error {
	ev := w.Spec.Evidence
	switch {
	case *ev.ThrottlePercentage < 75:
		return fmt.Errorf("whisper %s: throttled in %.1f %% of its periods; the workload is in nearly all", w.Name, *ev.ThrottlePercentage)
	case *ev.ReportedPercentOfLimit > 100*reportedMost:
		return fmt.Errorf("whisper %s: reported at %.1f %% of the limit", w.Name, *ev.ReportedPercentOfLimit)
	case w.Spec.Source != v1alpha1.SourceEBPF:
		return fmt.Errorf("whisper %s comes from %s, not from the exporter", w.Name, w.Spec.Source)
	case w.Spec.NodeName != node:
		return fmt.Errorf("whisper %s is of node %q, not %q", w.Name, w.Spec.NodeName, node)
	case len(w.Spec.Insights) == 0 || len(w.Status.Recommendations) == 0 || w.Spec.Severity == "":
		return fmt.Errorf("whisper %s lacks advice: insights %q, recommendations %v, severity %q", w.Name, w.Spec.Insights, w.Status.Recommendations, w.Spec.Severity)
	}
	limit := p.Spec.Containers[0].Resources.Limits.Cpu().AsApproximateFloat64()
	if ev.CPULimitCores == nil || *ev.CPULimitCores != limit {
		return fmt.Errorf("whisper %s: the kernel's limit is %v cores, the pod's is %v", w.Name, deref(ev.CPULimitCores), limit)
	}
	return owned(w, p)
}

func deref(v *float64) any {
	if v == nil {
		return "unknown"
	}
	return *v
}

func startOf(p *corev1.Pod) time.Time {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running != nil {
			return c.State.Running.StartedAt.Time
		}
	}
	return p.CreationTimestamp.Time
}

// event waits for an Event on the pod whose reason begins so.
func (e *Env) event(ctx context.Context, p *corev1.Pod, reason string) error {
	_, err := e.until(ctx, 30*time.Second, "Event "+reason+" on pod "+p.Name, func() error {
		list, err := e.Set.EventsV1().Events(p.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, ev := range list.Items {
			if ev.Regarding.UID == p.UID && strings.HasPrefix(ev.Reason, reason) {
				return nil
			}
		}
		return fmt.Errorf("there is none among %d", len(list.Items))
	})
	return err
}

// top waits until kubectl top knows the pod, and holds its figure to the limit.
func (e *Env) top(ctx context.Context, p *corev1.Pod, limit string, seen *Seen) error {
	var used resource.Quantity
	_, err := e.until(ctx, 2*time.Minute, "kubectl top pod "+p.Name, func() error {
		out, err := e.Kubectl(ctx, "", "-n", p.Namespace, "top", "pod", p.Name, "--no-headers")
		if err != nil {
			return err
		}
		fields := strings.Fields(out)
		if len(fields) < 2 || fields[0] != p.Name {
			return fmt.Errorf("it printed %q", out)
		}
		used, err = resource.ParseQuantity(fields[1])
		return err
	})
	if err != nil {
		return err
	}
	most := resource.MustParse(limit)
	share := used.AsApproximateFloat64() / most.AsApproximateFloat64()
	seen.Add("kubectl top pod: %s of %s (%.0f %%)", used.String(), limit, 100*share)
	if share >= reportedMost {
		return fmt.Errorf("kubectl top pod shows %s of %s for %s: the workload is to stay below %.0f %%", used.String(), limit, p.Name, 100*reportedMost)
	}
	return nil
}

// alerted waits for the alert about the pod's container app in Prometheus and
// Alertmanager, and for the alert's word in the same whisper.
func (e *Env) alerted(ctx context.Context, p *corev1.Pod, w *v1alpha1.KernelWhisper, began time.Time, seen *Seen) error {
	const name = "KernelGossipMetricsLie"
	selector := fmt.Sprintf(`namespace=%q,pod=%q,container="app"`, p.Namespace, p.Name)
	var ratio float64
	_, err := e.until(ctx, 90*time.Second, "throttle ratio in Prometheus", func() (err error) {
		ratio, err = e.query(ctx, "kernel_gossip_cpu_throttle_ratio{"+selector+"}")
		return err
	})
	if err != nil {
		return err
	}
	seen.Add("Prometheus: throttle ratio %.3f", ratio)
	_, err = e.until(ctx, 2*time.Minute, "alert "+name+" firing in Prometheus", func() error {
		_, err := e.query(ctx, `count(ALERTS{alertname="`+name+`",alertstate="firing",`+selector+`})`)
		return err
	})
	if err != nil {
		return err
	}
	_, err = e.until(ctx, time.Minute, "alert "+name+" in Alertmanager", func() error {
		alerts, err := e.alerts(ctx)
		if err != nil {
			return err
		}
		for _, a := range alerts {
			if a.Labels["alertname"] == name && a.Labels["namespace"] == p.Namespace && a.Labels["pod"] == p.Name && a.Status.State == "active" {
				return nil
			}
		}
		return fmt.Errorf("it holds %d others", len(alerts))
	})
	if err != nil {
		return err
	}
	now, _, err := e.whisper(ctx, time.Minute, p.Name, "app", "Active by both ways", func(w *v1alpha1.KernelWhisper) error {
		if err := active(w); err != nil {
			return err
		}
		for _, source := range []v1alpha1.Source{v1alpha1.SourceEBPF, alertmanager} {
			if !told(w, source) {
				return fmt.Errorf("%s has not told of it: %v", source, w.Status.Sources)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if now.UID != w.UID {
		return fmt.Errorf("the alert made another whisper (%s) of the event's (%s)", now.UID, w.UID)
	}
	var all []v1alpha1.KernelWhisper
	if err := e.asked(ctx, "the whispers of "+p.Name, func() (err error) { all, err = e.whispersOf(ctx, p.Name); return err }); err != nil {
		return err
	}
	if len(all) != 1 {
		return fmt.Errorf("pod %s has %d whispers, not one", p.Name, len(all))
	}
	seen.Add("alert %s after %.0f s: the same object, both sources Active, %d occurrences", name, time.Since(began).Seconds(), now.Status.Occurrences)
	return nil
}

func told(w *v1alpha1.KernelWhisper, source v1alpha1.Source) bool {
	for _, s := range w.Status.Sources {
		if s.Name == source {
			return s.Active
		}
	}
	return false
}

// query asks Prometheus for the one present value of an expression.
func (e *Env) query(ctx context.Context, expr string) (float64, error) {
	v, _, _, err := e.Monitoring.Prometheus.Query(ctx, expr, time.Now())
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", expr, err)
	}
	vector, ok := v.(model.Vector)
	if !ok || len(vector) != 1 {
		return 0, fmt.Errorf("query %s: %d values, not one", expr, len(vector))
	}
	return float64(vector[0].Value), nil
}

type alert struct {
	Labels map[string]string `json:"labels"`
	Status struct {
		State string `json:"state"`
	} `json:"status"`
}

func (e *Env) alerts(ctx context.Context) ([]alert, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Monitoring.Alertmanager+"/api/v2/alerts", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking Alertmanager: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking Alertmanager: %s", strconv.Itoa(resp.StatusCode))
	}
	var alerts []alert
	if err := json.NewDecoder(resp.Body).Decode(&alerts); err != nil {
		return nil, fmt.Errorf("asking Alertmanager: %w", err)
	}
	return alerts, nil
}
