package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	if len(ownGroups()) > 0 {
		t.Skip("a run of the bed goes on")
	}
	assert.Equal(t, []string{"directory " + dir}, leftovers(dir, nil))
	gone := dir + "/gone"
	assert.Empty(t, leftovers(gone, []string{"net:[1]", "pid:[2]"}), "namespaces that nobody is in")

	// A process that is alive: this one's child, in this one's namespaces.
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	spaces := namespacesOf(cmd.Process.Pid)
	require.Len(t, spaces, 3)
	assert.Contains(t, within(spaces), fmt.Sprint("process ", cmd.Process.Pid))
	assert.Contains(t, within(spaces), fmt.Sprint("process ", os.Getpid()))
}
