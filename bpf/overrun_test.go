package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Events that find the ring full are lost, and counted each; what was in it comes whole,
// and when it has been read all goes on as before.
func TestRingOverrun(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeBirth}})
	if !attached(t, tracer, ProbeBirth) {
		return
	}
	births, err := tracer.Births()
	require.NoError(t, err)
	require.NoError(t, births.Count(true))
	binary, err := os.Executable()
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "runc")
	require.NoError(t, os.Symlink(binary, name))
	flood := func(calls int) (pid int) {
		cmd := exec.Command(name)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=birth flood-%d", asChild, calls))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return cmd.Process.Pid
	}
	const many, few = 40_000, 100
	first := flood(many) // and nobody reads
	during, err := births.Losses()
	require.NoError(t, err)
	require.Positive(t, during.Events, "the ring was not full")

	told := map[uint32]uint64{}
	until := listenToBirths(t, births)
	drained(t, births)
	second := flood(few)
	for _, e := range until(second) {
		// Other containers may be born on this machine meanwhile.
		if e.Kind == BirthCall && e.Name == "mount" && e.Text[1] == "/nowhere" {
			told[e.Root]++
		}
	}
	assert.Less(t, told[uint32(first)], uint64(many))                            //nolint:gosec // a PID
	assert.GreaterOrEqual(t, told[uint32(first)]+during.Events, uint64(many))    //nolint:gosec // a PID
	assert.EqualValues(t, few, told[uint32(second)], "what comes later is told") //nolint:gosec // a PID
	after, err := births.Losses()
	require.NoError(t, err)
	assert.Equal(t, during.Events, after.Events)
	t.Logf("of %d events %d came, %d were lost and counted", many, told[uint32(first)], during.Events) //nolint:gosec // a PID
}

// drained waits until the ring is empty.
func drained(t *testing.T, births *Births) {
	t.Helper()
	require.Eventually(t, func() bool { return births.p.birth.reader.AvailableBytes() == 0 }, 20*time.Second, 10*time.Millisecond)
}
