package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type syscalls struct{ total *Family }

func newSyscalls(Options) Collector {
	return &syscalls{
		total: perContainer(counter, "syscalls_total",
			"System calls entered by the container since the exporter attached, by name; those not in --syscalls.names are \"other\" (BPF, sys_enter).", "syscall"),
	}
}

func (s *syscalls) Families() []*Family { return []*Family{s.total} }

func (s *syscalls) Update(snap *sampler.Snapshot, send func(prometheus.Metric, error)) error {
	for i := range snap.Containers {
		g := &snap.Containers[i]
		if g.Group.Kind == cgroup.KindPod {
			continue // a pod's own cgroup has no threads
		}
		for slot, n := range g.Syscalls {
			send(s.total.of(g, float64(n), snap.SyscallNames[slot]))
		}
	}
	return nil
}
