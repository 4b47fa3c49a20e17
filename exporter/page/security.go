package page

import (
	"fmt"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// security is what the container did that few should, each with who did it last.
func security(c *sampler.Container) section {
	s := section{Title: "Security", Note: "after the runtime had brought it to life, since the exporter attached"}
	if c.Security == nil {
		return s
	}
	for e, n := range c.Security.Counts {
		event := bpf.SecurityEvent(e)
		if n == 0 {
			continue
		}
		from := "BPF"
		if last, ok := c.Security.Last[event]; ok {
			from = fmt.Sprintf("last by %s (%s, pid %d, uid %d)", last.Binary, last.Comm, last.PID, last.UID)
			if len(last.Ancestry) > 0 {
				from += ", child of " + strings.Join(last.Ancestry, " of ")
			}
			if last.Detail != "" {
				from += ": " + last.Detail
			}
		}
		if c.Security.Allowed[e] {
			from = "allowed; " + from
		}
		s.Facts = append(s.Facts, fact{event.String(), fmt.Sprint(n), from})
	}
	if len(s.Facts) == 0 {
		s.Facts = append(s.Facts, fact{"events", "0", "BPF"})
	}
	if !c.Security.ImageKnown {
		s.Facts = append(s.Facts, fact{"executables", "unknown", "no file of an overlayfs was executed: which are not the image's can't be told, unless they have no name"})
	}
	return s
}
