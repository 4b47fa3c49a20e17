package rules

// Thresholds of the alerts. The rule files write them as numbers, which a test holds
// to these; dashboards draw their lines here.
const (
	// ThrottledRatio is the share of throttled periods from which a container counts
	// as throttled: that of kubernetes-mixin's CPUThrottlingHigh.
	ThrottledRatio = 0.25
	// ReportedRatio is the share of its limit below which a container looks healthy in
	// the usual view.
	ReportedRatio = 0.6
	// ActivePeriods is how many bandwidth periods a second a container must run in for
	// its ratio to tell anything.
	ActivePeriods = 1
	// BurnBudget is the share of throttled periods that a container may spend for ever.
	BurnBudget = 0.05
	// ReportedAge is the age in seconds at which a reported figure tells nothing of the
	// last five minutes.
	ReportedAge = 120
	// StarvedRatio is the share of the time that threads want a CPU and have none.
	StarvedRatio = 0.5
	// StarvedThreads is how many threads, on average, must wait for that to matter.
	StarvedThreads = 0.1
	// StalledRatio is the share of the time that tasks wait for memory.
	StalledRatio = 0.1
	// NetworkRatio is the share of a container's traffic that goes wrong.
	NetworkRatio = 0.05
	// NetworkEvents is how often a second it must go wrong for the share to tell anything.
	NetworkEvents = 0.05
	// MapFullRatio is the share of a BPF map's room that may be taken.
	MapFullRatio = 0.9
)

// BurnRates are how many times faster than BurnBudget allows a container may be
// throttled over each window before KernelGossipMetricsLieBurn fires.
func BurnRates() map[string]float64 {
	return map[string]float64{"1h": 14.4, "6h": 6, "1d": 3, "3d": 1}
}
