package performance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const printed = `goos: linux
cpu: A CPU that is called Benchmark
BenchmarkSwitch/attached=none-2         	  100000	      5000 ns/op	      1000 cpu-ns/op
BenchmarkSwitch/attached=empty-2        	  100000	      5200 ns/op	      1100 cpu-ns/op
BenchmarkSwitch/attached=ours-2         	  100000	      5300 ns/op	      1150 cpu-ns/op
BenchmarkSwitch/attached=runqlat-2      	  100000	      5900 ns/op	      1600 cpu-ns/op
--- SKIP: BenchmarkSwitch/attached=ours-runqueue-5.10-2
PASS
`

func TestTable(t *testing.T) {
	first, err := Parse(strings.NewReader(printed))
	require.NoError(t, err)
	second, err := Parse(strings.NewReader(strings.ReplaceAll(printed, "1150 cpu", "1190 cpu")))
	require.NoError(t, err)
	third, err := Parse(strings.NewReader(strings.ReplaceAll(printed, "1150 cpu", "1110 cpu")))
	require.NoError(t, err)
	assert.Equal(t, `| attached | adds, ns | from – to | times its floor | ours to it |
|---|---|---|---|---|
| nothing to do | 100 | 100 – 100 |  | 1.50 |
| ours | 150 | 110 – 190 | 1.50 |  |
| a hash | 600 | 600 – 600 | 6.00 | 0.25 |
| old | not on this kernel | | | |
`, Table([]Run{first, second, third}, "BenchmarkSwitch/attached=", []Way{
		{"empty", "nothing to do", ""}, {"ours", "ours", "empty"}, {"runqlat", "a hash", "empty"}, {"ours-runqueue-5.10", "old", "empty"},
	}))
}

// A floor that drowned in noise gives no ratio.
func TestNoRatioOfNoise(t *testing.T) {
	run, err := Parse(strings.NewReader(strings.ReplaceAll(printed, "1100 cpu", "990 cpu")))
	require.NoError(t, err)
	assert.Contains(t, Table([]Run{run}, "BenchmarkSwitch/attached=", []Way{{"ours", "ours", "empty"}}), "| ours | 150 | 150 – 150 | – |  |")
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{"BenchmarkX-2 many 5 ns/op", "BenchmarkX-2 10 5 ns/op 7", "BenchmarkX-2 10 five ns/op"} {
		_, err := Parse(strings.NewReader(line))
		require.ErrorContains(t, err, "is no result of a benchmark", line)
	}
}
