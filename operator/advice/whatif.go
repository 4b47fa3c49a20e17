package advice

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

const (
	// farLess is the multiple of what would do from which a limit is far too high.
	farLess = 1.5
	// helps is the share of the throttled periods that may be left for a change other
	// than of the limit to be worth telling.
	helps = 0.5
)

// raise suggests a higher limit: what the what-if model can answer for, or, as it
// can't yet, where to look again; without the model what the throttle data bounds.
func raise(s signal.Signal, v view) (Recommendation, bool) {
	c := *s.CPU
	p := c.Prediction
	switch {
	case p == nil:
		r, ok := increase(c, v)
		r.Command = resizeCommand(s, r.SuggestedValue)
		return r, ok

	case p.Outcome == signal.Saturated && p.NextCores != nil:
		r := Recommendation{Action: RaiseAndRemeasure, SuggestedValue: quantity(*p.NextCores), Confidence: Medium}
		r.Reason = fmt.Sprintf("Cannot tell yet which limit is enough: throttled in %s of periods, it is hardly ever free of backlog, so what it wants is not known. Used and denied time together bound it: raise to %s, then look again.",
			percent(p.ThrottleRatio), r.SuggestedValue)
		r.Command = resizeCommand(s, r.SuggestedValue)
		return r, true

	case p.Outcome == signal.Predicted && c.RecommendedCores != nil:
		if v.limit != nil && *c.RecommendedCores <= *v.limit {
			return Recommendation{}, false
		}
		r := Recommendation{Action: IncreaseCPULimits, SuggestedValue: quantity(*c.RecommendedCores), Confidence: Confidence(p.Confidence)}
		r.Reason, r.Predicted = predicted(s, *p, r.SuggestedValue)
		r.Command = resizeCommand(s, r.SuggestedValue)
		return r, true
	}
	r, ok := increase(c, v)
	if p.Outcome == signal.TooShort {
		r.Reason += fmt.Sprintf(" The what-if model can tell more when it has observed this limit for longer than %.0f s.", p.WindowSeconds)
	}
	r.Command = resizeCommand(s, r.SuggestedValue)
	return r, ok
}

// decrease is for a limit that is far above what would do.
func decrease(s signal.Signal, v view) (Recommendation, bool) {
	c := *s.CPU
	p := c.Prediction
	if p == nil || p.Outcome != signal.Predicted || c.RecommendedCores == nil || v.limit == nil || *c.RecommendedCores*farLess > *v.limit {
		return Recommendation{}, false
	}
	r := Recommendation{Action: DecreaseCPULimits, SuggestedValue: quantity(*c.RecommendedCores), Confidence: Confidence(p.Confidence)}
	r.Reason, r.Predicted = predicted(s, *p, r.SuggestedValue)
	if r.Predicted == nil {
		return r, false
	}
	r.Command = resizeCommand(s, r.SuggestedValue)
	return r, true
}

// predicted tells of the recommended limit what is measured now and expected there.
func predicted(s signal.Signal, p signal.Prediction, value string) (string, *Predicted) {
	c := *s.CPU
	i := slices.IndexFunc(c.WhatIf, func(w signal.WhatIf) bool {
		return math.Abs(w.LimitCores-*c.RecommendedCores) <= 0.01**c.RecommendedCores
	})
	now := fmt.Sprintf("Throttled in %s of %d periods at the present limit", percent(p.ThrottleRatio), p.Periods)
	if c.LimitCores != nil {
		now += fmt.Sprintf(" of %.2f cores", *c.LimitCores)
	}
	if i < 0 {
		return fmt.Sprintf("%s; %s is the smallest limit that the what-if model expects to be enough.", now, value), nil
	}
	w := c.WhatIf[i]
	out := &Predicted{Before: p.ThrottleRatio, After: w.ThrottleRatio, Low: w.Low, High: w.High}
	there := fmt.Sprintf("%s are predicted at %s", percent(w.ThrottleRatio), value)
	if w.Low != nil && w.High != nil {
		there += fmt.Sprintf(" (likely %s to %s)", percent(*w.Low), percent(*w.High))
	}
	return fmt.Sprintf("%s; %s.", now, there), out
}

// replayed keeps of what helps against bursts that which a replay of the observed
// periods says to help, and tells what it costs.
func replayed(all []Recommendation, p signal.Prediction, limit float64) []Recommendation {
	var out []Recommendation
	for _, r := range all {
		var after *float64
		switch r.Action {
		case ReduceParallelism:
			after = p.ThreadsRatio
			if p.Threads != nil {
				r.SuggestedValue = fmt.Sprintf("GOMAXPROCS=%d", *p.Threads)
			}
		case AllowBurst:
			after = p.BurstRatio
			r.SuggestedValue = fmt.Sprintf("cpu.max.burst of one quota, %s of a period", percent(limit))
		case RemoveCPULimit:
			if p.PeakCores != nil {
				r.Reason = fmt.Sprintf("Without a limit its bursts use CPU that is idle, and its request still assures its share. The price: in its busiest period it may take about %.2f cores instead of %.2f, which neighbours on a full node lose beyond their requests; a Guaranteed pod loses that class. It can't be done in place: change the pod's template.",
					*p.PeakCores, limit)
			}
			out = append(out, r)
			continue
		}
		if after == nil || *after > helps*p.ThrottleRatio {
			continue
		}
		r.Predicted = &Predicted{Before: p.ThrottleRatio, After: *after}
		r.Reason += fmt.Sprintf(" Predicted: %s of periods throttled instead of %s.", percent(*after), percent(p.ThrottleRatio))
		r.Confidence = Confidence(p.Confidence)
		out = append(out, r)
	}
	return out
}

// changed tells what the last change of the limit did, beside what was predicted.
func changed(p *signal.Prediction) []string {
	if p == nil || p.Check == nil {
		return nil
	}
	c := p.Check
	line := fmt.Sprintf("The limit went from %.2f to %.2f cores: %s of periods throttled before, %s after", c.FromCores, c.Cores, percent(c.Before), percent(c.Measured))
	if c.Predicted != nil {
		line += fmt.Sprintf("; %s were predicted", percent(*c.Predicted))
		if c.Low != nil && c.High != nil {
			line += fmt.Sprintf(", likely %s to %s", percent(*c.Low), percent(*c.High))
		}
	}
	return []string{line}
}

// ResizePatch sets a container's CPU limit, and its request where the two must stay
// equal for the pod to stay Guaranteed: a strategic merge patch for the subresource
// resize of a pod (KEP-1287).
func ResizePatch(container, limit string, guaranteed bool) (string, error) {
	resources := map[string]any{"limits": map[string]string{"cpu": limit}}
	if guaranteed {
		resources["requests"] = map[string]string{"cpu": limit}
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"containers": []any{
		map[string]any{"name": container, "resources": resources},
	}}})
	if err != nil {
		return "", fmt.Errorf("writing the patch of container %s: %w", container, err)
	}
	return string(patch), nil
}

// resizeCommand sets the limit of a running container in place. Names are validated,
// so that a shell takes them as they are.
func resizeCommand(s signal.Signal, value string) string {
	if s.Container == "" || value == "" {
		return ""
	}
	patch, err := ResizePatch(s.Container, value, s.CPU.QOSClass == "Guaranteed")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("kubectl patch pod %s --namespace %s --subresource resize --patch '%s'", s.Pod, s.Namespace, patch)
}

func percent(ratio float64) string { return fmt.Sprintf("%.1f%%", 100*ratio) }
