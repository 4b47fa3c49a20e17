package bpf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The stimuli are child processes (this binary again) in cgroups of their own, and
// the figures are compared with the kernel's files. Nothing else is needed around
// them than mounted proc, sysfs and cgroups, v1 or v2.

const (
	asChild = "KERNEL_GOSSIP_TEST_CHILD"
	// inNamespaceOf is the process whose network namespace the child joins.
	inNamespaceOf = "KERNEL_GOSSIP_TEST_NETNS_OF"
)

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		if err := child(strings.Fields(os.Getenv(asChild)), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child does as told, a line of input at a time, so that it is in its cgroup before
// it does anything, and stays until its cgroup has been read:
//
//	call N     N getppid calls from one thread
//	calls T N  the same from each of T threads at once
//	burn T D   T threads use CPU for D
//	pingpong N two threads wake each other N times
//	visit N    N getppid calls from each of the cgroups whose cgroup.procs files
//	           follow, a line each, until an empty line
//	churn N    N bytes are touched and given up again, so that a limit below that
//	           makes the kernel reclaim them
//	hog N      N bytes are touched and kept
//	transfer N K | queue N | refuse N | reset N | flood N | unheard N
//	           see network_test.go
//	stress ... becomes stress-ng with those arguments
//	enter | <a security event> N ...
//	           see security_test.go
//	stop       ends
//
// As "attach" it opens all probes and says why they are not attached.
func child(args []string, in io.Reader, out io.Writer) error {
	if slices.Equal(args, []string{"attach"}) {
		t := Open(context.Background(), Config{Log: slog.New(slog.DiscardHandler)})
		for _, s := range t.Status() {
			fmt.Fprintf(out, "%s %t %s\n", s.Probe, s.Attached, s.Reason)
		}
		return t.Close()
	}
	if len(args) == 2 && args[0] == "birth" {
		return birthRole(args[1], in, out)
	}
	if pid := os.Getenv(inNamespaceOf); pid != "" {
		runtime.LockOSThread() // what is ordered is done on this thread
		if err := joinNamespace(pid); err != nil {
			return err
		}
	}
	if os.Getenv(entered) != "" {
		fmt.Fprintln(out, 1)
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 2 && words[0] == "call":
			n, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			for range n {
				_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
			}
			fmt.Fprintln(out, n)
		case len(words) == 3 && words[0] == "calls":
			threads, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(words[2])
			if err != nil {
				return err
			}
			var all sync.WaitGroup
			for range threads {
				all.Go(func() {
					for range n {
						_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
					}
				})
			}
			all.Wait()
			fmt.Fprintln(out, n)
		case len(words) == 2 && words[0] == "pingpong":
			n, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			if err := pingpong(n); err != nil {
				return err
			}
			fmt.Fprintln(out, n)
		case len(words) == 2 && words[0] == "visit":
			n, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			visited, err := visit(lines, n)
			if err != nil {
				return err
			}
			fmt.Fprintln(out, visited)
		case len(words) == 3 && words[0] == "burn":
			threads, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			d, err := time.ParseDuration(words[2])
			if err != nil {
				return err
			}
			burn(threads, d)
			fmt.Fprintln(out, threads)
		case len(words) == 2 && (words[0] == "churn" || words[0] == "hog"):
			n, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			if err := touch(n, words[0] == "churn"); err != nil {
				return err
			}
			fmt.Fprintln(out, n)
		case len(words) > 1 && words[0] == "stress":
			return becomeStress(words[1:])
		case len(words) == 1 && words[0] == "enter":
			return enter()
		case len(words) > 1 && securityKinds()[words[0]] != nil:
			n, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			if err := securityKinds()[words[0]](n, words[2:]); err != nil {
				return fmt.Errorf("%s: %w", words[0], err)
			}
			fmt.Fprintln(out, n)
		case len(words) > 1 && trafficKinds()[words[0]] != nil:
			var numbers []int
			for _, w := range words[1:] {
				n, err := strconv.Atoi(w)
				if err != nil {
					return err
				}
				numbers = append(numbers, n)
			}
			if err := trafficKinds()[words[0]](numbers); err != nil {
				return fmt.Errorf("%s: %w", words[0], err)
			}
			fmt.Fprintln(out, numbers[0])
		case len(words) == 1 && words[0] == "stop":
			return nil
		default:
			return fmt.Errorf("no such order: %q", lines.Text())
		}
	}
	return lines.Err()
}

