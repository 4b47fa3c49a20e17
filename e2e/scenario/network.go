package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const networkIssue v1alpha1.SignalType = "network_issue"

// Network is a pod for each thing that goes wrong with packets, and a neighbour whose
// traffic is well: each of the first gets one whisper, by the exporter's event and by its
// own alert; the neighbour none.
var Network = Scenario{Name: "pods with trouble on the network", Run: network}

// trouble is a pod, and what is to be told of it.
type trouble struct {
	kind   string // of traffic, as cmd/load has it
	alert  string
	count  string // the evidence that is not 0
	action string
	metric string
	labels []string
}

func troubles() []trouble {
	return []trouble{
		{"loss", "KernelGossipTCPRetransmits", "tcp_retransmits", advice.CheckNetworkPath, "kernel_gossip_network_tcp_retransmits_total", nil},
		{"queue", "KernelGossipAcceptQueueFull", "accept_queue_overflows", advice.AcceptFaster, "kernel_gossip_network_accept_queue_overflows_total", nil},
		{"refuse", "KernelGossipConnectionsRefused", "connections_refused", advice.CheckRefusedService, "kernel_gossip_network_tcp_resets_total", []string{"kind", "refused"}},
		{"flood", "KernelGossipPacketsDropped", "drops_socket_rcvbuff", advice.RaiseReceiveBuffer, "kernel_gossip_network_drops_total", []string{"reason", "socket_rcvbuff"}},
	}
}

func network(ctx context.Context, e *Env, seen *Seen) error {
	pods := map[string]*corev1.Pod{"calm": pod("net-calm", load("app", "1", "-network=calm"))}
	for _, t := range troubles() {
		kinds := t.kind
		if kinds != "loss" { // of all that is sent a part goes wrong
			kinds = "calm," + kinds
		}
		app := load("app", "1", "-network="+kinds)
		if t.kind == "loss" { // whose socket filters, for which some kernels ask for a privilege
			root := int64(0) // another user's capabilities take no effect
			app.SecurityContext = &corev1.SecurityContext{RunAsUser: &root, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}
		}
		pods[t.kind] = pod("net-"+t.kind, app)
	}
	if err := e.startAll(ctx, slices.Collect(maps.Values(pods))...); err != nil {
		return err
	}
	for _, t := range troubles() {
		w, err := e.signal(ctx, pods[t.kind], networkIssue, "Active, with its share", func(w *v1alpha1.KernelWhisper) error {
			v := w.Spec.Evidence.Values
			switch {
			case w.Status.Phase != v1alpha1.Active:
				return fmt.Errorf("its phase is %q", w.Status.Phase)
			case v[t.count] < 10 || v["period_seconds"] == 0:
				return fmt.Errorf("its evidence is %v", v)
			case !slices.ContainsFunc(w.Status.Recommendations, func(r v1alpha1.Recommendation) bool { return r.Action == t.action }):
				return fmt.Errorf("it does not recommend %s: %v", t.action, w.Status.Recommendations)
			}
			return nil
		})
		if err != nil {
			return err
		}
		seen.Add("%s: %s", w.Name, strings.Join(w.Spec.Insights, ". "))
	}
	if e.Monitoring != nil {
		for _, t := range troubles() {
			if err := e.alsoAlerted(ctx, pods[t.kind], networkIssue, t.alert, seen); err != nil {
				return err
			}
		}
		if err := e.onlyTheirAlerts(ctx, pods); err != nil {
			return err
		}
	}
	if err := e.networkFigures(ctx, pods); err != nil {
		return err
	}
	var all []v1alpha1.KernelWhisper
	if err := e.asked(ctx, "the whispers of net-calm", func() (err error) { all, err = e.signalsOf(ctx, pods["calm"].Name, networkIssue); return err }); err != nil {
		return err
	}
	if len(all) > 0 {
		return fmt.Errorf("the neighbour's traffic is well and it has a whisper: %q", all[0].Spec.Insights)
	}
	seen.Add("the neighbour has none, and no metric of theirs")

	// On a node with no time to spare the queue may have had room for a while.
	if _, err := e.signal(ctx, pods["queue"], networkIssue, "Active", isActive); err != nil {
		return err
	}
	if err := e.calm(ctx, pods["queue"].Name); err != nil {
		return err
	}
	rested := time.Now()
	if _, err := e.signal(ctx, pods["queue"], networkIssue, "Resolved after it is well", resolved); err != nil {
		return err
	}
	seen.Add("Resolved %.0f s after the queue had room", time.Since(rested).Seconds())
	return e.endAll(ctx, slices.Collect(maps.Values(pods))...)
}

// Netem is a pod whose loopback loses packets by tc's netem, which a node's kernel has to
// have, and a neighbour whose loopback loses none: what both send again is what the
// kernel counts in their network namespaces, and the first alone is told of.
var Netem = Scenario{Name: "loss by tc netem", Run: netem}

