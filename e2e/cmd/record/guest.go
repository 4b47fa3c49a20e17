package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/kernels"
)

//go:embed guest.sh
var guestScript []byte

// recordInGuest records on one of Debian's kernels in QEMU: cgroup v2, with the
// pressure and the hooks that this machine's own kernel may not have.
func recordInGuest(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "kernel-gossip-record-")
	if err != nil {
		return fmt.Errorf("making a working directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	script, data := filepath.Join(dir, "guest.sh"), filepath.Join(dir, "data")
	arguments := fmt.Sprintf("set -- -interval %s -length %s -instance %s\n", o.interval, o.length, o.instance)
	if err := errors.Join(os.WriteFile(script, guestScript, 0o755), os.Mkdir(data, 0o755),
		os.WriteFile(filepath.Join(data, "arguments"), []byte(arguments), 0o644)); err != nil {
		return fmt.Errorf("preparing the guest: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name, path := range map[string]string{
		"record": self, "kernel-gossip-exporter": filepath.Join(o.bin, "kernel-gossip-exporter"),
		"kernel-gossip-operator": filepath.Join(o.bin, "kernel-gossip-operator"),
	} {
		if err := copyFile(filepath.Join(data, name), path); err != nil {
			return err
		}
	}

	runner, err := newRunner(ctx, dir, script, data)
	if err != nil {
		return err
	}
	runner.Silence, runner.Timeout = o.length+time.Minute, o.length+5*time.Minute
	result, err := runner.Do(ctx, kernels.Boot{Name: "record", Kernel: o.kernel})
	if err != nil {
		return err
	}
	last := result.Last()
	if last.Fault != "" || last.Console.Code != 0 {
		log, _ := os.ReadFile(last.Log)
		return fmt.Errorf("recording in the guest: %s, code %d; its console ends with\n%s", last.Fault, last.Console.Code, log[max(0, len(log)-2000):])
	}
	return extract(last.Log, o.out)
}

func newRunner(ctx context.Context, dir, script, data string) (*kernels.Runner, error) {
	cache, err := kernels.UserCache(ctx, kernels.Mirrors{}, os.Stderr)
	if err != nil {
		return nil, err
	}
	busybox, err := cache.Busybox(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetching busybox: %w", err)
	}
	initramfs := kernels.Initramfs{Busybox: busybox, Test: script, Data: data}
	return &kernels.Runner{Cache: cache, Initramfs: initramfs, Logs: dir, Progress: os.Stderr, Single: true}, nil
}

// extract writes what the guest printed of its recording.
func extract(console, out string) (err error) {
	log, err := os.Open(console)
	if err != nil {
		return fmt.Errorf("reading the guest's console: %w", err)
	}
	defer log.Close()
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("writing the recording: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines, n := bufio.NewScanner(log), 0
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line, ok := strings.CutPrefix(strings.TrimRight(lines.Text(), "\r"), "KG-RECORDING "); ok {
			n++
			if _, err := fmt.Fprintln(f, line); err != nil {
				return fmt.Errorf("writing the recording: %w", err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the guest's console: %w", err)
	}
	if n == 0 {
		return errors.New("the guest printed no recording")
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying a program for the guest (make build makes it): %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copying a program for the guest: %w", err)
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
