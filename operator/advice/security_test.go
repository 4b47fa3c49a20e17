package advice

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func TestSecurity(t *testing.T) {
	for name, tc := range map[string]struct {
		values   map[string]float64
		severity Severity
		insight  string
		actions  []string
	}{
		"a module": {map[string]float64{"module_load": 2}, Critical, "It loads a kernel module: module_load, 2 times or attempts",
			[]string{InvestigateProcess, RunUnprivileged, DropCapabilities, AllowExpectedSecurityEvent}},
		"a namespace": {map[string]float64{"unshare": 1, "setns": 0}, Info, "It makes namespaces (unshare): unshare, 1 times or attempts",
			[]string{InvestigateProcess, ApplySeccompProfile, AllowExpectedSecurityEvent}},
		"tracing": {map[string]float64{"ptrace": 1}, Warning, "It traces a process (ptrace): ptrace, 1 times or attempts",
			[]string{InvestigateProcess, DropCapabilities, AllowExpectedSecurityEvent}},
		"the gravest speaks, and advice comes once": {map[string]float64{"mount": 1, "setns": 3, "core_pattern_write": 1}, Critical, "It opens core_pattern for writing: core_pattern_write, 1 times or attempts",
			[]string{InvestigateProcess, RunUnprivileged, DropCapabilities, ApplySeccompProfile, AllowExpectedSecurityEvent}},
		"a dropped program": {map[string]float64{"exec_outside_image": 1}, Warning, "It executes a file that its image does not have: exec_outside_image, 1 times or attempts",
			[]string{InvestigateProcess, ReadOnlyRootFilesystem, AllowExpectedSecurityEvent}},
		"sudo": {map[string]float64{"privilege_gain": 1}, Warning, "It gains privileges: privilege_gain, 1 times or attempts",
			[]string{InvestigateProcess, DisallowPrivilegeGain, AllowExpectedSecurityEvent}},
		"what is not known is told as it is": {map[string]float64{"shell_exec": 1}, Warning, "Security event: shell exec 1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := For(signal.Signal{Type: signal.SecurityEvent, Values: tc.values})
			assert.Equal(t, tc.severity, a.Severity)
			assert.Equal(t, tc.insight, a.Insights[0])
			var actions []string
			for _, r := range a.Recommendations {
				actions = append(actions, r.Action)
				assert.LessOrEqual(t, len(r.SuggestedValue), 64)
			}
			assert.Equal(t, tc.actions, actions)
		})
	}
}

func TestSecurityTellsWho(t *testing.T) {
	pid, uid := uint64(123), uint64(0)
	a := For(signal.Signal{Type: signal.SecurityEvent, Values: map[string]float64{"mount": 1, "period_seconds": 12}, Process: &signal.Process{
		Event: "mount", Binary: "/usr/bin/mount", Comm: "mount", PID: &pid, UID: &uid, Ancestry: []string{"sh", "init"}, Detail: "none on /mnt",
	}})
	assert.Equal(t, []string{
		"The container does what few should, in 12 s", "It mounts: mount, 1 times or attempts",
		"Last mount by /usr/bin/mount (mount, pid 123, uid 0), child of sh of init: none on /mnt",
	}, a.Insights)
	assert.Equal(t, "mount", a.Recommendations[0].SuggestedValue)

	a = For(signal.Signal{Type: signal.SecurityEvent, Values: map[string]float64{"mount": 1}, Process: &signal.Process{
		Event: "mount", Comm: strings.Repeat("ü", 40), Detail: strings.Repeat("x", 2000),
	}})
	for _, i := range a.Insights {
		assert.LessOrEqual(t, len(i), 1024)
	}
	assert.Contains(t, a.Insights[1], "Last mount by a process (ü")
	assert.LessOrEqual(t, len(a.Recommendations[0].SuggestedValue), 64)
}

func TestEveryKindIsBounded(t *testing.T) {
	all := map[string]float64{"period_seconds": 60}
	for _, event := range KnownSecurityEvents() {
		all[event] = 1
	}
	a := For(signal.Signal{Type: signal.SecurityEvent, Values: all, Process: &signal.Process{Event: "mount"}})
	assert.LessOrEqual(t, len(a.Insights), 16)
	assert.LessOrEqual(t, len(a.Recommendations), 16)
	assert.Equal(t, Critical, SecuritySeverity("module_load"))
	assert.Equal(t, Warning, SecuritySeverity("shell_exec"))
}
