// Package throttled makes cgroups that the kernel really throttles: a CPU quota,
// and a process that wants more than that. It takes root and a cgroup hierarchy
// that may be written, v1 or v2.
package throttled

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	root   = "/sys/fs/cgroup"
	period = 100 * time.Millisecond
)

// Group is a cgroup at the top of the hierarchy and the one busy process in it.
type Group struct {
	name  string
	stats string // its cpu.stat
	dirs  []string
	work  *exec.Cmd
	gate  io.WriteCloser
}

// Stat is what the kernel's cpu.stat counts from the making of the cgroup.
type Stat struct {
	Periods, Throttled uint64
}

// New makes the cgroup name with a quota per 100 ms and puts a process into it,
// which waits for Work. It runs command, or without one uses all CPU that it gets.
func New(name string, quota time.Duration, command ...string) (_ *Group, err error) {
	g := &Group{name: name}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	cpu := filepath.Join(root, name)
	limits := map[string]string{"cpu.max": fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())}
	dirs := []string{cpu}
	if v1 := filepath.Join(root, "cpu"); exists(filepath.Join(v1, "cgroup.procs")) {
		cpu = filepath.Join(v1, name)
		dirs = []string{cpu}
		limits = map[string]string{
			"cpu.cfs_period_us": fmt.Sprint(period.Microseconds()),
			"cpu.cfs_quota_us":  fmt.Sprint(quota.Microseconds()),
		}
		if !exists(filepath.Join(v1, "cpuacct.usage")) { // cpuacct is a hierarchy of its own
			dirs = append(dirs, filepath.Join(root, "cpuacct", name))
		}
	} else if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0o644); err != nil {
		return nil, fmt.Errorf("enabling the cpu controller: %w", err)
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making a cgroup (run as root, where cgroups may be written): %w", err)
		}
		g.dirs = append(g.dirs, dir)
	}
	g.stats = filepath.Join(cpu, "cpu.stat")
	for file, limit := range limits {
		if err := os.WriteFile(filepath.Join(cpu, file), []byte(limit), 0o644); err != nil {
			return nil, fmt.Errorf("setting the quota: %w", err)
		}
	}
	g.work = exec.Command("sh", append([]string{"-c", `read -r _ && { [ $# = 0 ] || exec "$@"; while :; do :; done; }`, "sh"}, command...)...)
	g.work.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if g.gate, err = g.work.StdinPipe(); err != nil {
		return nil, fmt.Errorf("making the workload's gate: %w", err)
	}
	if err := g.work.Start(); err != nil {
		return nil, fmt.Errorf("starting the workload: %w", err)
	}
	return g, g.Join(g.work.Process.Pid)
}

// Join puts a process of the caller's into the cgroup; Close does not end it.
func (g *Group) Join(pid int) error {
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0o644); err != nil {
			return fmt.Errorf("putting the workload into its cgroup: %w", err)
		}
	}
	return nil
}

// Path is the cgroup's path below the hierarchy's root.
func (g *Group) Path() string { return "/" + g.name }

// Work lets the process run, for ever.
func (g *Group) Work() error {
	if _, err := io.WriteString(g.gate, "\n"); err != nil {
		return fmt.Errorf("letting the workload run: %w", err)
	}
	return nil
}

// Rest ends the process; the cgroup stays.
func (g *Group) Rest() {
	if g.work == nil || g.work.Process == nil {
		return
	}
	_ = g.work.Process.Kill()
	_ = g.work.Wait() // killed
	g.work = nil
}

// Stat reads the kernel's own file.
func (g *Group) Stat() (Stat, error) {
	content, err := os.ReadFile(g.stats)
	if err != nil {
		return Stat{}, fmt.Errorf("reading what the kernel counts: %w", err)
	}
	var s Stat
	for line := range strings.Lines(string(content)) {
		for field, into := range map[string]*uint64{"nr_periods ": &s.Periods, "nr_throttled ": &s.Throttled} {
			if v, ok := strings.CutPrefix(line, field); ok {
				if _, err := fmt.Sscan(v, into); err != nil {
					return Stat{}, fmt.Errorf("reading %s: %q: %w", g.stats, line, err)
				}
			}
		}
	}
	return s, nil
}

// Close ends the process and removes the cgroup. It may be called twice.
func (g *Group) Close() error {
	g.Rest()
	var errs []error
	for _, dir := range g.dirs {
		errs = append(errs, Remove(dir))
	}
	g.dirs = nil
	return errors.Join(errs...)
}

// Remove removes a cgroup whose processes have ended, if it is there.
func Remove(dir string) (err error) {
	for range 100 { // the kernel takes a moment to let the last thread go
		if err = syscall.Rmdir(dir); err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("removing cgroup %s: %w", dir, err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
