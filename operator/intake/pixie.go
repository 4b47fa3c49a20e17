package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// events is the door for package wire's events, one or an array. All are
// validated before the first is stored.
func (in *Intake) events(source signal.Source) handle {
	return func(ctx context.Context, door string, body []byte) (string, error) {
		signals, err := decodeEvents(body, source, in.now())
		if err != nil {
			in.metrics.events.WithLabelValues(door, resultInvalid).Inc()
			return "", &refusal{status: http.StatusBadRequest, reason: "invalid", err: err}
		}
		t := in.store(ctx, door, signals, nil)
		switch {
		case t.failed > 0:
			return "", t.failure(len(signals))
		case t.invalid > 0:
			return "", &refusal{status: http.StatusUnprocessableEntity, reason: "unstorable",
				err: fmt.Errorf("%d of %d can't be stored: %w", t.invalid, len(signals), t.errInvalid)}
		case t.full > 0:
			return "", &refusal{status: http.StatusTooManyRequests, reason: "capped",
				err: fmt.Errorf("%d of %d are refused: %w", t.full, len(signals), t.errFull)}
		}
		if len(signals) == 1 {
			s := signals[0]
			return fmt.Sprintf("%s of %s/%s is stored", s.Type, s.Namespace, s.Pod), nil
		}
		return fmt.Sprintf("%d events are stored", len(signals)), nil
	}
}

// decodeEvents returns at least one signal, all valid, or an *signal.InvalidError.
func decodeEvents(body []byte, source signal.Source, now time.Time) ([]signal.Signal, error) {
	root, err := parse(body)
	if err != nil {
		return nil, err
	}
	items, array := root.([]any)
	if !array {
		s, err := decodeEvent(root, source, now)
		return []signal.Signal{s}, err
	}
	if len(items) == 0 || len(items) > MaxEvents {
		return nil, &signal.InvalidError{Problem: fmt.Sprintf("want 1 to %d events in the array, got %d", MaxEvents, len(items))}
	}
	signals := make([]signal.Signal, len(items))
	for i, item := range items {
		if signals[i], err = decodeEvent(item, source, now); err != nil {
			return nil, at(index(i), err)
		}
	}
	return signals, nil
}

// decoders by the event's tag.
func decoders() map[string]func(*object, *signal.Signal) {
	return map[string]func(*object, *signal.Signal){
		wire.TypeCPUThrottle: decodeThrottle,
		wire.TypePodCreation: decodeCreation,
		wire.TypeMemoryPressure: evidence("period_seconds", "oom_kills", "some_pressure_percent", "full_pressure_percent", "reclaim_stall_seconds",
			"reclaim_stall_percent", "working_set_bytes", "reported_memory_bytes", "memory_limit_bytes", "refaulted_bytes", "growth_bytes_per_hour",
			"oom_victim_pid", "oom_victim_rss_bytes", "oom_trigger_pid", "oom_limit_bytes", "oom_node"),
		wire.TypeNetworkIssue:  decodeNetwork,
		wire.TypeCPUStarvation: evidence("period_seconds", "runqueue_wait_percent"),
		wire.TypeSecurityEvent: decodeSecurity,
		wire.TypeCPUReported:   decodeReported,
	}
}

// decodeEvent unwraps one event, reads it and validates it.
func decodeEvent(v any, source signal.Source, now time.Time) (signal.Signal, error) {
	none := signal.Signal{}
	o, err := newObject(v)
	if err != nil {
		return none, err
	}
	name, wrapped, err := typeOf(o)
	if err != nil {
		return none, err
	}
	if wrapped {
		if o, err = newObject(o.fields[name]); err != nil {
			return none, at(name, err)
		}
	}
	s := signal.Signal{
		Type:      signal.Type(name),
		Source:    source,
		Namespace: o.text("namespace"),
		Pod:       o.text("pod_name"),
		Container: o.text("container_name"),
		PodUID:    o.text("pod_uid"),
		Node:      o.text("node_name"),
		Observed:  o.timestamp("timestamp"),
		Resolved:  o.flag("resolved"),
		Once:      o.flag("once"),
	}
	if o.flag("ebpf_detection") {
		s.Source = signal.SourceEBPF
	}
	decoders()[name](o, &s)
	err = o.err
	if err == nil {
		err = s.Validate(now)
	}
	if err != nil && wrapped {
		err = at(name, err)
	}
	return s, err
}

