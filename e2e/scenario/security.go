package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const (
	securityEvent  v1alpha1.SignalType = "security_event"
	securityMetric string              = "kernel_gossip_security_events_total"
	securityAlert  string              = "KernelGossipSecurityEvent"
)

// Security is a pod for each of three things that few containers should do, and a
// neighbour into which somebody execs: each of the first gets its count, its alert and
// one whisper that tells who did it; the neighbour nothing.
var Security = Scenario{Name: "pods that do what few should", Run: securityPods}

// misdeed is a pod, and what is to be told of it.
type misdeed struct {
	kind     string // as cmd/load has it
	times    int
	event    string
	severity advice.Severity
	action   string
	detail   string
}

func misdeeds() []misdeed {
	return []misdeed{
		{"unshare", 3, "unshare", advice.Info, advice.ApplySeccompProfile, "uts"},
		{"ptrace", 4, "ptrace", advice.Warning, advice.DropCapabilities, "SEIZE of 1073741824"},
		{"module", 2, "module_load", advice.Critical, advice.RunUnprivileged, "from memory"},
	}
}

func securityPods(ctx context.Context, e *Env, seen *Seen) error {
	quiet := pod("sec-quiet", load("app", "200m", "-calm"))
	if err := e.start(ctx, quiet); err != nil {
		return err
	}
	for range 3 { // what the runtime does for that is not the pod's
		if err := e.calm(ctx, quiet.Name); err != nil {
			return err
		}
	}
	bad := misdeeds()
	errs := make([]error, len(bad))
	var all sync.WaitGroup
	for i, m := range bad {
		all.Go(func() { errs[i] = e.misdeed(ctx, m, seen) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	whispers, err := e.signalsOf(ctx, quiet.Name, securityEvent)
	if err != nil {
		return err
	}
	if len(whispers) > 0 {
		return fmt.Errorf("the neighbour does nothing and has a whisper: %q", whispers[0].Spec.Insights)
	}
	if err := e.securityCount(ctx, quiet, misdeed{}, 0); err != nil {
		return err
	}
	if err := e.noSecurityAlert(ctx, quiet); err != nil {
		return err
	}
	seen.Add("the neighbour, into which kubectl exec went three times, has none")
	return e.end(ctx, quiet, nil)
}

// misdeed has a pod do it, twice, and holds what is told of that.
func (e *Env) misdeed(ctx context.Context, m misdeed, seen *Seen) error {
	p := pod("sec-"+m.kind, load("app", "200m", "-misbehave="+m.kind, fmt.Sprint("-times=", m.times)))
	if err := e.start(ctx, p); err != nil {
		return err
	}
	w, err := e.signal(ctx, p, securityEvent, "Active, with who did it", func(w *v1alpha1.KernelWhisper) error { return m.told(w, m.times) })
	if err != nil {
		return err
	}
	seen.Add("%s, %s: %s", w.Name, w.Spec.Severity, strings.Join(w.Spec.Insights, ". "))
	if err := e.securityCount(ctx, p, m, m.times); err != nil {
		return err
	}
	if e.Monitoring != nil {
		// The rules' window may have passed since the start.
		if err := e.tell(ctx, e.Namespace, p.Name, "burst"); err != nil {
			return err
		}
		if err := e.alsoAlerted(ctx, p, securityEvent, securityAlert, seen); err != nil {
			return err
		}
		if err := e.securityCount(ctx, p, m, 2*m.times); err != nil {
			return err
		}
	}
	seen.Add("exactly %d %s, and no other event", m.times, m.event)
	return e.end(ctx, p, nil)
}

func (m misdeed) told(w *v1alpha1.KernelWhisper, times int) error {
	p := w.Spec.Evidence.Process
	switch {
	case w.Status.Phase != v1alpha1.Active:
		return fmt.Errorf("its phase is %q", w.Status.Phase)
	case w.Spec.Evidence.Values[m.event] != float64(times):
		return fmt.Errorf("its evidence is %v, not %d", w.Spec.Evidence.Values, times)
	case string(w.Spec.Severity) != string(m.severity):
		return fmt.Errorf("its severity is %s, not %s", w.Spec.Severity, m.severity)
	case p == nil:
		return errors.New("it does not tell who did it")
	case p.Event != m.event || p.Comm != "load" || p.Binary != "/load" || p.Detail != m.detail || p.PID == nil || len(p.Ancestry) == 0:
		return fmt.Errorf("it tells of %+v", *p)
	case !slices.ContainsFunc(w.Status.Recommendations, func(r v1alpha1.Recommendation) bool { return r.Action == m.action }):
		return fmt.Errorf("it does not recommend %s: %v", m.action, w.Status.Recommendations)
	}
	return nil
}

// securityCount holds that a pod has so many of its event, and none of any other.
func (e *Env) securityCount(ctx context.Context, p *corev1.Pod, m misdeed, want int) error {
	_, err := e.until(ctx, time.Minute, "the security events of "+p.Name, func() error {
		s, err := e.scrape(ctx)
		if err != nil {
			return err
		}
		for _, event := range advice.KnownSecurityEvents() {
			n, there := s.value(securityMetric, labels{p.Namespace, p.Name, "app"}, "event", event, "allowed", "false")
			switch {
			case event == m.event && n != float64(want):
				return fmt.Errorf("%s is counted %g times, not %d", event, n, want)
			case event != m.event && there:
				return fmt.Errorf("%s is counted %g times", event, n)
			}
		}
		return nil
	})
	return err
}

func (e *Env) noSecurityAlert(ctx context.Context, p *corev1.Pod) error {
	if e.Monitoring == nil {
		return nil
	}
	alerts, err := e.Monitoring.Prometheus.Alerts(ctx)
	if err != nil {
		return fmt.Errorf("listing alerts: %w", err)
	}
	for _, a := range alerts.Alerts {
		if string(a.Labels["alertname"]) == securityAlert && string(a.Labels["namespace"]) == p.Namespace && string(a.Labels["pod"]) == p.Name {
			return fmt.Errorf("%s is about %s, too", securityAlert, p.Name)
		}
	}
	return nil
}