func netem(ctx context.Context, e *Env, seen *Seen) error {
	root := int64(0)
	app := load("app", "1", "-network=netem")
	app.SecurityContext = &corev1.SecurityContext{RunAsUser: &root, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}
	lossy, calm := pod("netem-lossy", app), pod("netem-calm", load("app", "1", "-network=calm"))
	if err := e.startAll(ctx, lossy, calm); err != nil {
		return err
	}
	w, err := e.signal(ctx, lossy, networkIssue, "Active, with its share", func(w *v1alpha1.KernelWhisper) error {
		v := w.Spec.Evidence.Values
		switch {
		case w.Status.Phase != v1alpha1.Active:
			return fmt.Errorf("its phase is %q", w.Status.Phase)
		case v["tcp_retransmits"] == 0 || v["period_seconds"] == 0:
			return fmt.Errorf("its evidence is %v", v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	seen.Add("%s: %s", w.Name, strings.Join(w.Spec.Insights, ". "))
	if e.Monitoring != nil {
		if err := e.alsoAlerted(ctx, lossy, networkIssue, "KernelGossipTCPRetransmits", seen); err != nil {
			return err
		}
	}
	for _, p := range []*corev1.Pod{lossy, calm} {
		if err := e.retransmits(ctx, p, seen); err != nil {
			return err
		}
	}
	all, err := e.signalsOf(ctx, calm.Name, networkIssue)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		return fmt.Errorf("the neighbour loses nothing and has a whisper: %q", all[0].Spec.Insights)
	}
	seen.Add("the neighbour has none")
	return e.endAll(ctx, lossy, calm)
}

// retransmits holds a pod's to those that the kernel counted in its network namespace
// before and after.
func (e *Env) retransmits(ctx context.Context, p *corev1.Pod, seen *Seen) error {
	read := func() (n float64, err error) {
		return n, e.asked(ctx, "reading what "+p.Name+" sent again", func() error {
			out, err := e.Kubectl(ctx, "", "-n", p.Namespace, "exec", p.Name, "-c", "app", "--", "/load", "-print", "/proc/net/snmp")
			if err == nil {
				n, err = parseSNMP(out, "Tcp", "RetransSegs")
			}
			return err
		})
	}
	before, err := read()
	if err != nil {
		return err
	}
	var ours float64
	if _, err := e.until(ctx, 30*time.Second, "the exporter's retransmits of "+p.Name, func() error {
		s, err := e.scrape(ctx)
		if err != nil {
			return err
		}
		n, ok := s.value("kernel_gossip_network_tcp_retransmits_total", labels{p.Namespace, p.Name, "app"})
		if !ok || n < before {
			return fmt.Errorf("it has %g (there: %t), the kernel %g", n, ok, before)
		}
		ours = n
		return nil
	}); err != nil {
		return err
	}
	after, err := read()
	if err != nil {
		return err
	}
	if ours > after {
		return fmt.Errorf("the exporter counts %g segments of %s sent again, the kernel %g", ours, p.Name, after)
	}
	seen.Add("%s: %.0f segments sent again, RetransSegs %.0f before and %.0f after", p.Name, ours, before, after)
	return nil
}

// parseSNMP finds a counter of a protocol in /proc/net/snmp: a line of names, and one of
// their values.
func parseSNMP(out, protocol, name string) (float64, error) {
	var names []string
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != protocol+":" {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		if i := slices.Index(names, name); i > 0 && i < len(words) {
			return strconv.ParseFloat(words[i], 64)
		}
	}
	return 0, fmt.Errorf("there is no %s of %s in %q", name, protocol, out)
}

// onlyTheirAlerts holds that each pod has its own alert and no other of the network's.
func (e *Env) onlyTheirAlerts(ctx context.Context, pods map[string]*corev1.Pod) error {
	alerts, err := e.Monitoring.Prometheus.Alerts(ctx)
	if err != nil {
		return fmt.Errorf("listing alerts: %w", err)
	}
	for _, a := range alerts.Alerts {
		for _, t := range troubles() {
			if string(a.Labels["alertname"]) != t.alert {
				continue
			}
			for kind, p := range pods {
				if string(a.Labels["namespace"]) == p.Namespace && string(a.Labels["pod"]) == p.Name && kind != t.kind {
					return fmt.Errorf("%s is about %s, too", t.alert, p.Name)
				}
			}
		}
	}
	return nil
}

// networkFigures holds that each pod has its metric, and no other has it.
func (e *Env) networkFigures(ctx context.Context, pods map[string]*corev1.Pod) error {
	var s *scrape
	if err := e.asked(ctx, "scraping the exporter", func() (err error) { s, err = e.scrape(ctx); return err }); err != nil {
		return err
	}
	for kind, p := range pods {
		key := labels{p.Namespace, p.Name, "app"}
		sent, ok := s.value("kernel_gossip_network_tcp_segments_total", key, "direction", "sent")
		if !ok || sent == 0 {
			return fmt.Errorf("%s sends, yet has %g segments (there: %t)", p.Name, sent, ok)
		}
		for _, t := range troubles() {
			n, _ := s.value(t.metric, key, t.labels...)
			// A busy node may be late with an acknowledgement.
			if own := kind == t.kind; own && n < 10 || !own && n > 0.02*sent {
				return fmt.Errorf("%s%v of %s is %g", t.metric, t.labels, p.Name, n)
			}
		}
	}
	return nil
}
