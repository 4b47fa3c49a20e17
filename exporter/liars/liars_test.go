package liars

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

func container(name string, reportedCores, demand float64, periods, throttled uint64) sampler.Container {
	return sampler.Container{
		Container:  name,
		Limit:      &cgroup.CPULimit{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond},
		Throttling: &sampler.Throttling{Window: time.Minute, Periods: periods, Throttled: throttled},
		Reported:   []reported.Usage{{Source: reported.SourceKubelet, Cores: reportedCores}},
		Gap:        &gap.Parts{Demand: &demand},
	}
}

func TestRank(t *testing.T) {
	gone := container("gone", 0, 4, 100, 100)
	gone.Group.Gone = time.Unix(1, 0)
	snap := &sampler.Snapshot{Containers: []sampler.Container{
		container("honest, saturated", 0.5, 0.6, 100, 95),
		container("the talk's", 0.24, 1.2, 1000, 923),
		container("calm", 0.1, 0.1, 100, 0),
		container("calm, larger gap", 0.1, 0.9, 100, 0),
		container("idle", 0, 0, 0, 0),
		{Container: "unmeasured"},
		gone,
	}}
	rows := Rank(snap, 4)
	var names []string
	for _, r := range rows {
		names = append(names, r.Container)
	}
	assert.Equal(t, []string{"the talk's", "calm, larger gap", "honest, saturated", "calm"}, names)
	assert.InDelta(t, 0.48, *rows[0].ReportedShare, 1e-9)
	assert.InDelta(t, 0.923, *rows[0].ThrottleRatio, 1e-9)
	assert.InDelta(t, 0.96, *rows[0].Gap, 1e-9)
	assert.InDelta(t, 0.923*0.52, rows[0].Lie, 1e-9)
	assert.Empty(t, Rank(nil, 5))

	rows = Rank(&sampler.Snapshot{Containers: []sampler.Container{{Container: "unmeasured"}}}, 5)
	out, err := json.Marshal(rows[0])
	require.NoError(t, err)
	assert.Contains(t, string(out), `"throttle_ratio":null`, "absent is not 0")
}

func TestSort(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	rows := func() []Row {
		return []Row{{Container: "b", Used: f(1)}, {Container: "a"}, {Container: "c", Used: f(2)}, {Container: "d", Used: f(1)}}
	}
	for name, tc := range map[string]struct {
		key       string
		ascending bool
		want      string
	}{
		"most first":      {"used", false, "cbda"},
		"least first":     {"used", true, "bdca"}, // the unmeasured is last, either way
		"by name":         {ByName, true, "abcd"},
		"nothing to tell": {"limit", false, "bacd"},
		"no such column":  {"nonsense", false, "bacd"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rows()
			Sort(r, tc.key, tc.ascending)
			var got string
			for _, row := range r {
				got += row.Container
			}
			assert.Equal(t, tc.want, got)
		})
	}
}
