//go:build linux

package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A shell holds some megabytes, then a child of it asks for more than the limit and is
// killed; what is read is what the kernel's files say.
func TestLiveMemoryIsTheKernels(t *testing.T) {
	const held, limit = 8 << 20, 48 << 20
	m, _, basePath := liveRoot(t)
	require.NotEmpty(t, m.Memory, "there is no memory controller")
	path := basePath + "/docker-" + cid("memory") + ".scope"
	at := hierarchies(m)
	if m.Version == 2 {
		for _, dir := range []string{m.CPU, m.CPU + basePath} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0o644))
		}
	} else {
		for _, dir := range []string{m.Memory + basePath, m.Memory + path} {
			require.NoError(t, os.Mkdir(dir, 0o755))
			t.Cleanup(func() { assert.NoError(t, os.Remove(dir)) })
		}
		at = append(at, m.Memory)
	}
	mkdirs(t, m, path)
	max := map[int]string{1: "memory.limit_in_bytes", 2: "memory.max"}[m.Version]
	write(t, filepath.Join(m.Memory, path, max), strconv.Itoa(limit))
	// The rest is not to go to swap. v2 has the file where there is swap accounting.
	if m.Version == 1 {
		write(t, filepath.Join(m.Memory, path, "memory.swappiness"), "0")
	} else if swap := filepath.Join(m.Memory, path, "memory.swap.max"); stats(swap) {
		write(t, swap, "0")
	}

	tree, err := Open(Config{Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	run(t, tree)
	g := group(t, tree, path)

	procs := ""
	for _, hierarchy := range at {
		procs += fmt.Sprintf("echo $$ > %q || exit 1; ", filepath.Join(hierarchy, path, "cgroup.procs"))
	}
	child := exec.Command("sh", "-c", procs+fmt.Sprintf(`x=$(head -c %d /dev/zero | tr '\0' x); echo held; read go; tail /dev/zero; echo "ended $?"; read go`, held))
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = child.Process.Kill()
		_ = child.Wait()
		for _, hierarchy := range at { // the last task may still be on its way out
			procs := filepath.Join(hierarchy, path, "cgroup.procs")
			assert.Eventually(t, func() bool { b, err := os.ReadFile(procs); return err != nil || len(b) == 0 }, time.Minute, 10*time.Millisecond)
		}
	})
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "held", lines.Text())

	stat, ok, err := tree.Memory(g)
	require.NoError(t, err)
	require.True(t, ok)
	assert.EqualValues(t, limit, stat.Limit)
	assert.GreaterOrEqual(t, stat.WorkingSet, uint64(held))
	assert.LessOrEqual(t, stat.WorkingSet, stat.Usage)
	assert.LessOrEqual(t, stat.Usage, uint64(limit))
	assert.GreaterOrEqual(t, stat.Anon, uint64(held))
	assert.NotZero(t, stat.Faults)
	counts, err := tree.MemoryCounts(g)
	require.NoError(t, err)
	assert.True(t, counts.Group.Told[EventOOMKill])
	assert.Zero(t, counts.Group.Count[EventOOMKill])

	_, err = fmt.Fprintln(in)
	require.NoError(t, err)
	require.True(t, lines.Scan())
	require.Equal(t, "ended 137", lines.Text(), "it was to be killed")
	counts, err = tree.MemoryCounts(g)
	require.NoError(t, err)
	assert.EqualValues(t, 1, counts.Group.Count[EventOOMKill])
	pressure, err := tree.Pressure(g)
	require.NoError(t, err)
	if m.Version == 1 {
		assert.Equal(t, fileNumber(t, filepath.Join(m.Memory, path, "memory.failcnt"), ""), counts.Group.Count[EventFailcnt])
		assert.NotZero(t, counts.Group.Count[EventFailcnt])
		assert.Equal(t, Pressure{}, pressure)
		return
	}
	assert.Equal(t, counts.Group, counts.Own, "there is nothing below")
	for _, e := range []MemoryEvent{EventMax, EventOOM, EventOOMKill, EventHigh} {
		assert.Equal(t, fileNumber(t, filepath.Join(m.Memory, path, "memory.events"), e.String()), counts.Own.Count[e], e)
	}
	assert.NotZero(t, counts.Own.Count[EventMax])
	if stats("/proc/pressure/memory") {
		assert.True(t, pressure.Memory.HasSome && pressure.Memory.HasFull && pressure.CPU.HasSome && pressure.IO.HasSome)
		assert.NotZero(t, pressure.Memory.Some, "it reclaimed before it was killed")
	}
}

func stats(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// fileNumber reads a line "key value" by hand, or a file of one number.
func fileNumber(t testing.TB, file, key string) uint64 {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if key == "" || len(f) == 2 && f[0] == key {
			n, err := strconv.ParseUint(f[len(f)-1], 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	require.Fail(t, "no such line", "%s in %s", key, file)
	return 0
}
