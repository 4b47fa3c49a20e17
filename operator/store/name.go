package store

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// maxName leaves room, in a file system's 255 bytes, for ".yaml" and the
// affixes of a temporary file. Kubernetes would take 253.
const maxName = 240

const birthTail = "-birth"

// identity is what one object stands for.
type identity struct {
	namespace, pod, container string
	signal                    signal.Type
}

func identify(s signal.Signal) identity {
	id := identity{namespace: s.Namespace, pod: s.Pod, container: s.Container, signal: s.Type}
	switch s.Type {
	case signal.PodCreation:
		id.container = "" // a birth is of the whole pod
	case signal.CPUReported:
		id.signal = signal.CPUThrottle // it joins what the kernel says
	}
	return id
}

// is tells whether w is the identity's own object, of this pod or of a namesake before it.
func (id identity) is(w *v1alpha1.KernelWhisper) bool {
	return w.Spec.PodName == id.pod && w.Spec.ContainerName == id.container && string(w.Spec.SignalType) == string(id.signal)
}

// whisperNames are the names an identity may have, best first:
//
//	<pod>-kw                          cpu_throttle, the pod's first container that whispers
//	<pod>-<container>-kw              its other containers
//	<pod>[-<container>]-<hash>-kw     when even that belongs to another, e.g. to
//	                                  container "b-c" of "a" and "c" of "a-b"
//
// with the signal before "-kw" for the other signals. A container takes the
// first of them that is its own, else the first that is free. Two containers
// that take a free name at once can't both have it: spec's containerName,
// podName and signalType are immutable, so the API server refuses the second,
// which then looks again.
func (id identity) whisperNames() []string {
	tail := "-kw"
	if id.signal != signal.CPUThrottle {
		tail = "-" + strings.ReplaceAll(string(id.signal), "_", "-") + tail
	}
	names := []string{id.fit(id.pod, tail)}
	head := id.pod
	if id.container != "" {
		head += "-" + id.container
		names = append(names, id.fit(head, tail))
	}
	return append(names, id.cut(head, tail))
}

// birthName is <pod>-birth.
func (id identity) birthName() string { return id.fit(id.pod, birthTail) }

func (id identity) fit(head, tail string) string {
	if len(head)+len(tail) <= maxName {
		return head + tail
	}
	return id.cut(head, tail)
}

// cut puts a hash of the whole identity where the head ends or is cut.
func (id identity) cut(head, tail string) string {
	sum := sha256.Sum256([]byte(id.pod + "/" + id.container + "/" + string(id.signal)))
	tail = "-" + hex.EncodeToString(sum[:5]) + tail
	if most := maxName - len(tail); len(head) > most {
		head = strings.TrimRight(head[:most], "-.")
	}
	return head + tail
}