func joinNamespace(pid string) error {
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// pingpong passes a byte between two threads by blocking pipes.
func pingpong(n int) error {
	var there, back [2]int
	for _, p := range []*[2]int{&there, &back} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return err
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
	}
	pass := func(from, to int, first bool) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		b := []byte{0}
		for range n {
			if first {
				if _, err := unix.Write(to, b); err != nil {
					return err
				}
			}
			if _, err := unix.Read(from, b); err != nil {
				return err
			}
			if !first {
				if _, err := unix.Write(to, b); err != nil {
					return err
				}
			}
		}
		return nil
	}
	other := make(chan error, 1)
	go func() { other <- pass(there[0], back[1], false) }()
	return errors.Join(pass(back[0], there[1], true), <-other)
}

// visit moves this process from cgroup to cgroup, so fast that many come into being
// for the probes at almost the same time.
func visit(files *bufio.Scanner, calls int) (int, error) {
	var procs []string
	for files.Scan() && files.Text() != "" {
		procs = append(procs, files.Text())
	}
	self := []byte(strconv.Itoa(os.Getpid()))
	for _, file := range procs {
		if err := os.WriteFile(file, self, 0o644); err != nil {
			return 0, err
		}
		for range calls {
			_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
	}
	return len(procs), files.Err()
}

func burn(threads int, d time.Duration) {
	var all sync.WaitGroup
	end := time.Now().Add(d)
	for range threads {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread() // so that the thread stays and can be asked
			for time.Now().Before(end) {
			}
		})
	}
	all.Wait()
}

// needRoot is the one reason not to run: what follows has to fail otherwise.
func needRoot(t testing.TB) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it attaches BPF programs and makes cgroups")
	}
}

// group is a cgroup of the cpu controller, and on v1 its twin of cpuacct.
type group struct {
	dirs []string // of the cpu controller first
	v2   bool
	id   uint64
}

var groups atomic.Int32

func newGroup(t testing.TB) *group {
	t.Helper()
	return newGroupIn(t, rootGroup(t))
}

func newGroupIn(t testing.TB, parent *group) *group {
	t.Helper()
	name := fmt.Sprintf("kernel-gossip-test-%d-%d", os.Getpid(), groups.Add(1))
	g := &group{v2: parent.v2}
	for _, above := range parent.dirs {
		if g.v2 {
			require.NoError(t, os.WriteFile(filepath.Join(above, "cgroup.subtree_control"), []byte("+cpu"), 0o644))
		}
		dir := filepath.Join(above, name)
		require.NoError(t, os.Mkdir(dir, 0o755))
		g.dirs = append(g.dirs, dir)
		t.Cleanup(func() { removeGroup(t, dir) })
	}
	var st unix.Stat_t
	require.NoError(t, unix.Stat(g.dirs[0], &st))
	g.id = st.Ino
	return g
}

func removeGroup(t testing.TB, dir string) {
	var err error
	for range 100 { // the last process may still be leaving
		if err = os.Remove(dir); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("removing a cgroup: %v", err)
}

// rootGroup is the root group: the mount point with the cpu controller, and where
// cpuacct is mounted apart from it, that one too.
func rootGroup(t testing.TB) *group {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	var unified, cpu, cpuacct string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		options := strings.Split(f[3], ",")
		switch {
		case f[2] == "cgroup2":
			unified = f[1]
		case f[2] == "cgroup" && slices.Contains(options, "cpu"):
			cpu = f[1]
			if slices.Contains(options, "cpuacct") {
				cpuacct = f[1]
			}
		case f[2] == "cgroup" && slices.Contains(options, "cpuacct"):
			cpuacct = f[1]
		}
	}
	switch {
	case cpu != "" && cpuacct != "" && cpuacct != cpu:
		return &group{dirs: []string{cpu, cpuacct}}
	case cpu != "":
		return &group{dirs: []string{cpu}}
	}
	controllers, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
	require.NoError(t, err, "no cgroup hierarchy is mounted")
	require.Contains(t, strings.Fields(string(controllers)), "cpu", "%s has no cpu controller", unified)
	return &group{dirs: []string{unified}, v2: true}
}