// typeOf finds the tag, or the one key that wraps the event.
func typeOf(o *object) (name string, wrapped bool, err error) {
	known := slices.Sorted(maps.Keys(decoders()))
	if o.fields["type"] != nil {
		name = o.text("type")
		if o.err == nil && !slices.Contains(known, name) {
			o.fail("type", "unknown type %.40q; want one of %v", name, known)
		}
		return name, false, o.err
	}
	var found []string
	for _, k := range known {
		if _, ok := o.fields[k]; ok {
			found = append(found, k)
		}
	}
	if len(found) != 1 {
		o.fail("type", "want a \"type\", or one key that wraps the event, of %v; got %d of them", known, len(found))
		return "", false, o.err
	}
	return found[0], true, nil
}

func decodeThrottle(o *object, s *signal.Signal) {
	percent := o.number("throttle_percentage")
	if percent == nil {
		if !s.Resolved {
			o.fail("throttle_percentage", "is required, as a number from 0 to 100")
		}
		return
	}
	s.CPU = &signal.CPU{
		ThrottlePercent:     *percent,
		ActualCores:         o.number("actual_cpu_usage"),
		ReportedCores:       o.number("reported_cpu_usage"),
		LimitCores:          o.number("cpu_limit"),
		RecommendedCores:    o.number("recommended_cpu_limit"),
		RunqueueWaitPercent: o.number("runqueue_wait_percent"),
		KernelInstrumented:  o.flag("ebpf_detection"),
		QOSClass:            o.text("qos_class"),
		Prediction:          decodePrediction(o),
	}
	if seconds := o.number("period_seconds"); seconds != nil {
		s.CPU.PeriodSeconds = *seconds
	}
	if ns := o.count("throttle_ns"); ns != nil {
		seconds := float64(*ns) / 1e9
		s.CPU.ThrottledSeconds = &seconds
	}
	items := o.list("whatif")
	if len(items) > signal.MaxWhatIf {
		o.fail("whatif", "has %d entries, at most %d are taken", len(items), signal.MaxWhatIf)
		return
	}
	for i, item := range items {
		w, err := newObject(item)
		if err == nil {
			s.CPU.WhatIf = append(s.CPU.WhatIf, signal.WhatIf{
				LimitCores:    w.requiredNumber("limit_cores"),
				ThrottleRatio: w.requiredNumber("throttle_ratio"),
				Low:           w.number("low"),
				High:          w.number("high"),
			})
			err = w.err
		}
		o.failAt("whatif"+index(i), err)
	}
}

func decodePrediction(o *object) *signal.Prediction {
	if o.fields["prediction"] == nil {
		return nil
	}
	p, err := newObject(o.fields["prediction"])
	if err != nil {
		o.failAt("prediction", err)
		return nil
	}
	out := &signal.Prediction{
		Outcome:       signal.Outcome(p.text("outcome")),
		Confidence:    p.text("confidence"),
		Periods:       p.requiredCount("periods"),
		WindowSeconds: p.requiredNumber("window_seconds"),
		ThrottleRatio: p.requiredNumber("throttle_ratio"),
		PeakCores:     p.number("peak_cores"),
		NextCores:     p.number("next_cpu_limit"),
		BurstRatio:    p.number("burst_throttle_ratio"),
		Threads:       p.count("threads"),
		ThreadsRatio:  p.number("threads_throttle_ratio"),
	}
	if p.fields["check"] != nil {
		check, err := newObject(p.fields["check"])
		if err == nil {
			out.Check = &signal.LimitCheck{
				Observed:  check.timestamp("timestamp"),
				FromCores: check.requiredNumber("from_cpu_limit"),
				Cores:     check.requiredNumber("cpu_limit"),
				Before:    check.requiredNumber("before_ratio"),
				Measured:  check.requiredNumber("measured_ratio"),
				Predicted: check.number("predicted_ratio"),
				Low:       check.number("low"),
				High:      check.number("high"),
			}
			err = check.err
		}
		p.failAt("check", err)
	}
	o.failAt("prediction", p.err)
	return out
}

