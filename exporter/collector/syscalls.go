package collector

import "github.com/kernel-gossip/kernel-gossip/exporter/cgroup"

type syscalls struct{ total *Family }

func newSyscalls() Collector {
	return &syscalls{
		total: perContainer(counter, "syscalls_total",
			"System calls entered by the container since the exporter attached, by name; those not in --syscalls.names are \"other\" (BPF, sys_enter).", "syscall"),
	}
}

func (s *syscalls) Families() []*Family { return []*Family{s.total} }

func (s *syscalls) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		if g.Group.Kind == cgroup.KindPod {
			continue // a pod's own cgroup has no threads
		}
		for slot, n := range g.Syscalls {
			out.of(g, s.total, float64(n), out.Snapshot.SyscallNames[slot])
		}
	}
}
