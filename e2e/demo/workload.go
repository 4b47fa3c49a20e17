package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	groupName  = "kernel-gossip-demo"
	quota      = 40 * time.Millisecond // of each period: a limit of 400m
	period     = 100 * time.Millisecond
	threads    = 2
	busy       = 3 * time.Second
	idle       = 4500 * time.Millisecond
	burstArg   = "burst"
	cgroupRoot = "/sys/fs/cgroup"
)

// burst is the workload: it works for three seconds with two threads, as a batch of
// requests would make it, and rests for four and a half. While it works it is
// throttled in every period; over 15 s it uses less than half of its limit.
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
	dir  string // in the cpu controller's hierarchy
	also string // on cgroup v1 cpuacct, which counts the use, may be a hierarchy of its own
	cmd  *exec.Cmd
}

func startWorkload() (_ *workload, err error) {
	w := &workload{dir: filepath.Join(cgroupRoot, groupName)}
	files := map[string]string{"cpu.max": fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())}
	if v1 := filepath.Join(cgroupRoot, "cpu"); exists(filepath.Join(v1, "cgroup.procs")) {
		w.dir = filepath.Join(v1, groupName)
		files = map[string]string{
			"cpu.cfs_period_us": fmt.Sprint(period.Microseconds()),
			"cpu.cfs_quota_us":  fmt.Sprint(quota.Microseconds()),
		}
		if acct := filepath.Join(cgroupRoot, "cpuacct"); !exists(filepath.Join(v1, "cpuacct.usage")) {
			w.also = filepath.Join(acct, groupName)
		}
	} else if err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+cpu"), 0o644); err != nil {
		return nil, fmt.Errorf("enable the cpu controller: %w", err)
	}
	for _, dir := range w.dirs() {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make a cgroup (run as root, outside a container): %w", err)
		}
	}
	defer func() {
		if err != nil {
			w.stop()
		}
	}()
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(value), 0o644); err != nil {
			return nil, fmt.Errorf("set the quota: %w", err)
		}
	}
	w.cmd = exec.Command("/proc/self/exe", burstArg)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	gate, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the workload: %w", err)
	}
	for _, dir := range w.dirs() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(w.cmd.Process.Pid)), 0o644); err != nil {
			return nil, fmt.Errorf("put the workload into its cgroup: %w", err)
		}
	}
	_, err = gate.Write([]byte{'\n'})
	return w, err
}

// stat is the kernel's own figure, read beside the exporter.
func (w *workload) stat(field string) (n uint64) {
	b, err := os.ReadFile(filepath.Join(w.dir, "cpu.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+" "); ok {
			_, _ = fmt.Sscan(v, &n)
		}
	}
	return n
}

func (w *workload) stop() {
	if w.cmd != nil && w.cmd.Process != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
	}
	for _, dir := range w.dirs() {
		var err error
		for range 50 { // the kernel takes a moment to let the last thread go
			if err = syscall.Rmdir(dir); err == nil || errors.Is(err, syscall.ENOENT) {
				err = nil
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "left behind: %s: %v\n", dir, err)
		}
	}
}

func (w *workload) dirs() []string {
	if w.also == "" {
		return []string{w.dir}
	}
	return []string{w.dir, w.also}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
