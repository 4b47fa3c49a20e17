package sampler

import (
	"math/bits"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

// Births is what became of the births of pods, or off-cluster of containers, since the
// start.
type Births struct {
	InFlight   int
	Complete   uint64                   // told with everything
	Incomplete uint64                   // told with something missing, not seen or not listed
	Failed     uint64                   // a container never reached its entrypoint
	Refused    uint64                   // not followed, because too many were in flight
	Durations  map[string]bpf.Histogram // by stage
	Syscalls   Counts                   // of each birth
	Setup      Counts                   // without what a process does for itself
}

// Counts is a histogram of numbers, whose bounds are powers of two.
type Counts struct {
	Buckets [40]uint64 // [i]: (2^(i-1), 2^i]
	Sum, N  uint64
}

// Observe counts a number.
func (c *Counts) Observe(n uint64) {
	bucket := 0
	if n > 1 {
		bucket = min(bits.Len64(n-1), len(c.Buckets)-1)
	}
	c.Buckets[bucket]++
	c.Sum += n
	c.N++
}
