package store

import (
	"slices"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func processOf(p *signal.Process) *v1alpha1.Process {
	if p == nil {
		return nil
	}
	return &v1alpha1.Process{
		Event: p.Event, Binary: p.Binary, Comm: p.Comm, PID: signed(p.PID), UID: signed(p.UID),
		Ancestry: slices.Clone(p.Ancestry), Detail: p.Detail,
	}
}

func processSignal(p *v1alpha1.Process) *signal.Process {
	if p == nil {
		return nil
	}
	return &signal.Process{
		Event: p.Event, Binary: p.Binary, Comm: p.Comm, PID: unsigned(p.PID), UID: unsigned(p.UID),
		Ancestry: slices.Clone(p.Ancestry), Detail: p.Detail,
	}
}

// signed is the number as the API has it; a valid one has 32 bits.
func signed(n *uint64) *int64 {
	if n == nil {
		return nil
	}
	out := int64(*n) //nolint:gosec // 32 bits
	return &out
}

func unsigned(n *int64) *uint64 {
	if n == nil || *n < 0 {
		return nil
	}
	out := uint64(*n)
	return &out
}
