package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SignalType is what was observed.
//
// +kubebuilder:validation:Enum=cpu_throttle;cpu_starvation;memory_pressure;network_issue;security_event
type SignalType string

// Severity is how bad it is.
//
// +kubebuilder:validation:Enum=info;warning;critical
type Severity string

// Source is the door by which the evidence came.
//
// +kubebuilder:validation:Enum=ebpf;pixie;alertmanager;manual
type Source string

// The sources.
const (
	SourceEBPF   Source = "ebpf"
	SourceManual Source = "manual"
)

// Phase tells whether the condition holds.
//
// +kubebuilder:validation:Enum=Active;Resolved
type Phase string

// The phases.
const (
	Active   Phase = "Active"
	Resolved Phase = "Resolved"
)

// Confidence is how far a suggested value may be trusted.
//
// +kubebuilder:validation:Enum=high;medium;low
type Confidence string

// Conditions of a KernelWhisper and their reasons.
const (
	// ConditionActive is True while the condition holds.
	ConditionActive = "Active"
	// ConditionAnalysed is True when status rests on the present spec.
	ConditionAnalysed = "Analysed"

	// ConditionResized is True while the container has a CPU limit that the operator
	// raised in place; its reasons are those of package resize.
	ConditionResized = "Resized"

	ReasonSignalled  = "Signalled"
	ReasonRecovered  = "Recovered"
	ReasonPodGone    = "PodGone"
	ReasonSilent     = "SourceSilent"
	ReasonAdviceDone = "AdviceGiven"
)

// Percentages and cores are JSON numbers and not quantities, because people and
// dashboards compare and sort them. Rounding between languages, the reason why
// Kubernetes discourages floats, does no harm to a measurement.

// KernelWhisperSpec is what the kernel was seen to do, and what that means.
//
// +kubebuilder:validation:XValidation:rule="self.signalType != 'cpu_throttle' || (has(self.evidence) && has(self.evidence.throttlePercentage))",message="evidence.throttlePercentage is required for cpu_throttle",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="has(self.containerName) == has(oldSelf.containerName) && (!has(self.containerName) || self.containerName == oldSelf.containerName)",message="containerName is immutable: the object's name belongs to one container",fieldPath=".containerName"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.podUID) || (has(self.podUID) && self.podUID == oldSelf.podUID)",message="podUID is immutable: a recreated pod gets a fresh object",fieldPath=".podUID"
type KernelWhisperSpec struct {
	// SignalType is what was observed.
	//
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="signalType is immutable"
	SignalType SignalType `json:"signalType"`

	// PodName is the pod that the kernel tells about, in this object's namespace.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="podName is immutable"
	PodName string `json:"podName"`

	// ContainerName is empty when the evidence is of the whole pod.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`
	ContainerName string `json:"containerName,omitempty"`

	// PodUID tells a pod from its namesakes; empty when the pod was not known to the cluster.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`
	PodUID string `json:"podUID,omitempty"`

	// NodeName is where it was observed.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	NodeName string `json:"nodeName,omitempty"`

	// Insights say in words what the evidence means. Left out of an object that
	// a person applies, they are filled in.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=1024
	Insights []string `json:"insights,omitempty"`

	// Severity is how bad it is; filled in when left out.
	//
	// +optional
	Severity Severity `json:"severity,omitempty"`

	// Source is the door by which the evidence came.
	//
	// +optional
	// +kubebuilder:default=manual
	Source Source `json:"source,omitempty"`

	// DetectedAt is when the condition was observed.
	//
	// +optional
	DetectedAt *metav1.Time `json:"detectedAt,omitempty"`

	// Evidence is the numbers.
	//
	// +optional
	Evidence Evidence `json:"evidence,omitempty,omitzero"`
}

