package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// beginContainer does as a runtime does that has been put into the cgroup: it makes a
// mount namespace and executes what the container is for, here testdata/tracing.
func beginContainer(role string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	runtime.LockOSThread()
	awaitLine()
	must(unix.Unshare(unix.CLONE_NEWNS))
	program := os.Getenv(tracingVariable)
	must(unix.Exec(program, []string{program, strings.TrimPrefix(role, "container:")}, os.Environ()))
}

// tracingVariable has the path of the program of testdata/tracing.
const tracingVariable = "KERNEL_GOSSIP_TEST_TRACING"

func TestSecurityEventsOfARealProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it attaches BPF programs and makes cgroups")
	}
	tracer := filepath.Join(t.TempDir(), "tracing")
	out, err := exec.Command("go", "build", "-o", tracer, "./testdata/tracing").CombinedOutput()
	require.NoError(t, err, "building what the containers run: %s", out)
	t.Setenv(tracingVariable, tracer)
	told, url := listenFor[wire.SecurityEvent](t, wire.TypeSecurityEvent)
	tracing, quiet := newGroup(t, "tracing"), newGroup(t, "quiet")
	e := startExporter(t, "--whisper.url="+url)
	one, none := tracing.child("container:3"), quiet.child("container:0")
	for _, c := range []*child{one, none} {
		c.begin()
		c.count()
	}
	series := tracing.series("security_events_total", "event", "ptrace", "allowed", "false")
	assert.Equal(t, 3.0, e.eventually(series, time.Minute))
	require.Eventually(t, func() bool { return len(told.of(tracing)) > 0 }, time.Minute, 100*time.Millisecond, "no event tells of it")
	ev := told.of(tracing)[0]
	assert.Equal(t, "ptrace", ev.Event)
	assert.Equal(t, map[string]uint64{"ptrace": 3}, ev.Events, "what it did before it was a container is not told")
	require.NotNil(t, ev.PID)
	assert.Equal(t, uint64(one.cmd.Process.Pid), *ev.PID)
	assert.Equal(t, "SEIZE of 1073741824", ev.Detail)
	assert.Equal(t, "tracing", ev.Comm)
	assert.True(t, strings.HasSuffix(ev.Binary, "/tracing"), ev.Binary)
	assert.NotEmpty(t, ev.Ancestry)

	for name := range e.scrapeAfter(time.Now()) {
		if strings.Contains(name, "security_events_total") {
			assert.NotContains(t, name, quiet.path)
			if strings.Contains(name, tracing.path) {
				assert.Equal(t, series, name, "and nothing else")
			}
		}
	}
	assert.Empty(t, told.of(quiet))
	assert.Len(t, told.of(tracing), 1)
}
