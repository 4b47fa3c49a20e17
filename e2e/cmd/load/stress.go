package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// stress runs stress-ng with these arguments until it ends, or is to be calm. One
// whose children are killed for want of memory ends as it likes: what the kernel did to
// them is what it is for.
func stress(args string, quiet *atomic.Bool) error {
	cmd := exec.Command("stress-ng", strings.Fields(args)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting stress-ng: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !quiet.Load() {
		select {
		case err := <-ended:
			quiet.Store(true)
			return ran(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	// All of its group: who writes files is its child, and removes them when told to end.
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("ending stress-ng: %w", err)
	}
	return ran(<-ended)
}

// ran tells an error other than what stress-ng ended with.
func ran(err error) error {
	if _, ended := errors.AsType[*exec.ExitError](err); err == nil || ended {
		return nil
	}
	return fmt.Errorf("running stress-ng: %w", err)
}
