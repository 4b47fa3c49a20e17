package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	groupName  = "kernel-gossip-demo"
	quota      = 20 * time.Millisecond // of each period: a limit of 200m
	period     = 100 * time.Millisecond
	threads    = 2
	busy       = 3600 * time.Millisecond
	idle       = 3900 * time.Millisecond
	burstArg   = "burst"
	cgroupRoot = "/sys/fs/cgroup"
)

// burst is the workload: it works with two threads, as a batch of requests would
// make it, and rests a little longer. While it works it is throttled in every
// period; over 15 s, which is two rounds, it uses less than half of its limit.
func burst() {
	// The parent puts this process into its cgroup, then lets go.
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return
	}
	for {
		end := time.Now().Add(busy)
		done := make(chan struct{})
		for range threads {
			go func() {
				for time.Now().Before(end) {
					syscall.Getppid()
				}
				done <- struct{}{}
			}()
		}
		for range threads {
			<-done
		}
		time.Sleep(idle)
	}
}

// workload is the cgroup and the process in it.
type workload struct {
	name    string // of the cgroup
	version int    // of cgroups
	dir     string // in the cpu controller's hierarchy
	also    string // on cgroup v1 cpuacct, which counts the use, may be a hierarchy of its own
	cmd     *exec.Cmd
	gate    func() error
}

var _ source = (*workload)(nil)

// newWorkload makes the cgroup with its quota, and a process in it that waits.
func newWorkload() (_ *workload, err error) {
	w := &workload{version: 2}
	top := cgroupRoot
	// Ten times the usual weight, so that it is the limit that holds it back and not
	// what else runs on this machine.
	files := map[string]string{
		"cpu.max":    fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds()),
		"cpu.weight": "1000",
	}
	if v1 := filepath.Join(cgroupRoot, "cpu"); exists(filepath.Join(v1, "cgroup.procs")) {
		w.version, top = 1, v1
		files = map[string]string{
			"cpu.cfs_period_us": fmt.Sprint(period.Microseconds()),
			"cpu.cfs_quota_us":  fmt.Sprint(quota.Microseconds()),
			"cpu.shares":        "10240",
		}
	} else if err := enableCPU(); err != nil {
		return nil, fmt.Errorf("the cpu controller can't be enabled: %w", err)
	}
	if err := w.mkdir(top); err != nil {
		return nil, fmt.Errorf("no cgroup can be made: %w", err)
	}
	defer func() {
		if err != nil {
			_ = w.stop() // the first error says more
		}
	}()
	if acct := filepath.Join(cgroupRoot, "cpuacct"); w.version == 1 && !exists(filepath.Join(top, "cpuacct.usage")) {
		w.also = filepath.Join(acct, w.name)
		if err := os.Mkdir(w.also, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("no cgroup can be made: %w", err)
		}
	}
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(value), 0o644); err != nil {
			return nil, fmt.Errorf("no CPU limit can be set: %w", err)
		}
	}
	w.cmd = exec.Command("/proc/self/exe", burstArg)
	ownGroup(w.cmd)
	gate, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to the workload: %w", err)
	}
	w.gate = func() error {
		_, err := gate.Write([]byte{'\n'})
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the workload: %w", err)
	}
	for _, dir := range w.dirs() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, w.cmd.Process.Pid), 0o644); err != nil {
			return nil, fmt.Errorf("no process can be put into a cgroup: %w", err)
		}
	}
	return w, nil
}

// mkdir makes the cgroup under a name that no other demo has.
func (w *workload) mkdir(top string) error {
	for n := 1; ; n++ {
		w.name = groupName
		if n > 1 {
			w.name = fmt.Sprintf("%s-%d", groupName, n)
		}
		w.dir = filepath.Join(top, w.name)
		if err := os.Mkdir(w.dir, 0o755); n == 100 || !errors.Is(err, os.ErrExist) {
			return err
		}
	}
}

// enableCPU lets cgroups below the root have the cpu controller (cgroup v2).
func enableCPU() error {
	file := filepath.Join(cgroupRoot, "cgroup.subtree_control")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for c := range strings.FieldsSeq(string(b)) {
		if c == "cpu" {
			return nil
		}
	}
	return os.WriteFile(file, []byte("+cpu"), 0o644)
}

func (w *workload) container() string      { return "/" + w.name }
func (w *workload) exporterArgs() []string { return nil }

func (w *workload) begin() error {
	if err := w.gate(); err != nil {
		return fmt.Errorf("let the workload begin: %w", err)
	}
	return nil
}

func (w *workload) stat(field string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(w.dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	return statField(b, field)
}

// statField finds a line such as "nr_periods 65".
func statField(file []byte, field string) (uint64, error) {
	for line := range strings.Lines(string(file)) {
		if v, ok := strings.CutPrefix(line, field+" "); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("cpu.stat has no %s", field)
}

func (w *workload) stop() error {
	if w.cmd != nil && w.cmd.Process != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		w.cmd = nil
	}
	var left error
	for _, dir := range w.dirs() {
		err := syscall.Rmdir(dir)
		for range 100 { // the kernel takes a moment to let the last thread go
			if !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(20 * time.Millisecond)
			err = syscall.Rmdir(dir)
		}
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			left = errors.Join(left, fmt.Errorf("left behind: %s: %w", dir, err))
		}
	}
	return left
}

func (w *workload) dirs() []string {
	if w.also == "" {
		return []string{w.dir}
	}
	return []string{w.dir, w.also}
}

// platform names the kernel, the processors and the cgroup version.
func platform(cgroupVersion int) string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("of unknown version")
	}
	return fmt.Sprintf("Linux %s, %d CPUs, cgroup v%d", strings.TrimSpace(string(release)), runtime.NumCPU(), cgroupVersion)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
