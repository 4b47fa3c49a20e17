package intake

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// knownAlert knows the alerts of rules/ that need no signal_type annotation.
func knownAlert(name string) (t signal.Type, known bool) {
	switch name {
	case "KernelGossipCPUThrottled", "KernelGossipMetricsLie", "KernelGossipMetricsLieBurn":
		return signal.CPUThrottle, true
	case "KernelGossipMemoryStalled", "KernelGossipOOMKilled":
		return signal.MemoryPressure, true
	case "KernelGossipTCPRetransmits", "KernelGossipAcceptQueueFull", "KernelGossipConnectionsRefused", "KernelGossipPacketsDropped":
		return signal.NetworkIssue, true
	case "KernelGossipSecurityEvent":
		return signal.SecurityEvent, true
	case "KernelGossipCPUStarved":
		return signal.CPUStarvation, true
	}
	return "", false
}

// errUnwanted is an alert that is about no pod and no cgroup, or none of ours.
var errUnwanted = errors.New("not an alert about a container that the kernel holds back")

// alerts is the door for Alertmanager's webhook, payload version 4
// (notify/webhook). Alertmanager does not retry a 4xx but comes back with the
// same at every group_interval: so an alert that can never be stored is
// counted and logged, and the notification accepted.
func (in *Intake) alerts(ctx context.Context, door string, body []byte) (string, error) {
	items, truncated, err := decodeNotification(body)
	if err != nil {
		return "", &refusal{status: http.StatusBadRequest, reason: "invalid", err: err}
	}
	if truncated > 0 {
		in.metrics.truncated.Add(float64(truncated))
		in.log.Warn("Alertmanager left alerts out: raise max_alerts or group by fewer containers", "truncated", truncated)
	}
	var batch batch
	var invalid, ignored int
	for i, item := range items {
		s, err := decodeAlert(item, in.host, in.now())
		switch {
		case errors.Is(err, errUnwanted):
			ignored++
		case err != nil:
			invalid++
			err = at("alerts"+index(i), err)
			in.log.Warn("Refused an alert for good", "err", err, "namespace", s.Namespace, "pod", s.Pod, "container", s.Container, "signal", s.Type)
		default:
			batch.add(s)
		}
	}
	in.metrics.events.WithLabelValues(door, resultIgnored).Add(float64(ignored))
	in.metrics.events.WithLabelValues(door, resultInvalid).Add(float64(invalid))
	t := in.store(ctx, door, batch.signals, batch.counts)
	for _, err := range []error{t.errInvalid, t.errFull} {
		if err != nil {
			in.log.Warn("Refused an alert for good", "err", err)
		}
	}
	if t.failed > 0 {
		return "", t.failure(len(items))
	}
	return fmt.Sprintf("%d alerts: %d stored, %d invalid, %d over the cap, %d ignored",
		len(items), t.stored, invalid+t.invalid, t.full, ignored), nil
}

// batch joins the alerts of one notification that are about one object, such
// as a throttle and a metrics-lie alert of one container: the latest firing
// one speaks, and a resolved one only when none fires.
type batch struct {
	signals []signal.Signal
	counts  []int
	known   map[subjectKey]int
}

type subjectKey struct {
	kind                      signal.Type
	namespace, pod, container string
}

func (b *batch) add(s signal.Signal) {
	key := subjectKey{s.Type, s.Namespace, s.Pod, s.Container}
	i, ok := b.known[key]
	if !ok {
		if b.known == nil {
			b.known = map[subjectKey]int{}
		}
		b.known[key] = len(b.signals)
		b.signals, b.counts = append(b.signals, s), append(b.counts, 1)
		return
	}
	b.counts[i]++
	old := &b.signals[i]
	if old.Resolved && !s.Resolved || old.Resolved == s.Resolved && s.Observed.After(old.Observed) {
		*old = s
	}
}

// decodeNotification reads the envelope. Fields it does not know are left alone.
func decodeNotification(body []byte) (alerts []any, truncated uint64, err error) {
	root, err := parse(body)
	if err != nil {
		return nil, 0, err
	}
	o, err := newObject(root)
	if err != nil {
		return nil, 0, err
	}
	if version := o.text("version"); version != "4" {
		o.fail("version", "want \"4\", that of Alertmanager's webhook, got %.40q", version)
	}
	if o.fields["alerts"] == nil {
		o.fail("alerts", "is required, as an array")
	}
	alerts = o.list("alerts")
	if len(alerts) > MaxEvents {
		o.fail("alerts", "has %d alerts, at most %d are taken: set max_alerts", len(alerts), MaxEvents)
	}
	if n := o.count("truncatedAlerts"); n != nil {
		truncated = *n
	}
	return alerts, truncated, o.err
}

