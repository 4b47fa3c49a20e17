package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const nobody = 65534

// build makes the three programs, in a directory that everybody may read.
func build(t *testing.T) (bin string) {
	t.Helper()
	bin, err := os.MkdirTemp("", "demo-test-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(bin)) })
	require.NoError(t, os.Chmod(bin, 0o755))
	for name, where := range map[string]struct{ dir, pkg string }{
		"kernel-gossip-exporter": {"../..", "./exporter"},
		"kernel-gossip-operator": {"../..", "./operator"},
		"demo":                   {".", "."},
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(bin, name), where.pkg)
		cmd.Dir = where.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return bin
}

// start runs the demo with a directory for temporary files of its own.
func start(t *testing.T, bin string, unprivileged bool, args ...string) (cmd *exec.Cmd, tmp string, lines func(until string) string) {
	t.Helper()
	tmp, err := os.MkdirTemp("", "demo-run-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(tmp)) })
	require.NoError(t, os.Chmod(tmp, 0o777))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, filepath.Join(bin, "demo"), args...)
	cmd.Dir, cmd.Env = tmp, append(os.Environ(), "TMPDIR="+tmp)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it cleans up then
	if unprivileged && os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	require.NoError(t, cmd.Start())
	in := bufio.NewScanner(pipe)
	return cmd, tmp, func(until string) string {
		var said strings.Builder
		for in.Scan() {
			said.WriteString(in.Text() + "\n")
			if until != "" && strings.Contains(in.Text(), until) {
				return said.String()
			}
		}
		if until != "" {
			t.Fatalf("the demo ended without %q:\n%s%s", until, said.String(), faults.String())
		}
		return said.String()
	}
}

// assertNothingLeft looks for files, processes and cgroups.
func assertNothingLeft(t *testing.T, tmp, bin, said string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	assert.Empty(t, left, "files")
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	require.NotEmpty(t, commands)
	for _, c := range commands {
		b, err := os.ReadFile(c)
		if err != nil {
			continue // it ended
		}
		line := strings.ReplaceAll(string(b), "\x00", " ")
		assert.False(t, strings.Contains(line, tmp) || strings.Contains(line, bin), "process left: %s %s", c, line)
	}
	made := regexp.MustCompile(`cgroup of its own, (/\S+)\.`).FindStringSubmatch(said)
	if made == nil {
		assert.Contains(t, said, "REPLAY", "neither a cgroup nor a replay")
		return
	}
	for _, pattern := range []string{cgroupRoot + made[1], cgroupRoot + "/*" + made[1]} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		assert.Empty(t, found, "cgroups")
	}
}

// Whoever runs it and however it is ended, nothing is left behind.
func TestCleansUp(t *testing.T) {
	bin := build(t)
	for name, c := range map[string]struct {
		signal       syscall.Signal
		unprivileged bool
	}{
		"Ctrl-C":               {syscall.SIGINT, false},
		"SIGTERM":              {syscall.SIGTERM, false},
		"Ctrl-C, unprivileged": {syscall.SIGINT, true},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, tmp, lines := start(t, bin, c.unprivileged)
			said := lines("what the kernel did") // all is running by then
			left, err := os.ReadDir(tmp)
			require.NoError(t, err)
			assert.Len(t, left, 1, "the demo keeps its files elsewhere: the test would miss them")
			require.NoError(t, cmd.Process.Signal(c.signal))
			assert.Contains(t, lines(""), "Nothing is left behind")
			var exit *exec.ExitError
			require.ErrorAs(t, cmd.Wait(), &exit)
			assert.Equal(t, 130, exit.ExitCode())
			assertNothingLeft(t, tmp, bin, said)
		})
	}
}

// Who may make no cgroup sees the recording, through the same programs, to its end:
// a whisper with both figures.
func TestReplay(t *testing.T) {
	bin := build(t)
	cmd, tmp, lines := start(t, bin, true)
	said := lines("")
	require.NoError(t, cmd.Wait(), said)
	assert.Contains(t, said, "REPLAY of a recorded run")
	assert.Contains(t, said, "name: "+replayName+"-kw")
	assert.Contains(t, said, "Metrics show")
	assert.Contains(t, said, ": agreed")
	for line := range strings.Lines(said) {
		if strings.Contains(line, "throttled in") && strings.Contains(line, "░") {
			assert.Contains(t, line, "replay", "each line of figures says that it is a replay")
		}
	}
	assertNothingLeft(t, tmp, bin, said)
}
