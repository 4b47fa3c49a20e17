package performance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const printed = `goos: linux
cpu: A CPU that is called Benchmark
BenchmarkSyscall/attached=none-2         	  100000	      5000 ns/op	      1000 cpu-ns/op
BenchmarkSyscall/attached=empty-2        	  100000	      5200 ns/op	      1100 cpu-ns/op	        60.20 sys_enter-ns/run
BenchmarkSyscall/attached=ours-2         	  100000	      5300 ns/op	      1150 cpu-ns/op	        90.00 sys_enter-ns/run
BenchmarkSyscall/attached=bcc-2          	  100000	      5900 ns/op	      1600 cpu-ns/op
--- SKIP: BenchmarkSyscall/attached=bpftrace-2
PASS
`

func TestTable(t *testing.T) {
	first, err := Parse(strings.NewReader(printed))
	require.NoError(t, err)
	second, err := Parse(strings.NewReader(strings.ReplaceAll(printed, "1150 cpu", "1190 cpu")))
	require.NoError(t, err)
	third, err := Parse(strings.NewReader(strings.ReplaceAll(printed, "1150 cpu", "1110 cpu")))
	require.NoError(t, err)
	assert.Equal(t, `| attached | adds, ns | from – to | times its floor | ours to it | ns a run |
|---|---|---|---|---|---|
| nothing to do | 100 | 100 – 100 |  | 1.50 | 60 |
| ours | 150 | 110 – 190 | 1.50 |  | 90 |
| a hash | 600 | 600 – 600 | 6.00 | 0.25 |  |
| old | not on this kernel | | | | |
`, Table([]Run{first, second, third}, "BenchmarkSyscall/attached=", []Way{
		{"empty", "nothing to do", ""}, {"ours", "ours", "empty"}, {"bcc", "a hash", "empty"}, {"bpftrace", "old", "empty"},
	}))
}

func TestPrograms(t *testing.T) {
	var runs []Run
	for _, ns := range []string{"90", "100", "120"} {
		run, err := Parse(strings.NewReader(strings.ReplaceAll(
			`BenchmarkSwitch/attached=empty-2 10 7 ns/op 60 a-ns/switch 1 a-runs/switch 30 b-ns/switch 0.5 b-runs/switch
BenchmarkSwitch/attached=ours-2 10 7 ns/op NS a-ns/switch 1 a-runs/switch 40 b-ns/switch 0.5 b-runs/switch
BenchmarkSwitch/attached=runqlat-2 10 7 ns/op 400 a-ns/switch 1 a-runs/switch
`, "NS", ns)))
		require.NoError(t, err)
		runs = append(runs, run)
	}
	assert.Equal(t, `| hooks | attached | runs a switch | ns a run | ns a switch | from – to | times the floor | ours to it |
|---|---|---|---|---|---|---|---|
| a | nothing to do | 1.00 | 60 | 60 | 60 – 60 |  | 1.67 |
| a | ours | 1.00 | 100 | 100 | 90 – 120 | 1.67 |  |
| a | a hash | 1.00 | 400 | 400 | 400 – 400 | 6.67 | 0.25 |
| all | nothing to do | 1.50 | 60 | 90 | 90 – 90 |  | 1.56 |
| all | ours | 1.50 | 93 | 140 | 130 – 160 | 1.56 |  |
| all | a hash | 1.00 | 400 | 400 | 400 – 400 | 4.44 | 0.35 |
`, Programs(runs, "BenchmarkSwitch/attached=", []Way{
		{"empty", "nothing to do", ""}, {"ours", "ours", "empty"}, {"runqlat", "a hash", "empty"}, {"gone", "not on this kernel", "empty"},
	}, []Hooks{{"a", []string{"a"}}, {"all", []string{"a", "b", "c"}}}))
}

// A floor that drowned in noise gives no ratio.
func TestNoRatioOfNoise(t *testing.T) {
	run, err := Parse(strings.NewReader(strings.ReplaceAll(printed, "1100 cpu", "990 cpu")))
	require.NoError(t, err)
	assert.Contains(t, Table([]Run{run}, "BenchmarkSyscall/attached=", []Way{{"ours", "ours", "empty"}}), "| ours | 150 | 150 – 150 | – |  | 90 |")
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{"BenchmarkX-2 many 5 ns/op", "BenchmarkX-2 10 5 ns/op 7", "BenchmarkX-2 10 five ns/op"} {
		_, err := Parse(strings.NewReader(line))
		require.ErrorContains(t, err, "is no result of a benchmark", line)
	}
}
