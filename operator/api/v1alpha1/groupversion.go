// Package v1alpha1 is the API kernel-gossip.dev/v1alpha1: what the kernel tells
// about a pod, as custom resources.
//
// +kubebuilder:object:generate=true
// +groupName=kernel-gossip.dev
package v1alpha1

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 object crd:allowDangerousTypes=true paths=. output:crd:dir=../../../deploy/crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the API.
const (
	Group   = "kernel-gossip.dev"
	Version = "v1alpha1"

	KernelWhisperKind       = "KernelWhisper"
	PodBirthCertificateKind = "PodBirthCertificate"
)

// GroupVersion returns kernel-gossip.dev/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme makes the types known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(),
		&KernelWhisper{}, &KernelWhisperList{},
		&PodBirthCertificate{}, &PodBirthCertificateList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
