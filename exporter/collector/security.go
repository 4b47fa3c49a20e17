package collector

import (
	"strconv"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

type security struct{ events *Family }

func newSecurity() Collector {
	return &security{perContainer(counter, "security_events_total",
		"What the container's processes did or tried after the runtime had brought it to life, that few should: setns, unshare and clone of namespaces, mount, the begin of a ptrace, module_load, bpf, exec_outside_image (a file of overlayfs' upper layer, or one without a name), privilege_gain (uid 0 from another, or more capabilities), and release_agent_write and core_pattern_write, files of these names opened for writing (BPF). allowed tells whether it is expected of the pod (--security.allow-file). Each event is exposed from the first one on.", "event", "allowed")}
}

func (c *security) Families() []*Family { return []*Family{c.events} }

func (c *security) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		if g.Security == nil {
			continue
		}
		for e, n := range g.Security.Counts {
			if n > 0 {
				out.of(g, c.events, float64(n), bpf.SecurityEvent(e).String(), strconv.FormatBool(g.Security.Allowed[e]))
			}
		}
	}
}
