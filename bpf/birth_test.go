package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The runtime is this binary, executed as runc: it does with its own hands what a
// runtime does, in numbers that are known.
const (
	runtimeCalls = 1000
	initCalls    = 500
	appCalls     = 5000
	mounts       = 5
)

// birthRole is the child as one of those who take part in a birth.
func birthRole(role string, in io.Reader, out io.Writer) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	calls := func(n int) {
		for range n {
			_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
	}
	again := func(role string, attributes *syscall.SysProcAttr, env ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", role, "container-1")
		cmd.Env = append(append(os.Environ(), asChild+"=birth "+role), env...)
		cmd.SysProcAttr = attributes
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
		return cmd
	}
	switch role {
	case "runtime":
		if _, err := io.Copy(io.Discard, in); err != nil { // until it is in its cgroup
			return err
		}
		calls(runtimeCalls)
		err := again("plugin", nil, "SECRET=do-not-tell", "CNI_COMMAND=ADD", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_UID=1234",
			"OTHER="+strings.Repeat("x", 3000), "CNI_IFNAME=eth0").Run()
		if err != nil {
			return fmt.Errorf("plugin: %w", err)
		}
		return again("init", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}).Run()
	case "plugin":
		return plugin()
	case "init":
		calls(initCalls)
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("making mounts private: %w", err)
		}
		dir, err := os.MkdirTemp("", "root-")
		if err != nil {
			return err
		}
		for i := range mounts - 1 {
			if err := unix.Mount("kernel-gossip", dir, "tmpfs", 0, "size=1m"); err != nil {
				return fmt.Errorf("mount %d: %w", i, err)
			}
		}
		if err := unix.PivotRoot("/nowhere", "/nowhere"); !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("pivot_root to nowhere: %w", err)
		}
		return syscall.Exec("/proc/self/exe", []string{"app", "--password=secret"}, []string{asChild + "=birth app"})
	case "app":
		calls(appCalls)
		_, err := fmt.Fprintln(out, os.Getpid())
		return err
	}
	if calls, ok := strings.CutPrefix(role, "flood-"); ok {
		n, err := strconv.Atoi(calls)
		for range n {
			if err := unix.Mount("none", "/nowhere", "", 0, ""); !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("mount to nowhere: %w", err)
			}
		}
		return err
	}
	return fmt.Errorf("no such role: %q", role)
}

// plugin goes to a network namespace of its own and back to it again, and sets its
// loopback up.
func plugin() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), 0); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	message := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	*(*unix.NlMsghdr)(unsafe.Pointer(&message[0])) = unix.NlMsghdr{
		Len: uint32(len(message)), Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_REQUEST,
	}
	*(*unix.IfInfomsg)(unsafe.Pointer(&message[unix.SizeofNlMsghdr])) = unix.IfInfomsg{
		Index: 1, Flags: unix.IFF_UP, Change: unix.IFF_UP,
	}
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(fd, message, 0, kernel); err != nil {
		return err
	}
	if _, err = unix.SendmsgN(fd, message, nil, kernel, 0); err != nil {
		return err
	}
	return firewall()
}

// rulesInBatch is how many rules the plugin adds to nftables, in several pages.
const rulesInBatch = 200

// firewall sends a batch as nft and iptables-nft send one: a part of it to each page. Its
// rules are for a table that is not there; what is counted is what was asked for.
func firewall() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil // a kernel without nfnetlink
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	message := func(kind uint16, size int) []byte {
		b := make([]byte, (size+3)&^3)
		*(*unix.NlMsghdr)(unsafe.Pointer(&b[0])) = unix.NlMsghdr{Len: uint32(size), Type: kind, Flags: unix.NLM_F_REQUEST}
		return b
	}
	const ( // linux/netfilter/nfnetlink.h
		header               = unix.SizeofNlMsghdr + int(unsafe.Sizeof(unix.Nfgenmsg{}))
		batchBegin, batchEnd = 16, 17
		nftables             = 10 << 8
	)
	parts := [][]byte{append(message(batchBegin, header), message(nftables|unix.NFT_MSG_NEWTABLE, header)...)}
	for i := range rulesInBatch {
		if i%50 == 0 {
			parts = append(parts, nil)
		}
		last := len(parts) - 1
		parts[last] = append(parts[last], message(nftables|unix.NFT_MSG_NEWRULE, header+i)...)
	}
	parts = append(parts, message(batchEnd, header))
	_, err = unix.SendmsgBuffers(fd, parts, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	return err
}

// listenToBirths collects what is told until the end of a process has been.
func listenToBirths(t *testing.T, births *Births) (until func(pid int) []BirthEvent) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var events []BirthEvent
	var ended sync.Map
	var done sync.WaitGroup
	done.Go(func() {
		assert.NoError(t, births.Run(ctx, 10*time.Millisecond, func(e *BirthEvent) {
			kept := *e
			kept.Arguments, kept.CNI, kept.Message = bytes.Clone(e.Arguments), bytes.Clone(e.CNI), bytes.Clone(e.Message)
			events = append(events, kept)
			if e.Kind == BirthExit || e.Kind == BirthReturned {
				ended.Store(int(e.PID), true)
			}
		}, func(time.Duration) {}))
	})
	return func(pid int) []BirthEvent {
		assert.Eventually(t, func() bool { _, ok := ended.Load(pid); return ok }, 20*time.Second, 10*time.Millisecond, "its end is not told")
		cancel()
		done.Wait()
		return events
	}
}