func (g *group) write(t testing.TB, file, value string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(g.dirs[0], file), []byte(value), 0o644))
}

func (g *group) limit(t testing.TB, quota, period time.Duration) {
	t.Helper()
	if g.v2 {
		g.write(t, "cpu.max", fmt.Sprint(quota.Microseconds(), " ", period.Microseconds()))
		return
	}
	g.write(t, "cpu.cfs_period_us", fmt.Sprint(period.Microseconds()))
	g.write(t, "cpu.cfs_quota_us", fmt.Sprint(quota.Microseconds()))
}

// favour has it that the limit holds the group back, not the rest of a busy machine.
func (g *group) favour(t testing.TB) {
	t.Helper()
	if g.v2 {
		g.write(t, "cpu.weight", "10000")
		return
	}
	g.write(t, "cpu.shares", "262144")
}

// stat is the kernel's own account.
type stat struct {
	periods, throttledPeriods int
	throttled, used           time.Duration
}

func (g *group) stat(t testing.TB) stat {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dirs[0], "cpu.stat"))
	require.NoError(t, err)
	values := make(map[string]int64)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[key], err = strconv.ParseInt(value, 10, 64)
		require.NoError(t, err)
	}
	s := stat{
		periods: int(values["nr_periods"]), throttledPeriods: int(values["nr_throttled"]),
		throttled: time.Duration(values["throttled_time"] + 1000*values["throttled_usec"]),
		used:      time.Duration(1000 * values["usage_usec"]),
	}
	if !g.v2 {
		b, err := os.ReadFile(filepath.Join(g.dirs[len(g.dirs)-1], "cpuacct.usage"))
		require.NoError(t, err)
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		require.NoError(t, err)
		s.used = time.Duration(n)
	}
	return s
}

// process is a child in a cgroup.
type process struct {
	pid int
	in  io.WriteCloser
	out *bufio.Scanner
}

func (g *group) start(t testing.TB) *process {
	t.Helper()
	return g.run(t, orders())
}

// orders is this binary as a child.
func orders() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=orders", "GOMAXPROCS=8", "GOGC=off")
	return cmd
}

// run starts a command that reads a line before it does anything.
func (g *group) run(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, dir := range g.dirs {
		move(t, dir, cmd.Process.Pid)
	}
	return &process{pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out)}
}

// move puts a process into a cgroup. While one of its threads has yet to run, old kernels
// refuse that (cpu_cgroup_can_attach).
func move(t testing.TB, dir string, pid int) {
	t.Helper()
	var err error
	for range 100 {
		err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
		if !errors.Is(err, unix.EINVAL) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(t, err)
}

func (p *process) order(t testing.TB, format string, args ...any) {
	t.Helper()
	_, err := fmt.Fprintf(p.in, format+"\n", args...)
	require.NoError(t, err)
}

// answer waits for an order to be done.
func (p *process) answer(t testing.TB) int64 {
	t.Helper()
	require.True(t, p.out.Scan(), "the child ended early: %v", p.out.Err())
	n, err := strconv.ParseInt(p.out.Text(), 10, 64)
	require.NoError(t, err)
	return n
}

// waited is sched_info.run_delay of all threads of the process.
func (p *process) waited(t testing.TB) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
	require.NoError(t, err)
	require.NotEmpty(t, files, "the kernel needs CONFIG_SCHED_INFO")
	var sum time.Duration
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		var ran, waited, times int64
		_, err = fmt.Sscan(string(b), &ran, &waited, &times)
		require.NoError(t, err, "%s: %q", file, b)
		sum += time.Duration(waited)
	}
	return sum
}
