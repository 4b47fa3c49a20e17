package bpf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// entered is set for a child that has come into a mount namespace of its own.
const entered = "KERNEL_GOSSIP_TEST_ENTERED"

// enter does what a container's runtime does at the end: it becomes the entrypoint, in
// another mount namespace.
func enter() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", []string{"orders"}, append(os.Environ(), entered+"=1"))
}

// securityKinds does something n times. What it asks for is refused where that makes no
// difference: an attempt counts.
func securityKinds() map[string]func(n int, args []string) error {
	times := func(do func() error) func(int, []string) error {
		return func(n int, _ []string) error {
			for range n {
				if err := do(); err != nil {
					return err
				}
			}
			return nil
		}
	}
	refused := func(number uintptr, with unix.Errno, args ...uintptr) error {
		args = append(args, 0, 0, 0, 0)
		if _, _, err := unix.RawSyscall6(number, args[0], args[1], args[2], args[3], 0, 0); err != with {
			return fmt.Errorf("system call %d: %w, want %w", number, err, with)
		}
		return nil
	}
	return map[string]func(int, []string) error{
		"unshare": times(func() error {
			runtime.LockOSThread() // and the thread ends with its goroutine
			return unix.Unshare(unix.CLONE_NEWUTS | unix.CLONE_NEWIPC)
		}),
		"harmless": times(func() error {
			runtime.LockOSThread() // whose files are its own from here on
			return unix.Unshare(unix.CLONE_FILES)
		}),
		"setns": times(func() error {
			runtime.LockOSThread()
			ns, err := os.Open("/proc/self/ns/uts")
			if err != nil {
				return err
			}
			defer ns.Close()
			return unix.Setns(int(ns.Fd()), 0)
		}),
		"clone": times(func() error {
			cmd := idle("/proc/self/exe")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}
			return cmd.Run()
		}),
		"mount": times(func() error {
			if err := unix.Mount("what", "/there/is/none", "tmpfs", 0, ""); !errors.Is(err, unix.ENOENT) {
				return err
			}
			return nil
		}),
		"fsmount": times(func() error {
			if _, err := unix.Fsmount(-1, 0, 0); !errors.Is(err, unix.EBADF) {
				return err
			}
			return nil
		}),
		"open_tree": times(func() error {
			if _, err := unix.OpenTree(unix.AT_FDCWD, "/there/is/none", unix.OPEN_TREE_CLONE); !errors.Is(err, unix.ENOENT) {
				return err
			}
			fd, err := unix.OpenTree(unix.AT_FDCWD, "/", 0) // makes none
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		"ptrace":       times(func() error { return refused(unix.SYS_PTRACE, unix.ESRCH, unix.PTRACE_SEIZE, math.MaxInt32) }),
		"detach":       times(func() error { return refused(unix.SYS_PTRACE, unix.ESRCH, unix.PTRACE_DETACH, math.MaxInt32) }),
		"module":       times(tryModule),
		"bpf":          times(func() error { return refused(unix.SYS_BPF, unix.EINVAL, 1000) }),
		"exec":         func(n int, args []string) error { return times(func() error { return idle(args[0]).Run() })(n, nil) },
		"memfd":        times(execMemfd),
		"as_user":      func(n int, args []string) error { return times(func() error { return asUser(idle(args[0])) })(n, nil) },
		"become":       times(becomeRoot),
		"setuid":       times(func() error { return refused(unix.SYS_SETUID, 0, 0) }),
		"write":        func(n int, args []string) error { return openFiles(n, args, os.O_WRONLY) },
		"read":         func(n int, args []string) error { return openFiles(n, args, os.O_RDONLY) },
		"write_openat": openHow,
	}
}

// idle is a program that ends at once.
func idle(path string) *exec.Cmd {
	cmd := exec.Command(path)
	cmd.Env = []string{asChild + "=orders"}
	return cmd
}

func asUser(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	return cmd.Run()
}

// becomeRoot has a user with the capability to do so ask for uid 0.
func becomeRoot() error {
	cmd := idle("/proc/self/exe")
	cmd.Stdin = strings.NewReader("setuid 1\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 1000, Gid: 1000}, AmbientCaps: []uintptr{unix.CAP_SETUID},
	}
	return cmd.Run()
}

func tryModule() error {
	// What is no module is refused, by whichever comes first.
	if err := unix.InitModule([]byte("none"), ""); err == nil {
		return errors.New("four bytes were taken for a module")
	}
	f, err := os.Open("/proc/self/stat")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err == nil {
		return errors.New("a file of proc was taken for a module")
	}
	return nil
}

func execMemfd() error {
	fd, err := unix.MemfdCreate("nameless", 0)
	if err != nil {
		return err
	}
	memory := os.NewFile(uintptr(fd), "nameless")
	defer memory.Close()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if _, err := io.Copy(memory, self); err != nil {
		return err
	}
	// As the child has it: this thread may have other files than the process.
	return idle(fmt.Sprintf("/proc/self/fd/%d", fd)).Run()
}

func openFiles(n int, paths []string, flags int) error {
	for range n {
		for _, path := range paths {
			f, err := os.OpenFile(path, flags, 0)
			if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
				continue // an attempt all the same
			}
			if err != nil {
				return err
			}
			f.Close()
		}
	}
	return nil
}

