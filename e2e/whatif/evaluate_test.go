package whatif

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

func run(limit, used time.Duration, throttled uint64) *Run {
	r := &Run{Shape: "steady", Seed: 7, Limit: limit, Periods: 100, Throttled: throttled}
	for i := range 100 {
		r.Trace = append(r.Trace, bpf.Period{
			Start: 5*time.Second + time.Duration(i)*length, Used: used, Quota: limit, Length: length, Throttled: i < int(throttled), Denied: time.Duration(i) * time.Microsecond, //nolint:gosec // small
		})
	}
	return r
}

func TestReadIsWrite(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Begin(&b, "2 CPUs"))
	want := run(60*ms, 30*ms, 3)
	require.NoError(t, want.Write(&b))
	require.NoError(t, run(20*ms, 20*ms, 100).Write(&b))
	got, err := Read(&b)
	require.NoError(t, err)
	assert.Equal(t, "2 CPUs", got.Machine)
	require.Len(t, got.Runs, 2)
	for i := range want.Trace {
		want.Trace[i].Start -= 5 * time.Second // they count from the first
	}
	assert.Equal(t, *want, got.Runs[0])

	for _, bad := range []string{"steady 1 20", "steady one 20 1 1", "steady 1 20 1 1 0:x:1", "# many CPUs"} {
		_, err := Read(strings.NewReader(bad + "\n"))
		assert.ErrorContains(t, err, "line 1", bad)
	}
}

func TestAccuracy(t *testing.T) {
	pairs := Pairs(Traces{CPUs: 2, Runs: []Run{*run(60*ms, 30*ms, 0), *run(150*ms, 30*ms, 0), *run(20*ms, 20*ms, 100)}})
	require.Len(t, pairs, 6)
	told := 0
	for _, p := range pairs {
		switch {
		case p.From.Limit == 20*ms:
			assert.False(t, p.Told, "saturated")
		case p.To.Limit == 20*ms:
			assert.True(t, p.Told)
			assert.InDelta(t, 1, p.Predicted, 0.05, "30 ms do not fit 20")
		default:
			assert.True(t, p.Told)
			assert.Zero(t, p.Predicted)
		}
		if p.Told {
			told++
		}
	}
	assert.Equal(t, 4, told)
	table := Accuracy(pairs)
	assert.Contains(t, table, "| to a higher limit | 1 | 0.00 | 0.0 (steady, 60ms to 150ms: 0 % for 0 %) | 100 % |")
	assert.Contains(t, table, "Told are 4 of 6;")
	assert.Contains(t, table, "| steady | 1 | 0.0, at most 0.0 | 1 | 0.0, at most 0.0 |")
}