func decodeReported(o *object, s *signal.Signal) {
	s.Reported = &signal.Reported{Source: s.Source, Cores: o.requiredNumber("reported_cpu_usage"), Observed: s.Observed}
	if seconds := o.number("period_seconds"); seconds != nil {
		s.Reported.PeriodSeconds = *seconds
	}
}

// isHead tells the fields that no evidence is read from.
func isHead(name string) bool {
	switch name {
	case "type", "pod_name", "namespace", "container_name", "pod_uid", "node_name", "timestamp", "resolved", "once", "ebpf_detection":
		return true
	}
	return false
}

// evidence takes every number of the event by its name; the known ones must be numbers.
func evidence(known ...string) func(*object, *signal.Signal) {
	return func(o *object, s *signal.Signal) {
		for _, name := range known {
			o.number(name)
		}
		s.Values = map[string]float64{}
		for name, v := range o.fields {
			if _, number := v.(json.Number); !number || isHead(name) || !signal.IsIdentifier(name) {
				continue
			}
			if f := o.number(name); f != nil {
				s.Values[name] = *f
			}
		}
	}
}

func decodeNetwork(o *object, s *signal.Signal) {
	evidence("period_seconds", "segments_sent", "segments_received", "tcp_retransmits", "connections", "accept_queue_overflows",
		"connections_refused", "resets_received", "drops", "retransmit_percent", "accept_overflow_percent", "refused_percent", "drop_percent")(o, s)
	if o.fields["drop_reasons"] == nil {
		return
	}
	reasons, err := newObject(o.fields["drop_reasons"])
	if err != nil {
		o.failAt("drop_reasons", err)
		return
	}
	for reason := range reasons.fields {
		if !signal.IsIdentifier("drops_" + reason) {
			o.fail("drop_reasons", "want names of a-z, 0-9 and _, got %.40q", reason)
			return
		}
		if n := reasons.count(reason); n != nil {
			s.Values["drops_"+reason] = float64(*n)
		}
	}
	o.failAt("drop_reasons", reasons.err)
}

func decodeSecurity(o *object, s *signal.Signal) {
	event, n := o.text("event"), uint64(1)
	if c := o.count("count"); c != nil {
		n = *c
	}
	evidence("period_seconds")(o, s)
	for _, name := range []string{"count", "pid", "uid"} {
		delete(s.Values, name)
	}
	decodeCounts(o, s)
	switch {
	case signal.IsIdentifier(event) && !isHead(event):
		if _, told := s.Values[event]; !told {
			s.Values[event] = float64(n)
		}
		s.Process = decodeProcess(o, event)
	case event != "" || !s.Resolved:
		o.fail("event", "want the name of a call, of a-z, 0-9 and _, got %.40q", event)
	}
}

// decodeCounts takes how often each event happened.
func decodeCounts(o *object, s *signal.Signal) {
	if o.fields["events"] == nil {
		return
	}
	events, err := newObject(o.fields["events"])
	if err != nil {
		o.failAt("events", err)
		return
	}
	for event := range events.fields {
		if !signal.IsIdentifier(event) || isHead(event) {
			o.fail("events", "want names of a-z, 0-9 and _, got %.40q", event)
			return
		}
		if n := events.count(event); n != nil {
			s.Values[event] = float64(*n)
		}
	}
	o.failAt("events", events.err)
}

// decodeProcess is nil where the sender tells of none.
func decodeProcess(o *object, event string) *signal.Process {
	p := &signal.Process{
		Event: event, Binary: o.text("binary"), Comm: o.text("comm"), Detail: o.text("detail"),
		PID: o.count("pid"), UID: o.count("uid"),
	}
	for i, item := range o.list("ancestry") {
		name, ok := item.(string)
		if !ok {
			o.fail("ancestry"+index(i), "want a string, got %s", kind(item))
			return nil
		}
		if i > signal.MaxAncestors { // which is refused
			break
		}
		p.Ancestry = append(p.Ancestry, name)
	}
	if p.Binary == "" && p.Comm == "" && p.Detail == "" && p.PID == nil && len(p.Ancestry) == 0 {
		return nil
	}
	return p
}
