package kernels

import (
	"fmt"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

// probes are what the tests have to report on in every boot.
var probes = []bpf.Probe{bpf.ProbeThrottle, bpf.ProbeSyscalls, bpf.ProbeRunqueue, bpf.ProbeDemand, bpf.ProbeReclaim, bpf.ProbeOOM, bpf.ProbeNetwork}

// problems says why a boot is not a success. A kernel with BTF has to take every
// probe: a matrix in which a probe is nowhere attached proves nothing.
func problems(r Result) []string {
	last := r.Last()
	if last.Fault != "" {
		return []string{fmt.Sprintf("%s in the last of %d attempts", last.Fault, len(r.Attempts))}
	}
	var found []string
	if last.Console.Code != 0 {
		what := "the test binary ended with code " + fmt.Sprint(last.Console.Code)
		if failed := last.Console.Failed; len(failed) > 0 {
			what = "failed: " + strings.Join(failed, ", ")
		}
		found = append(found, what)
	}
	if last.Console.Passed == 0 {
		found = append(found, "no test passed")
	}
	var silent, missing []string
	for _, probe := range probes {
		told, attached := false, true
		for _, p := range last.Console.Probes {
			if p.Name == string(probe) {
				told, attached = true, attached && p.Attached
			}
		}
		switch {
		case !told:
			silent = append(silent, string(probe))
		case !attached && !r.Boot.NoBTF:
			missing = append(missing, string(probe))
		}
	}
	if len(silent) > 0 {
		found = append(found, "the tests said nothing of "+strings.Join(silent, ", "))
	}
	if len(missing) > 0 {
		found = append(found, "not attached: "+strings.Join(missing, ", "))
	}
	return found
}
