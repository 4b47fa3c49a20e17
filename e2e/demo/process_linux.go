package main

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a child into a process group of its own, since Ctrl-C is for this
// program, which ends the rest in order; and lets the kernel end the child should
// this program be killed.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