// decodeAlert returns a valid signal, errUnwanted, or an *signal.InvalidError
// beside as much of the signal as it made out.
func decodeAlert(v any, hostNamespace string, now time.Time) (signal.Signal, error) {
	s := signal.Signal{Source: signal.SourceAlertmanager}
	o, err := newObject(v)
	if err != nil {
		return s, err
	}
	labels, annotations := o.texts("labels"), o.texts("annotations")
	status, starts, ends := o.text("status"), o.timestamp("startsAt"), o.timestamp("endsAt")
	if o.err != nil {
		return s, o.err
	}
	s.Namespace, s.Pod, s.Container = subject(labels)
	if s.Pod == "" && strings.HasPrefix(s.Container, "/") {
		s.Namespace, s.Pod, s.Container = hostNamespace, wire.HostPod(hostNode(labels), s.Container), ""
	}
	var ok bool
	if s.Type, ok = alertType(labels, annotations); !ok || s.Pod == "" {
		return s, errUnwanted
	}
	s.PodUID, s.Node = labels["uid"], labels["node"]
	switch status {
	case "firing":
		s.Observed = starts
	case "resolved":
		s.Resolved, s.Observed = true, ends
		if ends.IsZero() {
			s.Observed = now
		}
	default:
		return s, &signal.InvalidError{Field: "status", Problem: fmt.Sprintf("want firing or resolved, got %.40q", status)}
	}
	switch {
	case s.Resolved:
		// Its annotations are those of when it last fired.
	case s.Type == signal.CPUThrottle:
		s.CPU, err = throttleFigures(annotations)
	default:
		s.Values = figures(annotations)
	}
	if err != nil {
		return s, err
	}
	return s, s.Validate(now)
}

// subject is the container that the alert is about. A scrape without
// honor_labels leaves the exporter's own pod in "pod" and moves the
// container's to "exported_pod".
func subject(labels map[string]string) (namespace, pod, container string) {
	get := func(name string) string {
		if exported, ok := labels["exported_"+name]; ok && labels["exported_pod"] != "" {
			return exported
		}
		return labels[name]
	}
	return get("namespace"), get("pod"), get("container")
}

// hostNode is the node of a cgroup that belongs to no pod. The rules keep only
// instance, which names the node unless it is the address that was scraped.
func hostNode(labels map[string]string) string {
	if node := labels["node"]; node != "" {
		return node
	}
	if instance := labels["instance"]; !strings.Contains(instance, ":") {
		return instance
	}
	return ""
}

// alertType is the signal that the alert names, or what our own rules mean by
// their names; false when it is no alert of ours.
func alertType(labels, annotations map[string]string) (signal.Type, bool) {
	if t := annotations["signal_type"]; t != "" {
		return signal.Type(t), true
	}
	for _, t := range []string{labels["signal"], annotations["signal"]} {
		if _, known := decoders()[t]; known {
			return signal.Type(t), true
		}
	}
	t, ok := knownAlert(labels["alertname"])
	return t, ok
}

// throttleFigures reads the evidence of a throttle alert.
func throttleFigures(annotations map[string]string) (*signal.CPU, error) {
	var fault error
	get := func(name string) *float64 {
		f, err := decimal(annotations[name])
		if err != nil && fault == nil {
			fault = &signal.InvalidError{Field: "annotations." + name, Problem: err.Error()}
		}
		return f
	}
	percent := get("throttle_percentage")
	if percent == nil {
		if fault == nil {
			fault = &signal.InvalidError{Field: "annotations.throttle_percentage", Problem: "is required, as a decimal number from 0 to 100"}
		}
		return nil, fault
	}
	// Each rate() extrapolates on its own, so their quotient may come out a little over 1.
	if *percent > 100 && *percent < 101 {
		*percent = 100
	}
	cpu := &signal.CPU{
		ThrottlePercent:     *percent,
		ActualCores:         get("actual_cores"),
		ReportedCores:       get("reported_cores"),
		LimitCores:          get("limit_cores"),
		RecommendedCores:    get("recommended_limit_cores"),
		ReportedPercent:     get("reported_percent_of_limit"),
		RunqueueWaitPercent: get("runqueue_wait_percent"),
	}
	if seconds := get("period_seconds"); seconds != nil {
		cpu.PeriodSeconds = *seconds
	}
	return cpu, fault
}

// figures are all annotations that are numbers.
func figures(annotations map[string]string) map[string]float64 {
	values := map[string]float64{}
	for name, text := range annotations {
		if f, err := decimal(text); err == nil && f != nil && signal.IsIdentifier(name) {
			values[name] = *f
		}
	}
	return values
}

// decimal is nil for what a template makes of a query without result.
func decimal(text string) (*float64, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "<no value>" {
		return nil, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return nil, nil
	}
	if err != nil || strings.Trim(text, "0123456789.+-eE") != "" {
		return nil, fmt.Errorf("want a plain decimal number, got %.40q", text)
	}
	return &f, nil
}

// texts is an object of strings.
func (o *object) texts(name string) map[string]string {
	if o.fields[name] == nil {
		return nil
	}
	inner, err := newObject(o.fields[name])
	if err != nil {
		o.failAt(name, err)
		return nil
	}
	texts := make(map[string]string, len(inner.fields))
	for key := range inner.fields {
		texts[key] = inner.text(key)
	}
	o.failAt(name, inner.err)
	return texts
}
