package kernels

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTablesHideNothing(t *testing.T) {
	results := []Result{{
		Boot: Boot{Name: "6.1", Kernel: "6.1"},
		Attempts: []Attempt{
			{Threads: "multi", Fault: "hung: silent for 3m0s"},
			{Threads: "single", Took: 22400 * time.Millisecond, Console: Console{Release: "6.1.0-56", Passed: 9, Probes: []Probe{
				{Name: "throttle", Attached: true, Mode: "fentry", Check: "a|b", Agreement: "99.998%"},
				{Name: "throttle", Attached: true, Mode: "fentry", Check: "a|b", Agreement: "99.998%"},
			}}},
		},
	}, {
		Boot: Boot{Name: "6.1-no-btf", Kernel: "6.1", NoBTF: true, V1: true}, Problems: []string{"failed: TestX", "not attached: demand"},
		Attempts: []Attempt{{Threads: "multi", Console: Console{Probes: []Probe{{Name: "demand", Reason: "there is no kernel BTF", Check: "attach"}}}}},
	}}
	var b strings.Builder
	require.NoError(t, Markdown(&b, Emulator{7, 2}, results, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
	_, tables, _ := strings.Cut(b.String(), "\n| boot")
	assert.Equal(t, ` | kernel | cgroup | BTF | tests passed | skipped | time | emulator | result |
|---|---|---|---|---|---|---|---|---|
| 6.1 | 6.1.0-56 | v2 | yes | 9 | - | 22s | attempt 1 (multi-threaded): hung: silent for 3m0s; attempt 2 (single-threaded): ran | ok |
| 6.1-no-btf | - | v1 | hidden by a mount | 0 | - | 0s | multi-threaded | failed: TestX; not attached: demand |

| boot | probe | attached | compared | agreement | why not attached |
|---|---|---|---|---|---|
| 6.1 | throttle | fentry | a\|b | 99.998% |  |
| 6.1-no-btf | demand | no | attach | - | there is no kernel BTF |
`, tables)
	b.Reset()
	require.NoError(t, Text(&b, results))
	for _, said := range []string{"hung: silent for 3m0s", "not attached: demand", "99.998%"} {
		assert.Contains(t, b.String(), said)
	}
}