func openHow(n int, paths []string) error {
	for range n {
		fd, err := unix.Openat2(unix.AT_FDCWD, paths[0], &unix.OpenHow{Flags: unix.O_RDWR})
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

// container is a group with a process that was born as a container's is.
func container(t testing.TB) (*group, *process) {
	t.Helper()
	g := newGroup(t)
	return g, g.enter(t)
}

func (g *group) enter(t testing.TB) *process {
	t.Helper()
	p := g.start(t)
	p.order(t, "unshare 2") // what a runtime does before
	p.answer(t)
	p.order(t, "mount 1")
	p.answer(t)
	p.order(t, "clone 1") // nor do its children count
	p.answer(t)
	p.order(t, "enter")
	p.answer(t)
	return p
}

func (p *process) do(t testing.TB, format string, args ...any) {
	t.Helper()
	p.order(t, format, args...)
	p.answer(t)
}

// copyOfThis is this program under another name.
func copyOfThis(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, self, 0o755))
	require.NoError(t, os.Chmod(path, mode))
}

// openDir is a directory that every user may come to.
func openDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	return dir
}

func TestSecurityEventsAreCountedExactly(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSecurity}})
	if !attached(t, tracer, ProbeSecurity) {
		_, err := tracer.Security()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	dir := openDir(t)
	setuid, plain, agent := filepath.Join(dir, "setuid"), filepath.Join(dir, "plain"), filepath.Join(dir, "release_agent")
	copyOfThis(t, setuid, 0o755|os.ModeSetuid)
	copyOfThis(t, plain, 0o755)
	require.NoError(t, os.WriteFile(agent, nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "my_core_pattern"), nil, 0o644))

	one, p := container(t)
	two, q := container(t)
	quiet, r := container(t)
	newcomer := one.start(t) // as kubectl exec begins
	newcomer.do(t, "unshare 5")

	p.do(t, "unshare 3")
	q.do(t, "unshare 4")
	p.do(t, "harmless 7")
	p.do(t, "setns 5")
	p.do(t, "clone 2")
	p.do(t, "mount 3")
	q.do(t, "fsmount 2")
	q.do(t, "open_tree 4")
	p.do(t, "ptrace 6")
	p.do(t, "detach 6")
	q.do(t, "module 2")
	p.do(t, "exec 3 %s", plain)
	p.do(t, "memfd 2")
	p.do(t, "as_user 4 %s", setuid)
	p.do(t, "as_user 4 %s", plain)
	q.do(t, "become 2")
	q.do(t, "setuid 5")
	p.do(t, "write 2 %s", agent)
	p.do(t, "write_openat 1 %s", agent)
	p.do(t, "read 5 %s /proc/sys/kernel/core_pattern", agent)
	q.do(t, "write 3 /proc/sys/kernel/core_pattern")
	q.do(t, "write 3 %s", filepath.Join(dir, "my_core_pattern"))
	r.do(t, "exec 3 %s", plain)
	r.do(t, "call 1000")
	newcomer.order(t, "enter")
	newcomer.answer(t)
	newcomer.do(t, "unshare 10")
	p.do(t, "bpf 9")

	all, err := tracer.Security()
	require.NoError(t, err)
	// This program, which is what is executed, tries what bpf can as it starts.
	starts := all[quiet.id].Counts[SecurityBPF] / 4
	want := map[uint64]map[SecurityEvent]uint64{
		one.id: {
			SecurityUnshare: 3 + 10, SecuritySetns: 5, SecurityClone: 2, SecurityMount: 3, SecurityPtrace: 6, SecurityBPF: 9 + 17*starts,
			SecurityExecOutsideImage: 2, SecurityPrivilegeGain: 4, SecurityReleaseAgent: 3,
		},
		two.id: {
			SecurityUnshare: 4, SecurityMount: 6, SecurityModuleLoad: 4, SecurityPrivilegeGain: 2, SecurityCorePattern: 3, SecurityBPF: 3 * starts,
		},
		quiet.id: {SecurityBPF: 4 * starts},
	}
	worst := 100.0
	for id, events := range want {
		for e := range SecurityEvents {
			assert.Equal(t, events[e], all[id].Counts[e], "%s of cgroup %d", e, id)
			worst = min(worst, agreement(time.Duration(all[id].Counts[e]), time.Duration(events[e])))
		}
	}
	last := all[one.id].Last
	at := func(e SecurityEvent) SecurityEvidence { return last[e] }
	self, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	this := comm32(self)
	assert.Equal(t, uint32(newcomer.pid), at(SecurityUnshare).PID)
	assert.Equal(t, "uts,ipc", at(SecurityUnshare).Detail)
	assert.Equal(t, "uts", at(SecuritySetns).Detail)
	assert.Equal(t, "uts", at(SecurityClone).Detail)
	assert.Equal(t, "what on /there/is/none", at(SecurityMount).Detail)
	assert.Equal(t, fmt.Sprintf("SEIZE of %d", math.MaxInt32), at(SecurityPtrace).Detail)
	assert.Equal(t, "command 1000", at(SecurityBPF).Detail)
	assert.Contains(t, at(SecurityPrivilegeGain).Detail, "from uid 1000")
	assert.Contains(t, at(SecurityPrivilegeGain).Detail, setuid)
	assert.Equal(t, uint32(1000), at(SecurityPrivilegeGain).UID)
	assert.Equal(t, agent, at(SecurityReleaseAgent).Detail)
	for _, e := range []SecurityEvent{SecuritySetns, SecurityMount, SecurityPtrace, SecurityBPF} {
		assert.Equal(t, uint32(p.pid), at(e).PID, e)
		assert.True(t, strings.HasSuffix(at(e).Binary, "/"+this), "%s: %s", e, at(e).Binary)
		assert.NotEmpty(t, at(e).Comm)
		assert.NotZero(t, at(e).At)
		require.NotEmpty(t, at(e).Ancestry)
		assert.Equal(t, ownComm(t), at(e).Ancestry[0], e)
	}
	assert.Equal(t, "/proc/sys/kernel/core_pattern", all[two.id].Last[SecurityCorePattern].Detail)
	assert.Equal(t, "stat", all[two.id].Last[SecurityModuleLoad].Detail)
	for _, m := range tracer.Maps() {
		assert.Zero(t, m.Lost, m.Map)
	}
	tracer.Forget(one.id)
	all, err = tracer.Security()
	require.NoError(t, err)
	assert.NotContains(t, all, one.id)
	report(tracer, ProbeSecurity, "events of 11 kinds in 3 containers, events made: the worst", worst)
}

