package advice

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func memorySignal(values map[string]float64) signal.Signal {
	return signal.Signal{Type: signal.MemoryPressure, Values: values}
}

func TestMemoryStalledBelowItsLimit(t *testing.T) {
	a := For(memorySignal(map[string]float64{
		"some_pressure_percent": 34, "full_pressure_percent": 20, "period_seconds": 60,
		"reported_memory_bytes": 61 * mebibyte, "working_set_bytes": 80 * mebibyte, "memory_limit_bytes": 100 * mebibyte,
		"refaulted_bytes": 40 * mebibyte, "oom_kills": 0,
	}))
	assert.Equal(t, []string{
		"Memory pressure detected: stalled 34.0% of the time reclaiming",
		"Reported 61% of the limit, yet stalled 34% of the time reclaiming",
		"40 MiB of pages came back after they had been evicted while in use, in 60 s",
	}, a.Insights)
	assert.Equal(t, Warning, a.Severity)
	require.NotNil(t, a.ReportedPercentOfLimit)
	assert.InDelta(t, 61, *a.ReportedPercentOfLimit, 1e-9)
	r := find(a, IncreaseMemoryLimits)
	require.NotNil(t, r)
	assert.Equal(t, "144Mi", r.SuggestedValue, "1.2 · (80 + 40) MiB")
	assert.Equal(t, Medium, r.Confidence)
	assert.Equal(t, "80Mi", find(a, ReviewResourceRequests).SuggestedValue)
}

func TestMemoryKill(t *testing.T) {
	values := map[string]float64{
		"oom_kills": 1, "oom_victim_pid": 7, "oom_trigger_pid": 8, "oom_victim_rss_bytes": 99 * mebibyte, "oom_limit_bytes": 100 * mebibyte,
		"memory_limit_bytes": 100 * mebibyte, "working_set_bytes": 40 * mebibyte,
	}
	a := For(memorySignal(values))
	assert.Equal(t, []string{"The kernel killed a process for want of memory, which held 99 MiB under a limit of 100 MiB (pid 7, asked for by 8)"}, a.Insights)
	assert.Equal(t, Critical, a.Severity)
	r := find(a, IncreaseMemoryLimits)
	require.NotNil(t, r)
	assert.Equal(t, "160Mi", r.SuggestedValue, "half more: what it wanted is not known")
	assert.Equal(t, Low, r.Confidence)
	assert.Equal(t, "112Mi", find(a, ReviewResourceRequests).SuggestedValue, "what it held before it was killed")

	values["growth_bytes_per_hour"], values["oom_kills"] = 360*mebibyte, 3
	a = For(memorySignal(values))
	assert.Contains(t, a.Insights[0], "killed 3 processes for want of memory; the last held 99 MiB")
	assert.Contains(t, a.Insights, "The working set only grows: 360 MiB an hour")
	assert.NotNil(t, find(a, FindMemoryLeak))
	assert.Nil(t, find(a, IncreaseMemoryLimits), "a higher limit cures no leak")

	values["oom_node"] = 1
	a = For(memorySignal(values))
	require.Len(t, a.Recommendations, 1)
	assert.Equal(t, ReviewResourceRequests, a.Recommendations[0].Action, "the container's limit is not to blame")
}

func TestMemorySeverity(t *testing.T) {
	for stalled, want := range map[float64]Severity{0: Info, 9.9: Info, 10: Warning, 59.9: Warning, 60: Critical, 340: Critical} {
		for _, name := range []string{"some_pressure_percent", "reclaim_stall_percent"} {
			assert.Equal(t, want, For(memorySignal(map[string]float64{name: stalled})).Severity, "%s %g", name, stalled)
		}
	}
	both := For(memorySignal(map[string]float64{"some_pressure_percent": 1, "reclaim_stall_percent": 90}))
	assert.Equal(t, Info, both.Severity, "PSI knows better than a sum over threads")
}

func TestMemoryStepIsBounded(t *testing.T) {
	a := For(memorySignal(map[string]float64{
		"some_pressure_percent": 80, "memory_limit_bytes": 100 * mebibyte, "working_set_bytes": 95 * mebibyte, "refaulted_bytes": 5 * gibibyte,
	}))
	r := find(a, IncreaseMemoryLimits)
	require.NotNil(t, r)
	assert.Equal(t, "208Mi", r.SuggestedValue, "double, in steps of 16 Mi")
	assert.Equal(t, Low, r.Confidence)
}

func TestMemoryWithoutWhatWouldSayMore(t *testing.T) {
	a := For(memorySignal(map[string]float64{"some_pressure_percent": 20}))
	r := find(a, IncreaseMemoryLimits)
	require.NotNil(t, r)
	assert.Empty(t, r.SuggestedValue, "no number without a limit")
	assert.Equal(t, []string{"Memory pressure: stall score 7"}, For(memorySignal(map[string]float64{"stall_score": 7})).Insights)
	assert.Equal(t, "The condition is over", For(signal.Signal{Type: signal.MemoryPressure, Resolved: true}).Insights[0])
	assert.Equal(t, "1088Mi", memoryQuantity(1025*mebibyte))
	assert.Equal(t, []string{"2.0 GiB", "3 MiB", "4 KiB"}, []string{size(2 * gibibyte), size(3 * mebibyte), size(4096)})
}
