package kernels

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const transcript = "SeaBIOS\r\n\x1bc\x1b[?7l\x1b[2JKG-UP 3.76 5.10.0-46-cloud-amd64\r\n" + `=== RUN   TestSyscalls
RESULT probe=syscalls attached=true mode="tp_btf" agreement=100.000% reason="" check="calls made, \"known\""
--- PASS: TestSyscalls (3.28s)
    --- FAIL: TestThrottling/demand (0.02s)
--- FAIL: TestThrottling (7.19s)
--- SKIP: TestHere (0.00s)
RESULT probe=throttle attached=false mode="" agreement= reason="there is no kernel BTF" check="attach"
RESULT probe=demand attached=perhaps
RESULT attached=true
[   19.782988] Oops: int3: 0000 [#1] SMP NOPTI
[   19.785933] Kernel panic - not syncing: Fatal exception
panic: test timed out after 1m
KG-EXIT 2 52.18
`

func TestConsole(t *testing.T) {
	var c Console
	var shown []string
	for line := range strings.Lines(transcript) {
		if c.Line(line) {
			shown = append(shown, strings.TrimSpace(line))
		}
	}
	assert.Equal(t, Console{
		Release: "5.10.0-46-cloud-amd64", UserTime: 3760 * time.Millisecond,
		Probes: []Probe{
			{Name: "syscalls", Attached: true, Mode: "tp_btf", Agreement: "100.000%", Check: `calls made, "known"`},
			{Name: "throttle", Reason: "there is no kernel BTF", Check: "attach"},
		},
		Failed: []string{"TestThrottling/demand", "TestThrottling"}, Skipped: []string{"TestHere"}, Passed: 1,
		Crash: "Oops: int3: 0000 [#1] SMP NOPTI", Exited: true, Code: 2,
	}, c)
	assert.Len(t, shown, 7)
}

// What a test prints about an oops is no oops of the guest's kernel.
func TestConsoleWantsATimestampForACrash(t *testing.T) {
	var c Console
	c.Line("Kernel panic - not syncing")
	assert.Empty(t, c.Crash)
}

func FuzzConsole(f *testing.F) {
	f.Add(transcript)
	f.Fuzz(func(t *testing.T, text string) {
		var c Console
		for line := range strings.Lines(text) {
			c.Line(line)
		}
		for _, p := range c.Probes {
			assert.NotEmpty(t, p.Name)
		}
	})
}
