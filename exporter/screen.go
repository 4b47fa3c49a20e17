package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// screen is where top shows itself: a terminal, with keys and a size, or anything else.
type screen struct {
	out     io.Writer
	tty     *os.File // nil: not a terminal
	keys    <-chan byte
	restore *unix.Termios
}

// openScreen takes the terminal over if out and standard input are one. close must be
// called, or the user is left with a terminal that does not show what is typed.
func openScreen(ctx context.Context, out io.Writer) (*screen, error) {
	s := &screen{out: out}
	file, ok := out.(*os.File)
	if !ok {
		return s, nil
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return s, nil //nolint:nilerr // not a terminal
	}
	before, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	if err != nil {
		return s, nil //nolint:nilerr // no keys; what is shown can be shown
	}
	// Keys at once and unseen; ^C stays a signal.
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &now); err != nil {
		return nil, fmt.Errorf("taking keys from the terminal: %w", err)
	}
	s.tty, s.restore = file, before
	keys := make(chan byte)
	s.keys = keys
	go func() { // ends with the process at the latest: a read of a terminal can't be called off
		var key [1]byte
		for {
			if n, err := os.Stdin.Read(key[:]); n == 0 || err != nil {
				return
			}
			select {
			case keys <- key[0]:
			case <-ctx.Done():
				return
			}
		}
	}()
	_, err = io.WriteString(out, ownScreen)
	return s, err
}

func (s *screen) close() {
	if s.tty == nil {
		return
	}
	// The terminal may be gone, and then nobody needs it as it was.
	_, _ = io.WriteString(s.out, backScreen)
	_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, s.restore)
}

// show replaces what is seen. On a terminal lines are cut to its size, and the keys are
// told below.
func (s *screen) show(text string) error {
	if s.tty != nil {
		if size, err := unix.IoctlGetWinsize(int(s.tty.Fd()), unix.TIOCGWINSZ); err == nil {
			text = fit(text, int(size.Col), int(size.Row))
		}
	}
	_, err := io.WriteString(s.out, clear+text)
	return err
}

// fit cuts text to a screen, whose last line tells the keys.
func fit(text string, columns, rows int) string {
	if columns < 1 || rows < 2 {
		return text
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[:min(len(lines), rows-1)]
	lines = append(lines, "q quit   < > sort by another column   r turn round")
	for i, l := range lines {
		if runes := []rune(l); len(runes) > columns {
			lines[i] = string(runes[:columns])
		}
	}
	return strings.Join(lines, "\n")
}
