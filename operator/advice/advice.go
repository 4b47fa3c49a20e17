package advice

import "github.com/kernel-gossip/kernel-gossip/operator/signal"

// Severity is how bad it is; its values are those of spec.severity.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Confidence is how far a suggested value may be trusted.
type Confidence string

// The confidences.
const (
	High   Confidence = "high"
	Medium Confidence = "medium"
	Low    Confidence = "low"
)

// The actions.
const (
	IncreaseCPULimits      = "increase_cpu_limits"
	ReviewResourceRequests = "review_resource_requests"
	ReduceParallelism      = "reduce_parallelism"
	AllowBurst             = "allow_burst"
	RemoveCPULimit         = "remove_cpu_limit"
	SpreadLoad             = "spread_load"
)

// Recommendation is one thing that a person may do.
type Recommendation struct {
	Action string
	Reason string
	// SuggestedValue is a Kubernetes quantity, or what Reason says; empty when no number can be derived.
	SuggestedValue string
	Confidence     Confidence
}

// Advice is what a signal means.
type Advice struct {
	Insights        []string
	Severity        Severity
	Recommendations []Recommendation
	// ReportedPercent is what the cluster is told: in % of the limit where that
	// is known, else in % of one core. Nil when nothing is reported.
	ReportedPercent *float64
	// ReportedPercentOfLimit is nil where the limit is not known.
	ReportedPercentOfLimit *float64
}

// For never fails: a signal that says little gets little advice.
func For(s signal.Signal) Advice {
	return Advice{Severity: Info}
}
