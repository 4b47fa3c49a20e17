package main

import (
	"fmt"
	"slices"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
)

func (o *options) openNetworkWhispers() (*whisper.NetworkEngine, error) {
	cfg := whisper.DefaultNetworkConfig()
	cfg.Node, cfg.Threshold = o.node, o.whisper.network
	var bands []float64
	for _, b := range cfg.Bands {
		if b > cfg.Threshold {
			bands = append(bands, b)
		}
	}
	cfg.Bands = bands
	engine, err := whisper.NewNetworkEngine(cfg)
	if err != nil {
		return nil, fmt.Errorf("--whisper.network-threshold=%v: %w", o.whisper.network, err)
	}
	return engine, nil
}

func (w *whispers) networkObservations(snap *sampler.Snapshot) []whisper.NetworkObservation {
	observations := make([]whisper.NetworkObservation, 0, len(snap.Containers))
	for i := range snap.Containers {
		c := &snap.Containers[i]
		if c.Network == nil || c.Group.Kind == cgroup.KindPod || !c.Group.Gone.IsZero() {
			continue
		}
		observations = append(observations, w.networkObservation(c))
	}
	return observations
}

func (w *whispers) networkObservation(c *sampler.Container) whisper.NetworkObservation {
	n := c.Network
	out := whisper.NetworkObservation{
		Target: w.target(c), Sent: n.SegmentsSent, Received: n.SegmentsReceived, Retransmits: n.Retransmits,
		Connections: n.Connections, Refused: n.Refused, ResetsReceived: n.ResetsReceived,
	}
	if n.HasOverflows {
		out.AcceptOverflows = &n.AcceptOverflows
	}
	reasons := bpf.DropReasons()
	for i, count := range n.Drops {
		// What has no reason need not be a loss, what nobody listens for is a stranger's
		// mistake, and what the socket's own filter refuses the process does not want.
		if reason := reasons[i]; count > 0 && !slices.Contains([]string{bpf.DropNotSpecified, bpf.DropNoSocket, bpf.DropSocketFilter}, reason) {
			if out.Drops == nil {
				out.Drops = map[string]uint64{}
			}
			out.Drops[reason] = count
		}
	}
	return out
}