func comm32(path string) string { return filepath.Base(path)[:min(31, len(filepath.Base(path)))] }

func ownComm(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	return strings.TrimSpace(string(b))
}

// Where the image is an overlayfs, what is in its upper layer is not the image's.
func TestExecutionOutsideTheImage(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSecurity}})
	if !attached(t, tracer, ProbeSecurity) {
		return
	}
	dir := openDir(t)
	// A tmpfs, which can hold an upper layer, whatever is below.
	require.NoError(t, unix.Mount("image", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	for _, d := range []string{"lower", "upper", "work", "root"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	copyOfThis(t, filepath.Join(dir, "lower", "shipped"), 0o755)
	copyOfThis(t, filepath.Join(dir, "lower", "changed"), 0o755)
	root := filepath.Join(dir, "root")
	err := unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir))
	if errors.Is(err, unix.ENODEV) {
		t.Skip("this kernel has no overlayfs")
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(root, unix.MNT_DETACH)) })
	require.NoError(t, os.Chmod(filepath.Join(root, "changed"), 0o700)) // copied up
	copyOfThis(t, filepath.Join(root, "dropped"), 0o755)

	g, p := container(t)
	other, q := container(t)
	p.do(t, "exec 4 %s", filepath.Join(root, "shipped"))
	p.do(t, "exec 3 %s", filepath.Join(root, "dropped"))
	p.do(t, "exec 2 %s", filepath.Join(root, "changed"))
	q.do(t, "exec 1 /proc/self/exe")
	all, err := tracer.Security()
	require.NoError(t, err)
	counted := all[g.id].Counts[SecurityExecOutsideImage]
	assert.Equal(t, uint64(3+2), counted)
	assert.True(t, all[g.id].ImageKnown)
	assert.Equal(t, filepath.Join(root, "changed"), all[g.id].Last[SecurityExecOutsideImage].Detail)
	assert.Equal(t, "/changed", all[g.id].Last[SecurityExecOutsideImage].Binary)
	assert.Zero(t, all[other.id].Counts[SecurityExecOutsideImage])
	report(tracer, ProbeSecurity, "executions from the upper layer, executions made", agreement(time.Duration(counted), 3+2))
}

