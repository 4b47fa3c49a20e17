package kernels

import (
	"fmt"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

// problems says why a boot is not a success. The tests have to report on every probe
// in every boot, and a kernel with BTF has to take each, with a figure of its agreement:
// a matrix in which a probe is nowhere attached or compared proves nothing. Where only some tests are run, all is
// false, and they alone are judged.
func problems(r Result, all bool) []string {
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
	if !all {
		return found
	}
	var silent, missing, unmeasured []string
	for _, probe := range bpf.AllProbes() {
		told, attached, compared := false, true, false
		for _, p := range last.Console.Probes {
			if p.Name == string(probe) {
				told, attached, compared = true, attached && p.Attached, compared || p.Agreement != ""
			}
		}
		switch {
		case !told:
			silent = append(silent, string(probe))
		case !attached && !r.Boot.NoBTF:
			missing = append(missing, string(probe))
		case attached && !compared:
			unmeasured = append(unmeasured, string(probe))
		}
	}
	if len(silent) > 0 {
		found = append(found, "the tests said nothing of "+strings.Join(silent, ", "))
	}
	if len(missing) > 0 {
		found = append(found, "not attached: "+strings.Join(missing, ", "))
	}
	if len(unmeasured) > 0 {
		found = append(found, "attached, but compared with nothing: "+strings.Join(unmeasured, ", "))
	}
	return found
}
