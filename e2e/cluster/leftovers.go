package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// workPrefix begins the name of each run's working directory.
const workPrefix = "kernel-gossip-e2e-"

// WorkDir makes a run's working directory.
func WorkDir() (string, error) {
	dir, err := os.MkdirTemp("", workPrefix)
	if err != nil {
		return "", fmt.Errorf("making the working directory: %w", err)
	}
	return dir, nil
}

// Lock waits until no other run of the bed goes on, for two would share cgroups, and
// removes what one that was killed has left. The lock ends with the process.
func Lock(ctx context.Context, say func(format string, args ...any)) error {
	path := filepath.Join(os.TempDir(), "kernel-gossip-e2e.lock")
	// Never closed: it is open for as long as the process lives.
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("opening the lock of this machine's runs: %w", err)
	}
	for waits := false; ; {
		err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("locking %s: %w", path, err)
		}
		if !waits {
			waits = true
			say("another run goes on: waiting for its end (%s)", path)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another run's end: %w", context.Cause(ctx))
		case <-time.After(time.Second):
		}
	}
	stale, err := filepath.Glob(filepath.Join(os.TempDir(), workPrefix+"*"))
	if err != nil {
		return err
	}
	stale = slices.DeleteFunc(stale, func(dir string) bool { info, err := os.Stat(dir); return err != nil || !info.IsDir() })
	for _, dir := range stale {
		say("removing what a run that was killed left: %s", dir)
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing what a run that was killed left: %w", err)
		}
	}
	for _, dir := range ownGroups() {
		say("removing what a run that was killed left: %s", dir)
		removeGroup(dir)
	}
	return nil
}

// ownGroups are the bed's cgroups that are there.
func ownGroups() []string {
	var found []string
	for _, below := range append(controllersV1[:], "", "unified") {
		dir := filepath.Join("/sys/fs/cgroup", below, groupName)
		if _, err := os.Stat(dir); err == nil {
			found = append(found, dir)
		}
	}
	return found
}

// namespacesOf are a process's mount, PID and network namespaces, as links of /proc
// name them.
func namespacesOf(pid int) []string {
	var spaces []string
	for _, kind := range []string{"mnt", "pid", "net"} {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
			spaces = append(spaces, link)
		}
	}
	return spaces
}

// leftovers says what is still there of a run that has ended: its cgroups, its working
// directory and mounts of it, and processes in its namespaces or mounts of these.
func leftovers(dir string, spaces []string) []string {
	var left []string
	for _, group := range ownGroups() {
		left = append(left, "cgroup "+group)
	}
	if _, err := os.Stat(dir); err == nil {
		left = append(left, "directory "+dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) || slices.ContainsFunc(spaces, func(s string) bool { return strings.Contains(line, s) }) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	// A process that was killed takes a moment to be gone.
	var alive []string
	for range 50 {
		if alive = within(spaces); len(alive) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return append(left, alive...)
}

// within are the processes that are in one of the namespaces.
func within(spaces []string) []string {
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, link := range links {
		if space, err := os.Readlink(link); err == nil && slices.Contains(spaces, space) {
			found = append(found, "process "+strings.Split(link, "/")[2])
		}
	}
	return slices.Compact(found)
}
