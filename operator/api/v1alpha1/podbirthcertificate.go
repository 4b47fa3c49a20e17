package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PodBirthCertificateSpec is how the kernel saw a pod come to life.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.podUID) || (has(self.podUID) && self.podUID == oldSelf.podUID)",message="podUID is immutable: a recreated pod gets a fresh object",fieldPath=".podUID"
type PodBirthCertificateSpec struct {
	// PodName is the pod, in this object's namespace.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="podName is immutable"
	PodName string `json:"podName"`

	// PodUID tells a pod from its namesakes; empty when the pod was not known to the cluster.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`
	PodUID string `json:"podUID,omitempty"`

	// NodeName is where the pod was born.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	NodeName string `json:"nodeName,omitempty"`

	// DetectedAt is when the birth was observed.
	//
	// +optional
	DetectedAt *metav1.Time `json:"detectedAt,omitempty"`

	// SyscallTimeline is which syscalls were made, from when, and how often.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	SyscallTimeline []SyscallCount `json:"syscallTimeline,omitempty"`

	// TotalSyscalls is how many were made in all.
	//
	// +kubebuilder:validation:Minimum=0
	TotalSyscalls int64 `json:"totalSyscalls"`
	// NamespaceOperations is how often clone, unshare or setns made or joined a namespace.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	NamespaceOperations int64 `json:"namespaceOperations"`
	// CgroupWrites is how often a file of a cgroup was written.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	CgroupWrites int64 `json:"cgroupWrites"`

	// Duration is from the first sign of life to the last stage.
	//
	// +optional
	Duration metav1.Duration `json:"duration,omitempty,omitzero"`

	// Stages are who did what, when.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Stages []Stage `json:"stages,omitempty"`

	// +optional
	Network *BirthNetwork `json:"network,omitempty"`

	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Containers []BirthContainer `json:"containers,omitempty"`
}

// SyscallCount is how often a syscall was made.
type SyscallCount struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// Timestamp is of the first call.
	//
	// +optional
	Timestamp *metav1.MicroTime `json:"timestamp,omitempty"`
	// +kubebuilder:validation:Minimum=0
	Count int64 `json:"count"`
}

// Stage is one step of a birth.
type Stage struct {
	// Offset is from the first sign of life.
	Offset metav1.Duration `json:"offset"`
	// Actor is scheduler, kubelet, runtime, cni or kernel.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Actor string `json:"actor"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Action string `json:"action"`
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Details string `json:"details,omitempty"`
}

// BirthNetwork is what was set up in the pod's network namespace.
type BirthNetwork struct {
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	Interfaces []string `json:"interfaces,omitempty"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=256
	Routes []string `json:"routes,omitempty"`
	// FirewallRules is how many rules were added for the pod.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	FirewallRules *int64 `json:"firewallRules,omitempty"`
}

// BirthContainer is one container of the pod.
type BirthContainer struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ContainerID string `json:"containerID,omitempty"`
	// Offset is when its first process ran.
	//
	// +optional
	Offset *metav1.Duration `json:"offset,omitempty"`
}

// PodBirthCertificate tells how the kernel saw a pod come to life.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=pbc,categories=kernel-gossip
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podName`
// +kubebuilder:printcolumn:name="Duration",type=string,JSONPath=`.spec.duration`
// +kubebuilder:printcolumn:name="Syscalls",type=integer,JSONPath=`.spec.totalSyscalls`
// +kubebuilder:printcolumn:name="Namespace ops",type=integer,JSONPath=`.spec.namespaceOperations`
// +kubebuilder:printcolumn:name="Cgroup writes",type=integer,JSONPath=`.spec.cgroupWrites`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PodBirthCertificate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec PodBirthCertificateSpec `json:"spec"`
}

// PodBirthCertificateList is a list of PodBirthCertificate.
//
// +kubebuilder:object:root=true
type PodBirthCertificateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []PodBirthCertificate `json:"items"`
}