func TestBirthIsToldExactly(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeBirth}})
	if !attached(t, tracer, ProbeBirth) {
		_, err := tracer.Births()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	births, err := tracer.Births()
	require.NoError(t, err)
	require.NoError(t, births.Count(true))
	require.NoError(t, births.Count(true), "again is no harm")
	until := listenToBirths(t, births)

	g := newGroup(t)
	name := filepath.Join(t.TempDir(), "runc")
	binary, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(binary, name))
	cmd := exec.Command(name, "run", "container-1")
	cmd.Env = append(os.Environ(), asChild+"=birth runtime")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	moved, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for _, dir := range g.dirs {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644))
	}
	require.NoError(t, moved.Close())
	told, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	assert.Equal(t, "1\n", string(told), "it is the first of its PID namespace")
	events := until(cmd.Process.Pid)

	kinds := map[BirthKind]int{}
	calls := map[string]int{}
	var entrypoints, plugins []BirthEvent
	images := map[uint64]bool{}
	batches := 0
	for _, e := range events {
		if e.Root != uint32(cmd.Process.Pid) {
			if e.Path == "/"+filepath.Base(g.dirs[0]) && (e.Kind == BirthMkdir || e.Task == uint32(cmd.Process.Pid)) {
				kinds[e.Kind]++
			}
			continue
		}
		images[e.Image] = true
		kinds[e.Kind]++
		switch {
		case e.Kind == BirthCall:
			calls[e.Name]++
			switch e.Name {
			case "setns":
				assert.EqualValues(t, unix.CLONE_NEWNET, e.Detail)
				assert.Zero(t, e.Result)
			case "pivot_root":
				assert.Equal(t, -int64(unix.ENOENT), e.Result)
				assert.Equal(t, "/nowhere", e.Text[0])
			case "clone":
				assert.NotZero(t, e.Detail&unix.CLONE_NEWPID)
			case "mount":
				assert.Contains(t, []string{"none", "kernel-gossip"}, e.Text[0])
			}
		case e.Kind == BirthExec && e.Entrypoint:
			entrypoints = append(entrypoints, e)
		case e.Kind == BirthExec && len(e.CNI) > 0:
			plugins = append(plugins, e)
		case e.Kind == BirthNetlink && e.Protocol == unix.NETLINK_NETFILTER:
			batches++
			assert.Equal(t, rulesInBatch, e.Rules)
			assert.False(t, e.Unread)
		case e.Kind == BirthNetlink:
			assert.EqualValues(t, unix.NETLINK_ROUTE, e.Protocol)
			assert.Zero(t, e.Rules)
			assert.False(t, e.Unread)
			assert.Len(t, e.Message, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
		}
	}
	for _, p := range tracer.Programs() {
		t.Logf("%s: %d runs, %d missed", p.Program, p.Runs, p.Missed)
	}
	t.Logf("%d events, of the birth by kind: %v", len(events), kinds)
	assert.Equal(t, map[string]int{"unshare": 2, "setns": 1, "clone": 1, "mount": mounts, "pivot_root": 1}, calls)
	require.Len(t, entrypoints, 1)
	assert.Equal(t, "/proc/self/exe", entrypoints[0].File)
	assert.Empty(t, entrypoints[0].Arguments, "they are the application's own")
	require.Len(t, plugins, 1)
	assert.Equal(t, "CNI_COMMAND=ADD\x00CNI_ARGS=IgnoreUnknown=1;K8S_POD_UID=1234\x00CNI_IFNAME=eth0\x00", string(plugins[0].CNI))
	assert.Equal(t, "/proc/self/exe\x00plugin\x00container-1\x00", string(plugins[0].Arguments))
	nfnetlink := 0
	if fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER); err == nil {
		require.NoError(t, unix.Close(fd))
		nfnetlink = 1
	}
	assert.Equal(t, nfnetlink, batches)
	assert.Equal(t, 2+nfnetlink, kinds[BirthNetlink])
	t.Logf("batches of %d rules for nftables: %d", rulesInBatch, batches)
	assert.GreaterOrEqual(t, kinds[BirthFork], 2, "Go's runtime tries clone, besides")
	assert.Equal(t, 4, kinds[BirthExec])
	assert.Equal(t, 1, kinds[BirthReturned])
	assert.Equal(t, len(g.dirs), kinds[BirthMkdir], "of each hierarchy")
	assert.Equal(t, len(g.dirs), kinds[BirthAttach])

	counts := map[string]uint64{}
	require.NoError(t, births.Counts(func(c BirthCount) {
		if images[c.Image] {
			assert.NotZero(t, c.First)
			counts[c.Name] += c.N
		}
	}))
	assert.EqualValues(t, runtimeCalls+initCalls, counts["getppid"], "the application's are its own")
	assert.EqualValues(t, mounts, counts["mount"])
	assert.EqualValues(t, 1, counts["pivot_root"], "what fails is counted, too")
	losses, err := births.Losses()
	require.NoError(t, err)
	assert.Zero(t, losses)
	report(tracer, ProbeBirth, "system calls of a birth, calls made", 100*float64(counts["getppid"])/(runtimeCalls+initCalls))

	births.handled = 0
	require.NoError(t, births.Forget(func(uint64) bool { return true }))
	kept := false
	require.NoError(t, births.Counts(func(c BirthCount) { kept = kept || images[c.Image] }))
	assert.True(t, kept, "the beginning of these may still be in the ring")
	births.handled = births.Now()
	require.NoError(t, births.Forget(func(image uint64) bool { return images[image] }))
	require.NoError(t, births.Counts(func(c BirthCount) { assert.False(t, images[c.Image]) }))
	require.NoError(t, births.Count(false))
}
