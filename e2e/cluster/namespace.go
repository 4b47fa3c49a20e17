package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// insideEnv marks the process that runs in namespaces of its own.
const insideEnv = "KERNEL_GOSSIP_BED"

// groupName is the cgroup below which the bed's kubelet works.
const groupName = "kernel-gossip-e2e"

// Isolate runs the calling binary again in mount, PID and network namespaces of its
// own, where it is Inside, and exits with its code. When the inner process ends, the
// kernel ends every process of its PID namespace, so nothing outlives a run however it
// ends. Then after is called with the exit code, and what is left of the run in spite of
// that: either changes it to a failure. dir is the run's working directory, which after
// removes. SIGTERM is passed on; the inner process gets a terminal's SIGINT by itself.
//
// A run must hold the machine's only Lock.
func Isolate(dir string, after func(code int), say func(format string, args ...any)) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the cluster bed needs root: it makes namespaces and cgroups (run with sudo)")
		os.Exit(1)
	}
	made, err := makeGroups()
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare cgroups for kubelet:", err)
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	var spaces []string
	if err = cmd.Start(); err == nil {
		spaces = namespacesOf(cmd.Process.Pid)
		say("to look in from another terminal: sudo nsenter -t %d -m -p -n", cmd.Process.Pid)
		go func() {
			for s := range signals {
				if s == syscall.SIGTERM {
					_ = cmd.Process.Signal(s)
				}
			}
		}()
		err = cmd.Wait()
	}
	for _, dir := range made {
		removeGroup(dir)
	}
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "start in namespaces:", err)
		code = 1
	}
	after(code)
	if left := leftovers(dir, spaces); len(left) > 0 {
		say("left behind: %s", strings.Join(left, "; "))
		code = max(code, 1)
	} else {
		say("all taken down: no process, namespace, cgroup, mount or file of this run is left")
	}
	os.Exit(code)
}

// Inside tells whether this process is the inner one.
func Inside() bool { return os.Getenv(insideEnv) != "" }

// cgroupV1 tells whether the cpu controller is on a v1 hierarchy here.
func cgroupV1() bool {
	_, err := os.Stat("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
	if err == nil {
		return true
	}
	_, err = os.Stat("/sys/fs/cgroup/cpu/tasks")
	return err == nil
}

// controllersV1 are the directories of v1 hierarchies below /sys/fs/cgroup.
var controllersV1 = [...]string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"}

// The shares of CPU time: of the bed beside what else the machine does, which must not
// starve it, and of the control plane beside the pods, to which the kubelet gives 1024
// a CPU. Neither must starve the other.
const (
	bedShares     = 16384
	controlShares = 3072
)

// controlGroup is the cgroup below groupName for all of the bed but its pods.
const controlGroup = "control"

func makeGroups() ([]string, error) {
	// Where v2 stands beside v1, runc makes its cgroups there too.
	made := []string{filepath.Join("/sys/fs/cgroup/unified", groupName)}
	if !cgroupV1() {
		dir := filepath.Join("/sys/fs/cgroup", groupName)
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +cpuset +memory +pids"), 0o644); err != nil {
			return nil, fmt.Errorf("enable controllers: %w", err)
		}
		if err := os.MkdirAll(filepath.Join(dir, controlGroup), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu +cpuset +memory +pids"), 0o644); err != nil {
			return []string{dir}, fmt.Errorf("enable controllers: %w", err)
		}
		// Shares as the kubelet converts them: 1024 are 39.
		return []string{dir}, errors.Join(
			os.WriteFile(filepath.Join(dir, "cpu.weight"), []byte("1600"), 0o644),
			os.WriteFile(filepath.Join(dir, controlGroup, "cpu.weight"), []byte("117"), 0o644))
	}
	for _, c := range controllersV1 {
		root := filepath.Join("/sys/fs/cgroup", c)
		if _, err := os.Stat(filepath.Join(root, "tasks")); err != nil {
			continue
		}
		dir := filepath.Join(root, groupName)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return made, err
		}
		made = append(made, dir)
		if slices.Contains(controlledV1, c) {
			if err := os.MkdirAll(filepath.Join(dir, controlGroup), 0o755); err != nil {
				return made, err
			}
		}
		switch c {
		case "cpu":
			if err := errors.Join(
				os.WriteFile(filepath.Join(dir, "cpu.shares"), fmt.Append(nil, bedShares), 0o644),
				os.WriteFile(filepath.Join(dir, controlGroup, "cpu.shares"), fmt.Append(nil, controlShares), 0o644)); err != nil {
				return made, err
			}
		case "cpuset":
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				b, err := os.ReadFile(filepath.Join(root, f))
				if err != nil {
					return made, err
				}
				if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
					return made, err
				}
			}
		}
	}
	return made, nil
}

// controlledV1 are the hierarchies of which the kubelet wants to be in the same group.
var controlledV1 = []string{"cpu", "cpuacct", "memory"}

// joinControl moves this process, and with it all that it will start, into the control
// group.
func joinControl() error {
	dirs := []string{filepath.Join("/sys/fs/cgroup", groupName, controlGroup)}
	if cgroupV1() {
		dirs = nil
		for _, c := range controlledV1 {
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", c, groupName, controlGroup))
		}
	}
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join the control plane's cgroup: %w", err)
		}
	}
	return nil
}

// removeGroup removes a tree of empty cgroups, the deepest first.
func removeGroup(dir string) {
	var dirs []string
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		for range 50 { // the kernel takes a moment to let the last process go
			if err := syscall.Rmdir(dirs[i]); !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// settle makes the mount and network namespaces a node's: private overlays where
// kubelet and containerd write, so that nothing is written on the machine.
func settle(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// A new sysfs, so that /sys/class/net is this network namespace's; the cgroup tree moves over.
	if err := os.MkdirAll(filepath.Join(dir, "cg"), 0o755); err != nil {
		return err
	}
	for _, m := range []string{"/var/lib", "/var/log", "/opt", "/usr/libexec", "/etc"} {
		if err := overlay(dir, m); err != nil {
			return fmt.Errorf("overlay %s: %w", m, err)
		}
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, d := range []string{"/run/lock", "/run/containerd", "/run/xtables"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// kubelet writes these; stand-ins keep the machine's own as they are.
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10",
		"kernel/panic_on_oops": "1", "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		stand := filepath.Join(dir, "sysctl."+strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(stand, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue
		}
		if err := syscall.Mount(stand, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("stand-in for %s: %w", target, err)
		}
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", dnsIP + "/32", "dev", "lo"},
		{"tuntap", "add", "dev", Tap, "mode", "tap"},
		{"addr", "add", nodeIP + "/24", "dev", Tap},
		{"link", "set", Tap, "up"},
		{"route", "add", "default", "dev", Tap},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, s := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		_ = os.WriteFile(filepath.Join("/proc/sys", s), []byte("1"), 0o644)
	}
	return nil
}

func overlay(dir, target string) error {
	base := filepath.Join(dir, "ov", strings.ReplaceAll(target[1:], "/", "_"))
	upper, work := filepath.Join(base, "u"), filepath.Join(base, "w")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return syscall.Mount("overlay", target, "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work))
}
