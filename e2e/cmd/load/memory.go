package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

// memoryLoad does what was asked for with memory; only a sacrifice returns.
func memoryLoad(churned, hogged, lamb int, quiet *atomic.Bool) error {
	switch {
	case churned > 0:
		return churn(churned, quiet)
	case hogged > 0:
		return hog(hogged)
	case lamb > 0:
		return sacrifice(lamb)
	}
	return nil
}

// churn writes to so many bytes again and again and gives them up each time
// (MADV_FREE), so that a limit below that makes the kernel reclaim them, without swap
// and without a disk.
func churn(bytes int, quiet *atomic.Bool) error {
	const chunk = 1 << 20
	memory, err := mapped(bytes)
	if err != nil {
		return err
	}
	for {
		for i := 0; i+chunk <= len(memory); i += chunk {
			for quiet.Load() {
				time.Sleep(50 * time.Millisecond)
			}
			touch(memory[i : i+chunk])
			if err := syscall.Madvise(memory[i:i+chunk], madvFree); err != nil {
				return fmt.Errorf("giving up memory: %w", err)
			}
		}
	}
}

const madvFree = 8 // MADV_FREE, include/uapi/asm-generic/mman-common.h

// hog writes to so many bytes and keeps them.
func hog(bytes int) error {
	memory, err := mapped(bytes)
	if err != nil {
		return err
	}
	touch(memory)
	select {}
}

// sacrifice has a child hog so many bytes, and returns when that has ended: killed, as
// it is to be.
func sacrifice(bytes int) error {
	child := exec.Command("/proc/self/exe", fmt.Sprintf("-hog=%d", bytes))
	child.Stderr = os.Stderr
	err := child.Run()
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("the child was to be killed: %w", err)
	}
	return nil
}

func mapped(bytes int) ([]byte, error) {
	memory, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("asking for %d bytes: %w", bytes, err)
	}
	return memory, nil
}

func touch(memory []byte) {
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
}
