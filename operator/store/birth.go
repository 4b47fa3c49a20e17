package store

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/operator/advice"
	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// birth returns the certificate that a signal makes.
func birth(old *v1alpha1.PodBirthCertificate, name string, p pod, s signal.Signal) *v1alpha1.PodBirthCertificate {
	b := &v1alpha1.PodBirthCertificate{}
	if old != nil {
		b = old.DeepCopy()
	}
	b.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.PodBirthCertificateKind}
	b.Name, b.Namespace = name, s.Namespace
	describe(&b.ObjectMeta, string(s.Type))
	own(&b.ObjectMeta, s.Pod, p)
	c := s.Creation
	b.Spec = v1alpha1.PodBirthCertificateSpec{
		PodName: s.Pod, PodUID: b.Spec.PodUID, NodeName: s.Node,
		DetectedAt:          &metav1.Time{Time: s.Observed.UTC().Truncate(time.Second)},
		Insights:            advice.For(s).Insights,
		Complete:            c.Complete,
		IncompleteReasons:   c.IncompleteReasons,
		Failed:              c.Failed,
		Failure:             c.Failure,
		TotalSyscalls:       int64(c.TotalSyscalls),
		SetupSyscalls:       integer(c.SetupSyscalls),
		NamespaceOperations: int64(c.NamespaceOps),
		CgroupWrites:        int64(c.CgroupWrites),
		Mounts:              integer(c.Mounts),
		Execs:               integer(c.Execs),
		Duration:            *readable(&c.Duration),
	}
	if p.uid != "" {
		b.Spec.PodUID = p.uid
	}
	if c.SharedSyscalls != nil {
		b.Spec.SharedWork = &v1alpha1.SharedWork{Syscalls: int64(*c.SharedSyscalls), Births: integer(c.SharedBy)}
	}
	if n := c.Network; n != nil {
		b.Spec.Network = &v1alpha1.BirthNetwork{
			Interfaces: n.Interfaces, Addresses: n.Addresses, Routes: n.Routes, FirewallRules: integer(n.FirewallRules),
		}
	}
	birthParts(&b.Spec, c)
	return b
}

// birthParts fills the lists.
func birthParts(spec *v1alpha1.PodBirthCertificateSpec, c *signal.Creation) {
	for _, x := range c.Syscalls {
		count := v1alpha1.SyscallCount{Name: x.Name, Count: int64(x.Count)}
		if !x.First.IsZero() {
			t := metav1.NewMicroTime(x.First.UTC().Truncate(time.Microsecond))
			count.Timestamp = &t
		}
		spec.SyscallTimeline = append(spec.SyscallTimeline, count)
	}
	for _, x := range c.Timeline {
		spec.Stages = append(spec.Stages, v1alpha1.Stage{
			Offset: *readable(&x.Offset), Precision: readable(x.Precision), Duration: readable(x.Duration),
			Actor: x.Actor, Action: x.Action, Details: x.Details, Container: x.Container,
		})
	}
	// In the order of time, whatever the sender's is.
	slices.SortStableFunc(spec.Stages, func(a, b v1alpha1.Stage) int {
		return cmp.Compare(a.Offset.Duration, b.Offset.Duration)
	})
	for _, x := range c.Namespaces {
		spec.Namespaces = append(spec.Namespaces, v1alpha1.NamespaceCount{Kind: x.Kind, Created: int64(x.Created), Entered: int64(x.Entered)})
	}
	for _, x := range c.Containers {
		spec.Containers = append(spec.Containers, v1alpha1.BirthContainer{
			Name: x.Name, ContainerID: x.ContainerID, Init: x.Init,
			CreatedOffset: readable(x.Created), StartedOffset: readable(x.Started), EntrypointOffset: readable(x.Entered),
			Entrypoint: x.Entrypoint, Failure: x.Failure, Syscalls: integer(x.Syscalls), SetupSyscalls: integer(x.SetupSyscalls),
		})
	}
	for _, x := range c.Roles {
		spec.Roles = append(spec.Roles, v1alpha1.BirthRole{Role: x.Role, Container: x.Container, Syscalls: int64(x.Syscalls)})
	}
}

// readable keeps tenths of a millisecond.
func readable(d *time.Duration) *metav1.Duration {
	if d == nil {
		return nil
	}
	return &metav1.Duration{Duration: d.Round(100 * time.Microsecond)}
}

// integer takes what Validate let pass: below 2^63.
func integer(n *uint64) *int64 {
	if n == nil {
		return nil
	}
	i := int64(*n)
	return &i
}

// supersedes tells whether what is told now of a birth replaces what was told before.
// A pod is born once: an exporter that was restarted sees of its next crash the start of
// one container, and that is not how the pod came to life. So what an exporter told stays,
// unless it had missed something and now has it all. Senders that do not tell
// whether they saw everything are believed by their time.
func supersedes(old, next *v1alpha1.PodBirthCertificate) bool {
	if sameBirth(old, next) {
		return false
	}
	if was := old.Spec.Complete; was != nil {
		now := next.Spec.Complete
		return !*was && now != nil && *now
	}
	return old.Spec.DetectedAt == nil || !next.Spec.DetectedAt.Before(old.Spec.DetectedAt)
}

func sameBirth(a, b *v1alpha1.PodBirthCertificate) bool {
	return equality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}
