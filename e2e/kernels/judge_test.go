package kernels

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

func everything(attached bool) []Probe {
	var all []Probe
	for _, p := range bpf.AllProbes() {
		probe := Probe{Name: string(p), Attached: attached}
		if attached {
			probe.Agreement = "100.000%"
		}
		all = append(all, probe)
	}
	return all
}

func TestProblemsOfSomeTests(t *testing.T) {
	ran := Result{Attempts: []Attempt{{Console: Console{Exited: true, Passed: 1}}}}
	assert.Empty(t, problems(ran, false), "what was not run is not missing")
	ran.Attempts[0].Console = Console{Exited: true}
	assert.Equal(t, []string{"no test passed"}, problems(ran, false))
}

func names(probes []bpf.Probe) string {
	var all []string
	for _, p := range probes {
		all = append(all, string(p))
	}
	return strings.Join(all, ", ")
}

func TestProblems(t *testing.T) {
	good := Console{Exited: true, Passed: 3, Probes: everything(true)}
	with := func(change func(c *Console)) Console {
		c := good
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		boot    Boot
		attempt Attempt
		want    []string
	}{
		"good":              {attempt: Attempt{Console: good}},
		"crashed":           {attempt: Attempt{Console: good, Fault: "kernel crashed: Oops"}, want: []string{"kernel crashed: Oops in the last of 1 attempts"}},
		"a test failed":     {attempt: Attempt{Console: with(func(c *Console) { c.Code, c.Failed = 1, []string{"TestX"} })}, want: []string{"failed: TestX"}},
		"the binary died":   {attempt: Attempt{Console: with(func(c *Console) { c.Code = 2 })}, want: []string{"the test binary ended with code 2"}},
		"nothing ran":       {attempt: Attempt{Console: with(func(c *Console) { c.Passed = 0 })}, want: []string{"no test passed"}},
		"a probe is absent": {attempt: Attempt{Console: with(func(c *Console) { c.Probes = c.Probes[1:] })}, want: []string{"the tests said nothing of throttle"}},
		"not attached":      {attempt: Attempt{Console: with(func(c *Console) { c.Probes = everything(false) })}, want: []string{"not attached: " + names(bpf.AllProbes())}},
		"not compared":      {attempt: Attempt{Console: with(func(c *Console) { c.Probes = everything(true); c.Probes[0].Agreement = "" })}, want: []string{"attached, but compared with nothing: throttle"}},
		"no BTF, so rightly not attached": {
			boot: Boot{NoBTF: true}, attempt: Attempt{Console: with(func(c *Console) { c.Probes = everything(false) })},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, problems(Result{Boot: c.boot, Attempts: []Attempt{c.attempt}}, true))
		})
	}
}
