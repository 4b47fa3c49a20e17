package whatif

import "time"

// Period is one CFS bandwidth period, as the kernel accounted for it.
type Period struct {
	Start     time.Duration // on any monotonic clock
	Used      time.Duration // CPU time, summed over CPUs
	Denied    time.Duration // Δcfs_bandwidth.throttled_time, summed over CPUs
	Throttled bool
	Quota     time.Duration
	Length    time.Duration
}

// Outcome tells whether there is an answer, and if not, why.
type Outcome string

// The outcomes.
const (
	// Predicted: there is an answer.
	Predicted Outcome = "predicted"
	// TooShort: too little was observed at this limit.
	TooShort Outcome = "too_short"
	// Saturated: hardly a period is free of backlog, so that what the container
	// wants can't be told. Next is the limit at which to measure again.
	Saturated Outcome = "saturated"
	// KnifeEdge, of a single prediction: that limit is so near the mean demand that
	// small differences decide between no backlog and one that never ends.
	KnifeEdge Outcome = "knife_edge"
)

// Confidence is how far a prediction may be trusted.
type Confidence string

// The confidences.
const (
	// High: measured period by period, at a limit that hid nothing.
	High Confidence = "high"
	// Medium: measured period by period; work that was put off had to be placed.
	Medium Confidence = "medium"
	// Low: from one-second figures of cpu.stat, which do not tell periods apart.
	Low Confidence = "low"
)

// Prediction is the share of throttled periods, 0 to 1, at another limit.
type Prediction struct {
	Cores    float64 // the limit
	Multiple float64 // of the present limit
	Ratio    float64
	Low      float64
	High     float64
	Outcome  Outcome // Predicted or KnifeEdge; figures only with the former
}

// Check is what a changed limit did, beside what was predicted for it.
type Check struct {
	// Prediction is of the new limit. Its Outcome is other than Predicted where the
	// old one did not let it be told, and empty where none was made.
	Prediction
	From     float64 // cores: the old limit
	Before   float64 // ratio at the old one
	Measured float64 // ratio at the new one
}

// Result is what can be said of one container. Figures of an Outcome other than
// Predicted are zero, but for those that describe the observation.
type Result struct {
	Outcome Outcome
	// Reason says in a sentence why there is no answer; empty when there is one.
	Reason     string
	Confidence Confidence

	Cores    float64       // the limit that was observed
	Periods  int           // that it rests on, as nr_periods counts
	Window   time.Duration // that they span
	Measured float64       // share of throttled periods in it
	Mean     float64       // cores used over the window, idle periods included

	// At are predictions at the asked multiples of the present limit, in their order.
	At []Prediction
	// Recommended is the smallest limit, in cores, that is expected to keep the
	// ratio at the target, rare spikes of the last hours included. 0: not told.
	Recommended float64
	// AtRecommended is the prediction there.
	AtRecommended Prediction
	// Next is, with Saturated, the limit in cores to measure again at.
	Next float64
	// Burst is the ratio at the present limit with a burst of one quota
	// (cpu.max.burst); nil where it is not known.
	Burst *float64
	// Threads is the largest number of threads at once that fits the limit, at
	// least 1, and Parallelism the ratio with no more than these.
	Threads     int
	Parallelism *float64
	// Peak is the most, in cores, that it would take in a period without a limit, if
	// what was put off came as early as it can have.
	Peak float64
	// Check is the last change of the limit, once it was observed for long enough.
	Check *Check
}
