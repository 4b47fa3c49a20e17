// Package terminal runs a program in a terminal of its own: a Linux pseudoterminal
// (pty(7)), with a size, and keys to press.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is one with a program in it.
type Terminal struct {
	cmd    *exec.Cmd
	master *os.File
	read   chan struct{} // closed when the program's end has let go

	mu  sync.Mutex
	out strings.Builder
}

// Start runs cmd in a terminal of that size. Its end is awaited by Wait.
func Start(cmd *exec.Cmd, columns, rows uint16) (*Terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	slave, err := other(master)
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("opening the terminal's other end: %w", err)
	}
	defer slave.Close()
	t := &Terminal{cmd: cmd, master: master, read: make(chan struct{})}
	if err := t.Resize(columns, rows); err != nil {
		master.Close()
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		master.Close()
		return nil, err
	}
	go t.listen()
	return t, nil
}

// other opens the end that the program gets.
func other(master *os.File) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
}

func (t *Terminal) listen() {
	defer close(t.read)
	buf := make([]byte, 32<<10)
	for {
		n, err := t.master.Read(buf)
		t.mu.Lock()
		t.out.Write(buf[:n])
		t.mu.Unlock()
		if err != nil {
			return // EIO: the other end is closed
		}
	}
}

// Resize gives the terminal another size, which tells the program by SIGWINCH.
func (t *Terminal) Resize(columns, rows uint16) error {
	if err := unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		return fmt.Errorf("setting the terminal's size: %w", err)
	}
	return nil
}

// Press sends keys as a terminal does.
func (t *Terminal) Press(keys string) error {
	_, err := t.master.WriteString(keys)
	return err
}

// Output is all that the program has written.
func (t *Terminal) Output() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.String()
}

// Screen is what it wrote since it last went to the top left corner (ECMA-48's CUP),
// once it has drawn the whole of it, down to the erasing of what is below.
func (t *Terminal) Screen() string {
	frames := strings.Split(t.Output(), "\x1b[H")
	for i := len(frames) - 1; i > 0; i-- {
		if drawn, _, whole := strings.Cut(frames[i], "\x1b[J"); whole {
			return drawn
		}
	}
	return ""
}

// Echoes tells whether the terminal shows what is typed and waits for whole lines, as
// it does before and after a program that takes it over.
func (t *Terminal) Echoes() (bool, error) {
	settings, err := unix.IoctlGetTermios(int(t.master.Fd()), unix.TCGETS)
	if err != nil {
		return false, fmt.Errorf("asking the terminal for its settings: %w", err)
	}
	const usual = unix.ECHO | unix.ICANON
	return settings.Lflag&usual == usual, nil
}

// Wait waits for the program's end; ctx's end kills it.
func (t *Terminal) Wait(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- t.cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = errors.Join(ctx.Err(), t.cmd.Process.Kill(), <-ended)
	}
	<-t.read
	return err
}

// Close gives the terminal up. The program gets SIGHUP.
func (t *Terminal) Close() error { return t.master.Close() }
