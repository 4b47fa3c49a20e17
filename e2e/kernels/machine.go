package kernels

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Emulator is a version of QEMU.
type Emulator struct{ Major, Minor int }

// PatchesText tells whether several emulated CPUs may run while the kernel patches its
// own text, as each attached program makes it do. Before 8.1 QEMU could go on executing
// a breakpoint that was gone, and the guest crashed or hung in every third boot (fixed
// by its commit deba78709ae8, "accel/tcg: Always lock pages before translation").
func (e Emulator) PatchesText() bool { return e.Major > 8 || e.Major == 8 && e.Minor >= 1 }

func (e Emulator) String() string { return fmt.Sprintf("QEMU %d.%d", e.Major, e.Minor) }

// FindEmulator asks the installed QEMU for its version.
func FindEmulator(ctx context.Context) (Emulator, error) {
	out, err := exec.CommandContext(ctx, qemu, "--version").Output()
	if err != nil {
		return Emulator{}, fmt.Errorf("looking for the emulator: %w (Debian's package qemu-system-x86 has it)", err)
	}
	return parseEmulator(string(out))
}

const qemu = "qemu-system-x86_64"

func parseEmulator(said string) (Emulator, error) {
	var e Emulator
	_, version, _ := strings.Cut(said, "version ")
	if _, err := fmt.Sscanf(version, "%d.%d", &e.Major, &e.Minor); err != nil {
		first, _, _ := strings.Cut(said, "\n")
		return e, fmt.Errorf("reading the emulator's version out of %q: %w", first, err)
	}
	return e, nil
}

// Machine is a virtual machine of two emulated CPUs, whose first serial port is its
// console.
type Machine struct {
	Kernel, Initrd string // paths
	CommandLine    string // of the kernel, beside the console and what turns an oops into an end
	MemoryMiB      int
	Threads        string   // of the emulator: multi or single
	Devices        []string // further arguments of QEMU
	Monitor        string   // path for the emulator's control socket
	Silence        time.Duration
	Timeout        time.Duration // 0 for none
	Log            io.Writer     // takes the console
	Line           func(text string)
}

// Hang is the error of a machine that said nothing for too long, or did not end in time.
type Hang struct{ What string }

func (h Hang) Error() string { return "hung: " + h.What }

// Running is a machine that was started.
type Running struct {
	done chan struct{}
	err  error
	stop context.CancelCauseFunc
}

// errStopped is the cause of an end that was asked for.
var errStopped = errors.New("stopped")

// Start starts the emulator. It ends with ctx, with Stop, when the guest powers off or
// panics, and when it hangs.
func (m Machine) Start(ctx context.Context) (*Running, error) {
	free := func() {}
	if m.Timeout > 0 {
		ctx, free = context.WithTimeoutCause(ctx, m.Timeout, Hang{fmt.Sprintf("no end after %s", m.Timeout)})
	}
	ctx, stop := context.WithCancelCause(ctx)
	cmd := exec.CommandContext(ctx, qemu, append([]string{
		"-accel", "tcg,thread=" + m.Threads, "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(m.MemoryMiB),
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-monitor", "unix:" + m.Monitor + ",server=on,wait=off",
		"-kernel", m.Kernel, "-initrd", m.Initrd, "-append", commandLine + " " + m.CommandLine,
	}, m.Devices...)...)
	cmd.Stderr = m.Log
	cmd.WaitDelay = 5 * time.Second
	console, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		stop(err)
		free()
		return nil, fmt.Errorf("starting the emulator: %w", err)
	}
	r := &Running{done: make(chan struct{}), stop: stop}
	go func() {
		defer close(r.done)
		defer os.Remove(m.Monitor)
		defer free()
		read := m.read(ctx, console, stop)
		r.err = errors.Join(read, cmd.Wait())
		if cause := context.Cause(ctx); cause != nil {
			r.err = cause
		} else if r.err != nil {
			r.err = fmt.Errorf("emulator ended: %w", r.err)
		}
	}()
	return r, nil
}

const commandLine = "console=ttyS0 loglevel=5 panic=-1 oops=panic unknown_nmi_panic softlockup_panic=1 softlockup_all_cpu_backtrace=1"

// read takes the console to its end.
func (m Machine) read(ctx context.Context, console io.Reader, stop context.CancelCauseFunc) error {
	silence := time.AfterFunc(m.Silence, func() {
		if err := askWhere(ctx, m.Monitor, m.Log); err != nil {
			_, _ = fmt.Fprintln(m.Log, "asking the emulator where the guest is:", err)
		}
		stop(Hang{fmt.Sprintf("silent for %s", m.Silence)})
	})
	defer silence.Stop()
	scanner := bufio.NewScanner(console)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		silence.Reset(m.Silence)
		_, _ = fmt.Fprintln(m.Log, scanner.Text())
		m.Line(scanner.Text())
	}
	return scanner.Err()
}

// Done is closed when the machine has ended.
func (r *Running) Done() <-chan struct{} { return r.done }

// Wait waits for the machine's end, and tells what ended it other than the guest: a
// Hang, the cause of the context's end, or the emulator's fault.
func (r *Running) Wait() error {
	<-r.done
	if errors.Is(r.err, errStopped) {
		return nil
	}
	return r.err
}

// Stop ends the machine as pulling its plug would.
func (r *Running) Stop() {
	r.stop(errStopped)
	<-r.done
}

// askWhere writes to the log where a guest is that hangs: the registers of its CPUs,
// and, by a non-maskable interrupt that ends in a panic, the stack of one.
func askWhere(ctx context.Context, socket string, log io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(conn, "info registers -a\nnmi\n"); err != nil {
		return err
	}
	// The monitor stays open: its answer ends with the deadline, or with the guest.
	if _, err := io.Copy(log, conn); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
