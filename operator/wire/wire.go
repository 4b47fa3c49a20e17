// Package wire is the JSON that travels from the exporter, Pixie scripts and
// hand-made requests to the operator's POST /webhook/pixie and /webhook/ebpf.
//
// An event is one object, or an array of them, either tagged
// {"type":"cpu_throttle", …} or wrapped {"cpu_throttle":{…}}. Optional numbers
// are pointers: absent is not 0.
package wire

import "time"

// The values of the tag.
const (
	TypeCPUThrottle    = "cpu_throttle"
	TypePodCreation    = "pod_creation"
	TypeMemoryPressure = "memory_pressure"
	TypeNetworkIssue   = "network_issue"
	TypeSecurityEvent  = "security_event"
)

// Head names whom an event is about and when it was observed.
type Head struct {
	Type          string    `json:"type"`
	PodName       string    `json:"pod_name"`
	Namespace     string    `json:"namespace"`
	ContainerName string    `json:"container_name,omitempty"`
	PodUID        string    `json:"pod_uid,omitempty"`
	NodeName      string    `json:"node_name,omitempty"`
	Timestamp     time.Time `json:"timestamp"`
	// Resolved tells that the condition is over: the whisper turns Resolved.
	Resolved bool `json:"resolved,omitempty"`
}

// CPUThrottle is a container that the kernel throttles.
type CPUThrottle struct {
	Head
	// ThrottlePercentage is 100 · Δnr_throttled / Δnr_periods, 0 to 100.
	ThrottlePercentage float64 `json:"throttle_percentage"`
	// ActualCPUUsage and ReportedCPUUsage are in cores.
	ActualCPUUsage   float64 `json:"actual_cpu_usage"`
	ReportedCPUUsage float64 `json:"reported_cpu_usage"`
	// PeriodSeconds is the length of the window that the figures rest on.
	PeriodSeconds float64 `json:"period_seconds"`

	// ThrottleNs is the throttled time of the window, summed over CPUs as cpu.stat does.
	ThrottleNs          *uint64  `json:"throttle_ns,omitempty"`
	EBPFDetection       bool     `json:"ebpf_detection,omitempty"`
	CPULimit            *float64 `json:"cpu_limit,omitempty"`             // cores
	RecommendedCPULimit *float64 `json:"recommended_cpu_limit,omitempty"` // cores
	WhatIf              []WhatIf `json:"whatif,omitempty"`
}

// WhatIf is the predicted share of throttled periods at another limit.
type WhatIf struct {
	LimitCores    float64  `json:"limit_cores"`
	ThrottleRatio float64  `json:"throttle_ratio"` // 0 to 1
	Low           *float64 `json:"low,omitempty"`
	High          *float64 `json:"high,omitempty"`
}
