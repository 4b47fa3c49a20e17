package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What following births costs those who are born: the time that runc takes to run a
// container, with the probe and without it in turn. One iteration is a pair.
//
//	go test ./exporter -run XXX -bench ContainerStart -benchtime 30x
func BenchmarkContainerStart(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: it attaches BPF programs and runs containers")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		b.Skip("needs runc")
	}
	for _, atOnce := range []int{1, 20} {
		b.Run(fmt.Sprintf("%d at once", atOnce), func(b *testing.B) {
			dir := bundle(b, "true")
			started := 0
			start := func() time.Duration {
				var all sync.WaitGroup
				began := time.Now()
				for range atOnce {
					started++
					cmd := exec.Command("runc", "run", fmt.Sprintf("bench-%d-%d", os.Getpid(), started))
					cmd.Dir = dir
					all.Go(func() {
						out, err := cmd.CombinedOutput()
						assert.NoError(b, err, "%s", out)
					})
				}
				all.Wait()
				return time.Since(began)
			}
			start() // reads the binary
			var without, with []float64
			for i := range 2 * b.N {
				if (i+i/2)%2 == 0 { // which of a pair comes first changes
					without = append(without, start().Seconds())
					continue
				}
				stop := follow(b, nil, nil, nil)
				with = append(with, start().Seconds())
				stop()
			}
			slices.Sort(without)
			slices.Sort(with)
			require.Len(b, with, b.N)
			before, after := without[b.N/2], with[b.N/2]
			b.ReportMetric(1000*before, "ms/without")
			b.ReportMetric(1000*after, "ms/with")
			b.ReportMetric(100*(after/before-1), "%more")
		})
	}
}
