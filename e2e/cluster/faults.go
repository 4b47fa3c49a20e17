package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// RestartKubelet kills the kubelet and starts it again; it returns at once.
func (c *Cluster) RestartKubelet(context.Context) error {
	if err := c.Kubelet.Kill(); err != nil {
		return err
	}
	return c.Kubelet.Start()
}

// StopAPI ends kube-apiserver alone.
func (c *Cluster) StopAPI() error { return c.APIServer.Kill() }

// StartAPI starts kube-apiserver again and returns when it is ready. The controllers and the
// scheduler start anew as well: they have no lease here, at whose loss they would end.
func (c *Cluster) StartAPI(ctx context.Context) error {
	if err := c.APIServer.Start(); err != nil {
		return err
	}
	if err := c.WaitAPI(ctx); err != nil {
		return err
	}
	for _, p := range []*Process{c.ControllerManager, c.Scheduler} {
		if err := errors.Join(p.Kill(), p.Start()); err != nil {
			return err
		}
	}
	return nil
}

// StaticPods is the directory that the kubelet reads static pods from.
func (c *Cluster) StaticPods() string { return c.path("manifests") }

// Traces is the directory of what strace saw of runc, a file for each call.
func (c *Cluster) Traces() string { return c.path("traces") }

// Kill sends SIGKILL to the processes of a pod that run the named program.
func (c *Cluster) Kill(podUID, program string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	killed := 0
	for _, dir := range dirs {
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || filepath.Base(exe) != program {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(groups), podUID) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %s (%d): %w", program, pid, err)
		}
		killed++
	}
	if killed == 0 {
		return fmt.Errorf("kill %s: pod %s runs none", program, podUID)
	}
	return nil
}
