package signal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Bounds of a valid signal: what one object in the API server may be made to hold.
const (
	MaxWhatIf       = 32
	MaxTimeline     = 256
	MaxSyscalls     = 512
	MaxValues       = 32
	MaxNameBytes    = 64   // of a value, syscall, actor
	MaxActionBytes  = 256  // of a step's action
	MaxDetailsBytes = 1024 // of a step's details, a failure, a reason

	MaxAncestors    = 8
	MaxProcessBytes = 512 // of a path or detail of a process

	MaxReasons    = 16  // why a birth is incomplete
	MaxContainers = 64  // of a pod, init containers included
	MaxRoles      = 128 // programs that took part in a birth
	MaxInterfaces = 64
	MaxRoutes     = 256 // and addresses
	MaxPathBytes  = 4096

	// MaxCores is the largest CONFIG_NR_CPUS (arch/x86/Kconfig).
	MaxCores = 8192
	// MaxPeriod bounds windows and durations.
	MaxPeriod = 7 * 24 * time.Hour
	// MaxSkew is how far a sender's clock may run ahead.
	MaxSkew = 5 * time.Minute
)

// earliest is before any kernel with CFS bandwidth control: an older time
// comes from a clock that was never set.
func earliest() time.Time { return time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC) }

// ErrCapacity is what a sink wraps when a cap on objects is reached: the
// signal is refused for good and sending it again soon does not help.
var ErrCapacity = errors.New("the cap on objects is reached")

// InvalidError tells that a signal can never be stored, whoever retries it.
// Sinks return it too, for what only they can see.
type InvalidError struct {
	Field   string // as the JSON of the webhook spells it, e.g. "throttle_percentage"
	Problem string // what is wrong and what is wanted
}

