package main

import (
	"fmt"
	"slices"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
	"github.com/kernel-gossip/kernel-gossip/operator/advice"
)

func (o *options) openSecurityWhispers() (*whisper.SecurityEngine, error) {
	cfg := whisper.DefaultSecurityConfig()
	cfg.Node = o.node
	cfg.Rank = func(event string) int {
		return slices.Index([]advice.Severity{advice.Info, advice.Warning, advice.Critical}, advice.SecuritySeverity(event))
	}
	engine, err := whisper.NewSecurityEngine(cfg)
	if err != nil {
		return nil, fmt.Errorf("telling of security events: %w", err)
	}
	return engine, nil
}

// securityObservations have the containers that are gone, too: what does harm may be
// short. What is allowed is left out.
func (w *whispers) securityObservations(snap *sampler.Snapshot) []whisper.SecurityObservation {
	var observations []whisper.SecurityObservation
	for i := range snap.Containers {
		c := &snap.Containers[i]
		if c.Security == nil || c.Group.Kind == cgroup.KindPod {
			continue
		}
		o := whisper.SecurityObservation{Target: w.target(c)}
		for e, n := range c.Security.Counts {
			if n == 0 || c.Security.Allowed[e] {
				continue
			}
			if o.Counts == nil {
				o.Counts, o.Last = map[string]uint64{}, map[string]whisper.SecurityProcess{}
			}
			event := bpf.SecurityEvent(e)
			o.Counts[event.String()] = n
			if last, ok := c.Security.Last[event]; ok {
				o.Last[event.String()] = whisper.SecurityProcess{
					Binary: last.Binary, Comm: last.Comm, PID: uint64(last.PID), UID: uint64(last.UID),
					Ancestry: last.Ancestry, Detail: last.Detail,
				}
			}
		}
		observations = append(observations, o)
	}
	return observations
}
