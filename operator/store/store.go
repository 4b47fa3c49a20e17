// Package store makes signals last: as custom resources in an API server, or as
// the same objects in a directory of YAML files.
//
// One object stands for one container (or pod) and signal. Signals about one
// object that arrive while it is being written are folded into the next write,
// so a thousand requests need far fewer writes; each is still answered only
// after the write that counts it has landed.
package store

import (
	"context"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Store is what both stores do.
type Store interface {
	// Accept returns when the signal is durably stored, or with an error that
	// wraps *signal.InvalidError, signal.ErrCapacity, or is worth a retry.
	Accept(ctx context.Context, s signal.Signal) error
	// Ready returns nil when signals can be stored, else what to do about it.
	Ready(ctx context.Context) error
}

// Outcome is what a write changed.
type Outcome struct {
	Whisper *v1alpha1.KernelWhisper
	Birth   *v1alpha1.PodBirthCertificate // when Whisper is nil
	Created bool
	// News tells that phase, severity or insights differ from before.
	News bool
}

// Announcer is told of news: to log it, or to make an Event of it.
type Announcer interface {
	Announce(ctx context.Context, o Outcome)
	// Capped is told that an object was refused; scope is "namespace" or "all".
	Capped(ctx context.Context, s signal.Signal, scope string, limit int)
	// Resized is told what became of a step with the CPU limit of w's container.
	Resized(ctx context.Context, w *v1alpha1.KernelWhisper, phase resize.Phase, message string)
}