func (e *InvalidError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return e.Field + ": " + e.Problem
}

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// Validate reports the first fault as an *InvalidError, or nil. Names are
// checked as Kubernetes checks them, so they may name objects and files;
// numbers are finite and in range; lists and texts are bounded.
func (s Signal) Validate(now time.Time) error {
	for _, check := range []func() error{
		s.validateHead,
		func() error { return validateTime("timestamp", s.Observed, now) },
		s.validateEvidence,
		func() error { return s.CPU.validate() },
		func() error { return s.Creation.validate(now) },
		s.validateValues,
		func() error { return s.Process.validate() },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s Signal) validateHead() error {
	switch s.Type {
	case CPUThrottle, CPUStarvation, CPUReported, PodCreation, MemoryPressure, NetworkIssue, SecurityEvent:
	default:
		return invalid("type", "unknown type %s; want one of %s, %s, %s, %s, %s, %s, %s", quote(string(s.Type)),
			CPUThrottle, CPUStarvation, CPUReported, PodCreation, MemoryPressure, NetworkIssue, SecurityEvent)
	}
	switch s.Source {
	case SourceEBPF, SourcePixie, SourceAlertmanager, SourceManual:
	default:
		return invalid("source", "unknown source %s", quote(string(s.Source)))
	}
	names := []struct {
		field, value string
		required     bool
		check        func(string) []string
	}{
		{"namespace", s.Namespace, true, validation.IsDNS1123Label},
		{"pod_name", s.Pod, true, validation.IsDNS1123Subdomain},
		{"container_name", s.Container, false, validation.IsDNS1123Label},
		// A UID is a UUID, or the config hash of a static pod: hexadecimal either way.
		{"pod_uid", s.PodUID, false, validation.IsDNS1123Label},
		{"node_name", s.Node, false, validation.IsDNS1123Subdomain},
	}
	for _, n := range names {
		if n.value == "" {
			if n.required {
				return invalid(n.field, "is required")
			}
			continue
		}
		if problems := n.check(n.value); len(problems) > 0 {
			return invalid(n.field, "%s is not a valid name: %s", quote(n.value), problems[0])
		}
	}
	return nil
}

// validateEvidence checks that the evidence is the type's own.
func (s Signal) validateEvidence() error {
	switch {
	case s.CPU != nil && s.Type != CPUThrottle:
		return invalid("type", "%s carries no throttle figures", s.Type)
	case s.Creation != nil && s.Type != PodCreation:
		return invalid("type", "%s carries no birth", s.Type)
	case s.Reported != nil && s.Type != CPUReported:
		return invalid("type", "%s carries no reported figure", s.Type)
	case s.Process != nil && s.Type != SecurityEvent:
		return invalid("type", "%s carries no process", s.Type)
	case s.Type == CPUReported:
		if s.Reported == nil || s.Resolved {
			return invalid("reported_cpu_usage", "is required, and is never resolved")
		}
		return s.Reported.validate()
	case s.Resolved:
		return nil
	case s.Type == CPUThrottle && s.CPU == nil:
		return invalid("throttle_percentage", "is required")
	case s.Type == PodCreation && s.Creation == nil:
		return invalid("total_syscalls", "is required")
	case s.Type == CPUStarvation:
		if wait, ok := s.Values["runqueue_wait_percent"]; !ok {
			return invalid("runqueue_wait_percent", "is required")
		} else if !(wait >= 0 && wait <= 100) {
			return invalid("runqueue_wait_percent", "must be between 0 and 100, got %g", wait)
		}
	case s.Type != CPUThrottle && s.Type != PodCreation && len(s.Values) == 0:
		return invalid("", "%s carries no evidence: at least one number is required", s.Type)
	}
	return nil
}

func (r Reported) validate() error {
	if !(r.Cores >= 0 && r.Cores <= MaxCores) {
		return invalid("reported_cpu_usage", "must be between 0 and %d cores, got %g", MaxCores, r.Cores)
	}
	if !(r.PeriodSeconds >= 0 && r.PeriodSeconds <= MaxPeriod.Seconds()) {
		return invalid("period_seconds", "must be between 0 and %g, got %g", MaxPeriod.Seconds(), r.PeriodSeconds)
	}
	return nil
}

func (c *CPU) validate() error {
	if c == nil {
		return nil
	}
	type figure struct {
		field    string
		value    *float64
		positive bool
		max      float64
	}
	figures := []figure{
		{"throttle_percentage", &c.ThrottlePercent, false, 100},
		{"actual_cpu_usage", c.ActualCores, false, MaxCores},
		{"reported_cpu_usage", c.ReportedCores, false, MaxCores},
		{"cpu_limit", c.LimitCores, true, MaxCores},
		{"recommended_cpu_limit", c.RecommendedCores, true, MaxCores},
		{"period_seconds", &c.PeriodSeconds, false, MaxPeriod.Seconds()},
		{"throttle_ns", c.ThrottledSeconds, false, MaxPeriod.Seconds() * MaxCores},
		{"reported_percent_of_limit", c.ReportedPercent, false, 100 * MaxCores},
		{"runqueue_wait_percent", c.RunqueueWaitPercent, false, 100},
	}
	if len(c.WhatIf) > MaxWhatIf {
		return invalid("whatif", "has %d entries, at most %d are taken", len(c.WhatIf), MaxWhatIf)
	}
	for i := range c.WhatIf {
		w, at := &c.WhatIf[i], fmt.Sprintf("whatif[%d].", i)
		figures = append(figures,
			figure{at + "limit_cores", &w.LimitCores, true, MaxCores},
			figure{at + "throttle_ratio", &w.ThrottleRatio, false, 1},
			figure{at + "low", w.Low, false, 1},
			figure{at + "high", w.High, false, 1})
	}
	if p := c.Prediction; p != nil {
		if !slices.Contains([]Outcome{Predicted, TooShort, Saturated}, p.Outcome) {
			return invalid("prediction.outcome", "want predicted, too_short or saturated, got %.40q", p.Outcome)
		}
		if !slices.Contains([]string{"", "high", "medium", "low"}, p.Confidence) {
			return invalid("prediction.confidence", "want high, medium or low, got %.40q", p.Confidence)
		}
		if p.Periods > math.MaxInt64 || p.Threads != nil && *p.Threads > MaxCores {
			return invalid("prediction", "has a number of periods or threads that no machine has")
		}
		figures = append(figures,
			figure{"prediction.window_seconds", &p.WindowSeconds, false, MaxPeriod.Seconds()},
			figure{"prediction.throttle_ratio", &p.ThrottleRatio, false, 1},
			figure{"prediction.peak_cores", p.PeakCores, true, MaxCores},
			figure{"prediction.next_cpu_limit", p.NextCores, true, MaxCores},
			figure{"prediction.burst_throttle_ratio", p.BurstRatio, false, 1},
			figure{"prediction.threads_throttle_ratio", p.ThreadsRatio, false, 1})
		if k := p.Check; k != nil {
			if k.Observed.Before(earliest()) {
				return invalid("prediction.check.timestamp", "is required")
			}
			figures = append(figures,
				figure{"prediction.check.from_cpu_limit", &k.FromCores, true, MaxCores},
				figure{"prediction.check.cpu_limit", &k.Cores, true, MaxCores},
				figure{"prediction.check.before_ratio", &k.Before, false, 1},
				figure{"prediction.check.measured_ratio", &k.Measured, false, 1},
				figure{"prediction.check.predicted_ratio", k.Predicted, false, 1},
				figure{"prediction.check.low", k.Low, false, 1},
				figure{"prediction.check.high", k.High, false, 1})
		}
	}
	if !slices.Contains([]string{"", "Guaranteed", "Burstable", "BestEffort"}, c.QOSClass) {
		return invalid("qos_class", "want Guaranteed, Burstable or BestEffort, got %.40q", c.QOSClass)
	}
	for _, f := range figures {
		if f.value == nil {
			continue
		}
		switch v := *f.value; {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return invalid(f.field, "is not a finite number")
		case f.positive && v <= 0:
			return invalid(f.field, "must be above 0, got %g", v)
		case v < 0 || v > f.max:
			return invalid(f.field, "must be between 0 and %g, got %g", f.max, v)
		}
	}
	return nil
}

// validate refuses control characters of any kind: a process chooses its words, and
// they are shown on terminals.
func (p *Process) validate() error {
	if p == nil {
		return nil
	}
	if !IsIdentifier(p.Event) {
		return invalid("event", "is not a name of an event: want a-z, 0-9 and _, at most %d bytes", MaxNameBytes)
	}
	if len(p.Ancestry) > MaxAncestors {
		return invalid("ancestry", "has %d names, at most %d are taken", len(p.Ancestry), MaxAncestors)
	}
	type text struct {
		field, value string
		most         int
	}
	texts := []text{{"binary", p.Binary, MaxProcessBytes}, {"comm", p.Comm, MaxNameBytes}, {"detail", p.Detail, MaxProcessBytes}}
	for i, name := range p.Ancestry {
		texts = append(texts, text{fmt.Sprintf("ancestry[%d]", i), name, MaxNameBytes})
	}
	for _, t := range texts {
		if err := validateText(t.field, t.value, t.most, false); err != nil {
			return err
		}
		if strings.ContainsAny(t.value, "\n\t") {
			return invalid(t.field, "contains control characters")
		}
	}
	for field, id := range map[string]*uint64{"pid": p.PID, "uid": p.UID} {
		if id != nil && *id > math.MaxUint32 {
			return invalid(field, "must be at most %d, got %d", uint32(math.MaxUint32), *id)
		}
	}
	return nil
}

func (s Signal) validateValues() error {
	if len(s.Values) > MaxValues {
		return invalid("", "carries %d evidence numbers, at most %d are taken", len(s.Values), MaxValues)
	}
	for name, v := range s.Values {
		if !IsIdentifier(name) {
			return invalid(quote(name), "is not a name of evidence: want a-z, 0-9 and _, at most %d bytes", MaxNameBytes)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return invalid(name, "is not a finite number")
		}
	}
	return nil
}

func validateTime(field string, t, now time.Time) error {
	switch {
	case t.IsZero():
		return invalid(field, "is required, as RFC 3339, e.g. 2025-08-25T11:00:00Z")
	case t.Before(earliest()):
		return invalid(field, "%s is before %s: is the sender's clock set?", t.Format(time.RFC3339), earliest().Format(time.DateOnly))
	case t.After(now.Add(MaxSkew)):
		return invalid(field, "%s is more than %s in the future: is the sender's clock right?", t.Format(time.RFC3339), MaxSkew)
	}
	return nil
}

func validateText(field, text string, maxBytes int, required bool) error {
	switch {
	case text == "" && required:
		return invalid(field, "is required")
	case len(text) > maxBytes:
		return invalid(field, "has %d bytes, at most %d are taken", len(text), maxBytes)
	case !utf8.ValidString(text):
		return invalid(field, "is not UTF-8")
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }):
		return invalid(field, "contains control characters")
	}
	return nil
}

// IsIdentifier tells whether s may name a syscall or a number of evidence:
// a-z, 0-9 and _, not starting with a digit, at most MaxNameBytes.
func IsIdentifier(s string) bool {
	if s == "" || len(s) > MaxNameBytes || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
}

// quote shows what a sender wrote, escaped and cut.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