// Evidence is what was measured; absent is not measured, never 0.
type Evidence struct {
	// ThrottlePercentage is 100 · Δnr_throttled / Δnr_periods of cpu.stat.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	ThrottlePercentage *float64 `json:"throttlePercentage,omitempty"`

	// ActualCPUCores is the CPU used by the kernel's account.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	ActualCPUCores *float64 `json:"actualCPUCores,omitempty"`

	// ReportedCPUCores is the CPU that the cluster is told, as kubectl top shows it.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	ReportedCPUCores *float64 `json:"reportedCPUCores,omitempty"`

	// ReportedPercent is what the cluster is told: of the limit where that is
	// known, else of one core.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReportedPercent *float64 `json:"reportedPercent,omitempty"`

	// ReportedPercentOfLimit is absent where the limit is not known.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReportedPercentOfLimit *float64 `json:"reportedPercentOfLimit,omitempty"`

	// Reported is what further observers say that it uses, such as Pixie.
	//
	// +optional
	// +listType=map
	// +listMapKey=source
	// +kubebuilder:validation:MaxItems=4
	Reported []Reported `json:"reported,omitempty"`

	// CPULimitCores is the limit as the kernel has it: quota divided by period.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	CPULimitCores *float64 `json:"cpuLimitCores,omitempty"`

	// RecommendedCPULimitCores is the smallest limit whose predicted throttling is on target.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	RecommendedCPULimitCores *float64 `json:"recommendedCPULimitCores,omitempty"`

	// PeriodSeconds is the length of the window that the figures rest on.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	PeriodSeconds *float64 `json:"periodSeconds,omitempty"`

	// ThrottledSeconds is summed over CPUs: it may exceed the window.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ThrottledSeconds *float64 `json:"throttledSeconds,omitempty"`

	// RunqueueWaitPercent is the time threads waited for a CPU, in % of the window.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	RunqueueWaitPercent *float64 `json:"runqueueWaitPercent,omitempty"`

	// KernelInstrumented tells that the figures come from eBPF and not from cpu.stat alone.
	//
	// +optional
	KernelInstrumented bool `json:"kernelInstrumented,omitempty"`

	// WhatIf is the predicted throttling at other limits.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	WhatIf []WhatIf `json:"whatIf,omitempty"`

	// Prediction is what the what-if model rests on and can tell.
	//
	// +optional
	Prediction *Prediction `json:"prediction,omitempty"`

	// QOSClass is the pod's.
	//
	// +optional
	// +kubebuilder:validation:Enum=Guaranteed;Burstable;BestEffort
	QOSClass string `json:"qosClass,omitempty"`

	// Values is the evidence of the signals other than cpu_throttle.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Values map[string]float64 `json:"values,omitempty"`

	// Process is who last did what security_event tells of. Its texts are the process's
	// own words.
	//
	// +optional
	Process *Process `json:"process,omitempty"`
}

// Process is who did a security event.
type Process struct {
	// Event is what it did, by its name among the evidence's values.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z_][a-z0-9_]*$`
	Event string `json:"event"`
	// Binary is the path of its executable.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Binary string `json:"binary,omitempty"`
	// Comm is its name.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Comm string `json:"comm,omitempty"`
	// PID and UID are the node's.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	PID *int64 `json:"pid,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	UID *int64 `json:"uid,omitempty"`
	// Ancestry are the names of its parents, the nearest first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=64
	Ancestry []string `json:"ancestry,omitempty"`
	// Detail is what it did it to.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Detail string `json:"detail,omitempty"`
}

// Reported is an average that one observer reports.
type Reported struct {
	Source Source `json:"source"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	CPUCores float64 `json:"cpuCores"`
	// PeriodSeconds is what the average is over.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	PeriodSeconds *float64 `json:"periodSeconds,omitempty"`
	// +optional
	ObservedAt *metav1.Time `json:"observedAt,omitempty"`
}

// WhatIf is the predicted share of throttled periods at another limit.
type WhatIf struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	LimitCores float64 `json:"limitCores"`
	// ThrottleRatio is 0 to 1.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	ThrottleRatio float64 `json:"throttleRatio"`
	// Low and High bound the prediction.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	Low *float64 `json:"low,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	High *float64 `json:"high,omitempty"`
}

// Prediction is what the what-if model rests on and can tell of the container.
// Ratios are shares of throttled periods, 0 to 1.
type Prediction struct {
	// Outcome is predicted; or too_short or saturated, when it can't be told yet.
	//
	// +kubebuilder:validation:Enum=predicted;too_short;saturated
	Outcome string `json:"outcome"`
	// +optional
	Confidence Confidence `json:"confidence,omitempty"`
	// Periods were observed at the present limit in WindowSeconds.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Periods int64 `json:"periods,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	WindowSeconds float64 `json:"windowSeconds,omitempty"`
	// ThrottleRatio was measured in them.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	ThrottleRatio float64 `json:"throttleRatio"`
	// PeakCores is the most that it would take in one period.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	PeakCores *float64 `json:"peakCores,omitempty"`
	// NextCPULimitCores is the limit to measure again at, when saturated.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	NextCPULimitCores *float64 `json:"nextCPULimitCores,omitempty"`
	// BurstThrottleRatio is predicted for the present limit with cpu.max.burst of one quota.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	BurstThrottleRatio *float64 `json:"burstThrottleRatio,omitempty"`
	// Threads at once, for which ThreadsThrottleRatio is predicted.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8192
	Threads *int64 `json:"threads,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	ThreadsThrottleRatio *float64 `json:"threadsThrottleRatio,omitempty"`
}

// KernelWhisperStatus is what became of it and what to do.
type KernelWhisperStatus struct {
	// Phase is Active while any source says that the condition holds.
	//
	// +optional
	Phase Phase `json:"phase,omitempty"`

	// Recommendations are what a person may do, the best first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Recommendations []Recommendation `json:"recommendations,omitempty"`

	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// ObservedGeneration is the generation of spec that the rest speaks of.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// FirstSeen and LastSeen are when the operator was first and last told.
	//
	// +optional
	FirstSeen *metav1.Time `json:"firstSeen,omitempty"`
	// +optional
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`
	// ResolvedAt is when the condition was over, while Phase is Resolved.
	//
	// +optional
	ResolvedAt *metav1.Time `json:"resolvedAt,omitempty"`

	// Occurrences is how often the operator was told that the condition holds.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Occurrences int64 `json:"occurrences,omitempty"`

	// LimitChanges are the last changes of the container's CPU limit, the newest last:
	// what was predicted beside what was measured.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	LimitChanges []LimitChange `json:"limitChanges,omitempty"`

	// Resize is the last step that the operator made with the CPU limit, where it is
	// asked to.
	//
	// +optional
	Resize *Resize `json:"resize,omitempty"`

	// Sources are the last words of those who told.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=4
	Sources []SourceStatus `json:"sources,omitempty"`
}

