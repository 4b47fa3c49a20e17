package sampler

import (
	"maps"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
)

const readerSecurity = "bpf_security"

// Security is what a container's processes did that few should.
type Security struct {
	bpf.Security
	// Allowed are the events that are expected of it (Config.Allowed).
	Allowed [bpf.SecurityEvents]bool
}

// security keeps what the instrument told.
type security struct {
	groups *totals
	last   map[cgroup.ID]map[bpf.SecurityEvent]bpf.SecurityEvidence
}

func newSecurity() security {
	return security{groups: newTotals(), last: map[cgroup.ID]map[bpf.SecurityEvent]bpf.SecurityEvidence{}}
}

// readSecurityInstrument folds the counts of security events into their owners, and
// keeps the last of each kind.
func (s *Sampler) readSecurityInstrument(fold fold) {
	raw, err := s.Tracer.Security()
	if !s.readable(readerSecurity, err) {
		return
	}
	for id, r := range raw {
		if owner, ok := s.Tree.Owner(cgroup.ID(id)); ok && len(r.Last) > 0 {
			s.keepEvidence(owner, r.Last)
		}
	}
	fold(s.security.groups, flat(raw, flattenSecurity))
}

// keepEvidence replaces what is kept where something is newer. Snapshots share the old.
func (s *Sampler) keepEvidence(owner cgroup.ID, last map[bpf.SecurityEvent]bpf.SecurityEvidence) {
	old := s.security.last[owner]
	var kept map[bpf.SecurityEvent]bpf.SecurityEvidence
	for event, e := range last {
		if e.At <= old[event].At {
			continue
		}
		if kept == nil {
			if kept = maps.Clone(old); kept == nil {
				kept = map[bpf.SecurityEvent]bpf.SecurityEvidence{}
			}
		}
		kept[event] = e
	}
	if kept != nil {
		s.security.last[owner] = kept
		if st := s.groups[owner]; st != nil {
			st.security = figure[Security]{} // it has the old
		}
	}
}

// joinSecurity adds the events to a container. What a service of the host does is the
// administration's business, and its start is not told from its life.
func (s *Sampler) joinSecurity(st *state) {
	if g := st.out.Group; g.Kind == cgroup.KindService || !s.attached(bpf.ProbeSecurity) {
		return
	}
	id := st.out.Group.ID
	st.out.Security = st.security.from(s.security.groups.owned[id], func(total []uint64) Security {
		out := Security{Security: bpf.Security{Last: s.security.last[id]}}
		if len(total) == int(bpf.SecurityEvents)+1 {
			copy(out.Counts[:], total)
			out.ImageKnown = total[bpf.SecurityEvents] > 0
		}
		return out
	})
}

// allowSecurity marks what is expected of a container by its names, which it must have.
func (s *Sampler) allowSecurity(c *Container) {
	if c.Security == nil || s.Allowed == nil {
		return
	}
	if allowed := s.Allowed(c.Namespace, c.Labels); allowed != c.Security.Allowed {
		marked := *c.Security // Snapshots share it
		marked.Allowed = allowed
		c.Security = &marked
	}
}

// flattenSecurity is the form in which totals folds: the events, then whether the image
// is known.
func flattenSecurity(into []uint64, s *bpf.Security) []uint64 {
	into = append(into, s.Counts[:]...)
	if s.ImageKnown {
		return append(into, 1)
	}
	return append(into, 0)
}
