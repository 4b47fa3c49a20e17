package sampler

import (
	"math"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

// observe gives the model the periods that closed.
func (st *state) observe(ps []bpf.Period) {
	if st.model == nil {
		return
	}
	for _, p := range ps {
		st.model.Add(whatif.Period{
			Start: p.Start, Used: p.Used, Denied: p.Denied, Throttled: p.Throttled, Quota: p.Quota, Length: p.Length,
		})
	}
}

// predict makes a new estimate every few samples, each group at its own turn.
// Where the kernel's periods can't be had, the model gets this second's cpu.stat.
func (s *Sampler) predict(st *state, now time.Time) {
	if s.WhatIf == nil {
		return
	}
	limit := st.out.Limit
	if _, limited := st.out.Cores(); !limited || st.out.CPUs == 0 || !st.out.CPU.HasBandwidth {
		st.model, st.out.WhatIf, st.out.LimitCheckedAt = nil, nil, time.Time{}
		return
	}
	if st.model == nil {
		m, err := whatif.NewModel(*s.WhatIf)
		if err != nil {
			s.Log.Error("Can't predict throttling at other limits.", "err", err)
			s.WhatIf = nil
			return
		}
		st.model = m
	}
	st.model.SetBounds(whatif.Bounds{CPUs: st.out.CPUs, Burst: limit.Burst})
	if n := len(st.Points); n > 1 && st.HasUsed && !s.attached(bpf.ProbeDemand) {
		before, last := st.Points[n-2], st.Points[n-1]
		was, is := st.bandwidth[n-2], st.bandwidth[n-1]
		st.model.AddSecond(last.At, limit.Quota, limit.Period, last.Used-before.Used, last.Throttled-before.Throttled,
			int(is.periods-was.periods), int(is.throttled-was.throttled)) //nolint:gosec // of a second
	}
	if st.out.WhatIf != nil && (s.ticks+uint64(st.out.Group.ID))%slow != 0 {
		return
	}
	r := st.model.Estimate()
	st.out.WhatIf = &r
	c, ok := st.model.Checked()
	if !ok {
		return
	}
	st.out.LimitCheckedAt = now
	log := s.Log.With("cgroup", st.out.Group.Path, "from_cores", c.From, "limit_cores", c.Cores, "before", c.Before, "measured", c.Measured)
	if c.Outcome != whatif.Predicted {
		log.Info("A limit was changed; nothing could be predicted for it.", "outcome", c.Outcome)
		return
	}
	s.predictions.Checked++
	s.predictions.AbsError += math.Abs(c.Ratio - c.Measured)
	log.Info("A limit was changed; what was predicted for it can be checked.", "predicted", c.Ratio, "low", c.Low, "high", c.High)
}