// LimitChange is a change of the CPU limit, by whomever, and what it did.
// Ratios are shares of throttled periods, 0 to 1.
type LimitChange struct {
	// ObservedAt is when enough was observed at the new limit.
	ObservedAt metav1.Time `json:"observedAt"`
	FromCores  float64     `json:"fromCores"`
	LimitCores float64     `json:"limitCores"`
	// BeforeRatio was measured at the old limit, MeasuredRatio at the new one.
	BeforeRatio   float64 `json:"beforeRatio"`
	MeasuredRatio float64 `json:"measuredRatio"`
	// PredictedRatio is what the what-if model had said of the new limit; absent where
	// it could not tell. Low and High are its likely interval.
	//
	// +optional
	PredictedRatio *float64 `json:"predictedRatio,omitempty"`
	// +optional
	Low *float64 `json:"low,omitempty"`
	// +optional
	High *float64 `json:"high,omitempty"`
}

// Resize is the last step that the operator made with the container's CPU limit.
type Resize struct {
	// Phase is how far it came: Kept when the share of throttled periods fell,
	// RolledBack when it did not.
	//
	// +kubebuilder:validation:Enum=Applying;Applied;Kept;RollingBack;RolledBack;Unverified;Superseded;Refused
	Phase string `json:"phase"`
	// At is when it was decided.
	At metav1.Time `json:"at"`
	// From and To are limits.
	//
	// +kubebuilder:validation:MaxLength=32
	From string `json:"from"`
	// +kubebuilder:validation:MaxLength=32
	To string `json:"to"`
	// BeforeRatio is the share of throttled periods that it was made for.
	BeforeRatio float64 `json:"beforeRatio"`
}

// SourceStatus is the last word of one source.
type SourceStatus struct {
	Name Source `json:"name"`
	// Active is false when the source said that it is over.
	Active bool `json:"active"`
	// ObservedAt is when it was seen by the source's clock, or when
	// Alertmanager's notification came: an older word that comes late is not heard.
	ObservedAt metav1.MicroTime `json:"observedAt"`
}

// Recommendation is one thing that a person may do.
type Recommendation struct {
	// Action is what to do, e.g. increase_cpu_limits.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Action string `json:"action"`
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
	// SuggestedValue is a quantity, e.g. 1500m, or as Reason says.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SuggestedValue string `json:"suggestedValue,omitempty"`
	// +optional
	Confidence Confidence `json:"confidence,omitempty"`
	// Predicted is what the what-if model expects of it.
	//
	// +optional
	Predicted *PredictedRatio `json:"predicted,omitempty"`
	// Command does it to the running pod.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Command string `json:"command,omitempty"`
}

// PredictedRatio is the share of throttled periods, 0 to 1, before and after.
type PredictedRatio struct {
	// BeforeRatio is measured.
	BeforeRatio float64 `json:"beforeRatio"`
	AfterRatio  float64 `json:"afterRatio"`
	// Low and High bound AfterRatio.
	//
	// +optional
	Low *float64 `json:"low,omitempty"`
	// +optional
	High *float64 `json:"high,omitempty"`
}

// KernelWhisper is what the kernel tells about a container and the metrics do not.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kw,categories=kernel-gossip
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podName`
// +kubebuilder:printcolumn:name="Container",type=string,JSONPath=`.spec.containerName`,priority=1
// +kubebuilder:printcolumn:name="Signal",type=string,JSONPath=`.spec.signalType`
// +kubebuilder:printcolumn:name="Throttled %",type=number,JSONPath=`.spec.evidence.throttlePercentage`
// +kubebuilder:printcolumn:name="Reported %",type=number,JSONPath=`.spec.evidence.reportedPercent`
// +kubebuilder:printcolumn:name="Severity",type=string,JSONPath=`.spec.severity`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Occurrences",type=integer,JSONPath=`.status.occurrences`,priority=1
// +kubebuilder:printcolumn:name="Last seen",type=date,JSONPath=`.status.lastSeen`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type KernelWhisper struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec KernelWhisperSpec `json:"spec"`
	// +optional
	Status KernelWhisperStatus `json:"status,omitempty,omitzero"`
}

// KernelWhisperList is a list of KernelWhisper.
//
// +kubebuilder:object:root=true
type KernelWhisperList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []KernelWhisper `json:"items"`
}
