package straced

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const log = `10 1.1 execve("/bin/runc", ["runc", "create", "box"], 0x7ffc /* 5 vars */) = 0
10 1.2 clone(child_stack=0x7f, flags=CLONE_NEWPID|CLONE_NEWNS|SIGCHLD <unfinished ...>
11 1.3 setns(5, CLONE_NEWIPC)           = 0
11 1.4 setns(6, CLONE_NEWUTS)           = -1 EPERM (Operation not permitted)
10 1.5 <... clone resumed>)             = 11
10 1.6 --- SIGCHLD {si_signo=SIGCHLD} ---
11 1.7 mount("proc", "/proc", "proc", 0, NULL) = 0
11 1.8 move_mount(7, "", AT_FDCWD, "/x", MOVE_MOUNT_F_EMPTY_PATH) = 0
11 1.9 execve("/pause", ["/pause"], 0xc0 <unfinished ...>
10 2.0 exit_group(0)                    = ?
10 2.1 +++ exited with 0 +++
11 2.2 <... execve resumed>)            = 0
11 2.3 getpid()                         = 1
`

func TestRead(t *testing.T) {
	c, err := Read(strings.NewReader(log), "/pause")
	require.NoError(t, err)
	assert.Equal(t, 8, c.Calls)
	assert.Equal(t, 7, c.Before, "exit_group came while the entrypoint's execve was under way")
	assert.Equal(t, 0, c.Begun["exit_group"])
	assert.Equal(t, 2, c.Begun["execve"])
	assert.Equal(t, 2, c.Execs())
	assert.Equal(t, 2, c.Mounts())
	assert.Equal(t, map[string]int{"pid": 1, "mnt": 1}, c.Created)
	assert.Equal(t, map[string]int{"ipc": 1}, c.Entered)
	assert.Equal(t, 2, c.Named["setns"])

	whole, err := Read(strings.NewReader(log), "")
	require.NoError(t, err)
	assert.Equal(t, 9, whole.Calls)
	_, err = Read(strings.NewReader(log), "/other")
	assert.ErrorContains(t, err, "/other")
}