// A runtime may also have the kernel make its child in the cgroup, and the child then
// executes the runtime itself before it enters the container.
func TestChildOfAnotherCgroupIsTheRuntimes(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSecurity}})
	if !attached(t, tracer, ProbeSecurity) {
		return
	}
	g := newGroup(t)
	if !g.v2 {
		t.Skip("on cgroup v1 there is no CLONE_INTO_CGROUP")
	}
	dir, err := os.Open(g.dirs[0])
	require.NoError(t, err)
	defer dir.Close()
	cmd := orders()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	p := (&group{}).run(t, cmd)
	p.do(t, "unshare 3")
	p.do(t, "exec 2 /proc/self/exe")
	p.order(t, "enter")
	p.answer(t)
	all, err := tracer.Security()
	require.NoError(t, err)
	assert.Zero(t, all[g.id].Counts[SecurityUnshare])
	p.do(t, "unshare 3")
	all, err = tracer.Security()
	require.NoError(t, err)
	assert.Equal(t, uint64(3), all[g.id].Counts[SecurityUnshare])
}

// One who is in a container can't leave the account by moving to a cgroup of its own.
func TestMovingOneselfHidesNothing(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeSecurity}})
	if !attached(t, tracer, ProbeSecurity) {
		return
	}
	hideout := newGroup(t) // which goes after the process
	_, p := container(t)
	p.order(t, "visit 1\n%s\n", filepath.Join(hideout.dirs[0], "cgroup.procs"))
	p.answer(t)
	p.do(t, "unshare 4")
	all, err := tracer.Security()
	require.NoError(t, err)
	assert.Equal(t, uint64(4), all[hideout.id].Counts[SecurityUnshare])
}

func TestWatchedCallsExist(t *testing.T) {
	compat := compatNumbers()
	for _, names := range watchedCalls() {
		found := false
		for _, name := range names {
			_, ok := syscallNumber(name)
			found = found || ok
			assert.NotEmpty(t, compat[name], name)
		}
		if names[0] != "open" && names[0] != "creat" { // which arm64 never had
			assert.True(t, found, names)
		}
	}
	table := watchTable()
	n, _ := syscallNumber("getppid")
	assert.Zero(t, table[n]&0xff)
	for e := range SecurityEvents {
		assert.NotEqual(t, "unknown", e.String())
	}
	assert.Equal(t, "unknown", SecurityEvents.String())
}
