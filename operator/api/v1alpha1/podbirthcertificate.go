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

	// Insights say in words what the figures mean: where the time went, what failed.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=2048
	Insights []string `json:"insights,omitempty"`

	// Complete is false when something of the birth was missed; absent where the
	// sender does not tell.
	//
	// +optional
	Complete *bool `json:"complete,omitempty"`
	// IncompleteReasons are what was missed, and why.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=1024
	IncompleteReasons []string `json:"incompleteReasons,omitempty"`

	// Failed tells that a container never reached its entrypoint.
	//
	// +optional
	Failed bool `json:"failed"`
	// Failure is why, in words.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Failure string `json:"failure,omitempty"`

	// SyscallTimeline is which syscalls were made, from when, and how often.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	SyscallTimeline []SyscallCount `json:"syscallTimeline,omitempty"`

	// TotalSyscalls is how many were made in all by the processes of this birth alone.
	//
	// +kubebuilder:validation:Minimum=0
	TotalSyscalls int64 `json:"totalSyscalls"`
	// SetupSyscalls are those of TotalSyscalls that a process does not make for
	// itself wherever it runs (threads, signals, memory, waiting).
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	SetupSyscalls *int64 `json:"setupSyscalls,omitempty"`
	// SharedWork is what daemons did meanwhile that nothing ties to one of the births
	// in flight. It is not in TotalSyscalls, and never divided.
	//
	// +optional
	SharedWork *SharedWork `json:"sharedWork,omitempty"`

	// NamespaceOperations is how often clone, unshare or setns made or joined a namespace.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	NamespaceOperations int64 `json:"namespaceOperations"`
	// Namespaces are the same by kind.
	//
	// +optional
	// +listType=map
	// +listMapKey=kind
	// +kubebuilder:validation:MaxItems=8
	Namespaces []NamespaceCount `json:"namespaces,omitempty"`
	// CgroupWrites is how often a file of a cgroup was written.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	CgroupWrites int64 `json:"cgroupWrites"`
	// Mounts is how many mounts were made.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Mounts *int64 `json:"mounts,omitempty"`
	// Execs is how many programs were executed, the entrypoints included.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Execs *int64 `json:"execs,omitempty"`

	// Duration is from the first sign of life on the node to the last entrypoint, or
	// where there is none to the last stage.
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

	// Roles are the programs that did the work.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Roles []BirthRole `json:"roles,omitempty"`
}

// SharedWork is what daemons did for several births at once.
type SharedWork struct {
	// +kubebuilder:validation:Minimum=0
	Syscalls int64 `json:"syscalls"`
	// Births in flight meanwhile, this one included.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	Births *int64 `json:"births,omitempty"`
}

// NamespaceCount is how many namespaces of one kind were made and entered.
type NamespaceCount struct {
	// Kind is as in /proc/PID/ns.
	//
	// +kubebuilder:validation:Enum=mnt;net;pid;uts;ipc;user;cgroup;time
	Kind string `json:"kind"`
	// +kubebuilder:validation:Minimum=0
	Created int64 `json:"created"`
	// +kubebuilder:validation:Minimum=0
	Entered int64 `json:"entered"`
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
	// Offset is from the first sign of life on the node; what was before, such as the
	// scheduler's work, is negative.
	Offset metav1.Duration `json:"offset"`
	// Precision is how far Offset may be behind the truth, as the API server cuts its
	// times to the second; absent where it is the kernel's.
	//
	// +optional
	Precision *metav1.Duration `json:"precision,omitempty"`
	// Duration is absent where the stage is a moment, or its end was not seen.
	//
	// +optional
	Duration *metav1.Duration `json:"duration,omitempty"`
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
	// Container is whose stage it is; empty: the pod's.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
}

// BirthNetwork is what was set up in the pod's network namespace.
type BirthNetwork struct {
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	Interfaces []string `json:"interfaces,omitempty"`
	// Addresses are in CIDR notation.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=256
	Addresses []string `json:"addresses,omitempty"`
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
	// Init tells an init container.
	//
	// +optional
	Init bool `json:"init,omitempty"`

	// CreatedOffset and StartedOffset are when the runtime began to create and to
	// start it.
	//
	// +optional
	CreatedOffset *metav1.Duration `json:"createdOffset,omitempty"`
	// +optional
	StartedOffset *metav1.Duration `json:"startedOffset,omitempty"`
	// EntrypointOffset is when its own program was executed; absent: it never was.
	//
	// +optional
	EntrypointOffset *metav1.Duration `json:"entrypointOffset,omitempty"`
	// Entrypoint is that program.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Entrypoint string `json:"entrypoint,omitempty"`
	// Failure is why it never was, in words.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Failure string `json:"failure,omitempty"`

	// Syscalls and SetupSyscalls are this container's part of the totals.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Syscalls *int64 `json:"syscalls,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	SetupSyscalls *int64 `json:"setupSyscalls,omitempty"`
}

// BirthRole is a program that took part.
type BirthRole struct {
	// Role is the program: runc init, containerd-shim, a CNI plugin by its name.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Role string `json:"role"`
	// Container is for whom; empty: the pod.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
	// +kubebuilder:validation:Minimum=0
	Syscalls int64 `json:"syscalls"`
}

// PodBirthCertificate tells how the kernel saw a pod come to life.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=pbc,categories=kernel-gossip
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podName`
// +kubebuilder:printcolumn:name="Syscalls",type=integer,JSONPath=`.spec.totalSyscalls`
// +kubebuilder:printcolumn:name="Set-up",type=integer,JSONPath=`.spec.setupSyscalls`,priority=1
// +kubebuilder:printcolumn:name="Namespaces",type=integer,JSONPath=`.spec.namespaceOperations`
// +kubebuilder:printcolumn:name="Cgroup writes",type=integer,JSONPath=`.spec.cgroupWrites`
// +kubebuilder:printcolumn:name="Duration",type=string,JSONPath=`.spec.duration`
// +kubebuilder:printcolumn:name="Failed",type=boolean,JSONPath=`.spec.failed`
// +kubebuilder:printcolumn:name="Complete",type=boolean,JSONPath=`.spec.complete`
// +kubebuilder:printcolumn:name="Failure",type=string,JSONPath=`.spec.failure`,priority=1
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
