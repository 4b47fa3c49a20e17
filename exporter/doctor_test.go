package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

func TestPrintFindings(t *testing.T) {
	const whole = "cgroups         yes  v2 at /sys/fs/cgroup\n"
	good := finding{What: "cgroups", OK: true, How: "v2 at /sys/fs/cgroup"}
	bad := finding{What: "probe throttle", How: "no BTF", Lost: "durations", Fix: "another kernel"}
	var out bytes.Buffer
	require.NoError(t, printFindings(&out, []finding{good, bad}))
	assert.Equal(t, whole+`probe throttle  NO   no BTF
                     lost: durations
                     fix: another kernel

1 of 2 can't be had here; the rest works without.
`, out.String())

	out.Reset()
	require.NoError(t, printFindings(&out, []finding{good}))
	assert.Contains(t, out.String(), "\nAll of it can be had here.\n")

	out.Reset()
	require.NoError(t, printFindings(&out, []finding{good, {What: "memory", Untried: true, How: "nothing there"}}))
	assert.Equal(t, "cgroups  yes  v2 at /sys/fs/cgroup\nmemory   ?    nothing there\n"+`
All that could be tried can be had here.
1 could not be tried: start a container or a service, then ask again.
`, out.String())

	out.Reset()
	require.NoError(t, printFindings(&out, []finding{{What: "cgroups", How: "none", Lost: lostEverything}}))
	assert.NotContains(t, out.String(), "works without")
}

// Every reason that a probe gives has something to do, or says that there is nothing.
func TestFixFor(t *testing.T) {
	for reason, want := range map[string]string{
		"needs CAP_BPF and CAP_PERFMON":         "run as root",
		"this kernel has no BTF":                "CONFIG_DEBUG_INFO_BTF",
		"the kernel is locked down":             "lockdown",
		"fentry programs are refused (EPERM)":   "none on this kernel",
		"bpf() is forbidden by seccomp":         "seccomp profile",
		"not enough memory for the maps":        "--bpf.max-cgroups",
		"something that nobody thought of yet.": "everything else goes on",
	} {
		assert.Contains(t, fixFor(bpf.Status{Reason: reason}), want, reason)
	}
}

func TestDoctorTellsAPartOfCgroups(t *testing.T) {
	o := &options{log: slog.New(slog.DiscardHandler), cgroupRoot: filepath.Join("cgroup", "testdata", "v2-systemd-podman"), procFS: "/proc", sysFS: "/sys"}
	_, err := os.Stat(o.cgroupRoot)
	require.NoError(t, err)
	byName := map[string]finding{}
	for _, f := range o.examineCgroups() {
		byName[f.What] = f
	}
	assert.Contains(t, byName["cgroups"].How, "v2 at ")
	for _, what := range []string{"CPU usage", "throttle counters", "throttling by an ancestor"} {
		assert.True(t, byName[what].OK, "%+v", byName[what])
	}

	o.cgroupRoot = t.TempDir()
	findings := o.examineCgroups()
	require.Len(t, findings, 1)
	assert.Equal(t, lostEverything, findings[0].Lost)
	text, err := json.Marshal(findings)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"ok":false`)
}
