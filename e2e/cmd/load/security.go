package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// misbehave does what few containers should, so many times at the start and again each
// time that it is told to burst. Whether the kernel lets it makes no difference.
func misbehave(kind string, times int, told <-chan struct{}, quiet func() bool) error {
	do, ok := map[string]func(){
		"unshare": func() { _ = unix.Unshare(unix.CLONE_NEWUTS) },
		"ptrace":  func() { _, _, _ = unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1<<30, 0, 0, 0, 0) },
		"module":  func() { _ = unix.InitModule([]byte("none"), "") },
	}[kind]
	if !ok {
		return fmt.Errorf("-misbehave=%s: want unshare, ptrace or module", kind)
	}
	for {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // which ends with what it did to itself
			for range times {
				do()
			}
		}()
		<-done
		<-told
		for quiet() {
			<-told
		}
	}
}
