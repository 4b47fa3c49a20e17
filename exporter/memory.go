package main

import (
	"fmt"
	"os"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
)

func (o *options) openMemoryWhispers() (*whisper.MemoryEngine, error) {
	cfg := whisper.DefaultMemoryConfig()
	cfg.Node, cfg.Threshold = o.node, o.whisper.memory
	var bands []float64
	for _, b := range cfg.Bands {
		if b > cfg.Threshold {
			bands = append(bands, b)
		}
	}
	cfg.Bands = bands
	engine, err := whisper.NewMemoryEngine(cfg)
	if err != nil {
		return nil, fmt.Errorf("--whisper.memory-threshold=%v: %w", o.whisper.memory, err)
	}
	return engine, nil
}

func (w *whispers) memoryObservations(snap *sampler.Snapshot) []whisper.MemoryObservation {
	observations := make([]whisper.MemoryObservation, 0, len(snap.Containers))
	for i := range snap.Containers {
		c := &snap.Containers[i]
		killed := c.Memory.OOM != nil && c.Memory.OOM.Count > 0
		if c.Group.Kind == cgroup.KindPod || !c.Group.Gone.IsZero() && !killed {
			continue
		}
		observations = append(observations, w.memoryObservation(c))
	}
	return observations
}

func (w *whispers) memoryObservation(c *sampler.Container) whisper.MemoryObservation {
	out := whisper.MemoryObservation{Target: w.target(c)}
	if p := c.Memory.Pressure; p != nil {
		if p.Memory.HasSome {
			out.Some = &p.Memory.Some
		}
		if p.Memory.HasFull {
			out.Full = &p.Memory.Full
		}
	}
	if r := c.Memory.Reclaim; r != nil {
		stalled := r.Memcg.Sum + r.Direct.Sum
		out.Reclaim = &stalled
	}
	if s := c.Memory.Stat; s != nil {
		held := float64(s.WorkingSet)
		out.WorkingSetBytes = &held
		if s.Limit > 0 {
			limit := float64(s.Limit)
			out.LimitBytes = &limit
		}
		if s.HasRefaults {
			refaulted := float64(s.Refaults) * float64(os.Getpagesize())
			out.RefaultedBytes = &refaulted
		}
	}
	for _, u := range c.Reported {
		if u.MemoryBytes != nil {
			out.ReportedBytes = u.MemoryBytes
			break
		}
	}
	switch counts := c.Memory.Counts; {
	case c.Memory.OOM != nil:
		out.Kills, out.KillsSinceStart = &c.Memory.OOM.Count, true
		if last := c.Memory.OOM.Last; last.At > time.Duration(0) {
			out.LastKill = &whisper.Kill{
				VictimPID: uint64(last.PID), TriggerPID: uint64(last.TriggerPID),
				RSSBytes: float64(last.RSSBytes), LimitBytes: float64(last.LimitBytes), Node: last.Scope == bpf.OOMNode,
			}
		}
	case counts != nil && counts.Group.Told[cgroup.EventOOMKill]:
		out.Kills = &counts.Group.Count[cgroup.EventOOMKill]
	}
	return out
}
