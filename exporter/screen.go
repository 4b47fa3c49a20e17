package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
)

// ECMA-48, and xterm's alternate screen without its cursor.
const (
	home       = "\x1b[H"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
	ownScreen  = "\x1b[?1049h\x1b[?25l"
	backScreen = "\x1b[?25h\x1b[?1049l"
)

// key is what somebody pressed: a character, or one of these.
type key rune

const (
	keyUp key = -1 - iota
	keyDown
	keyLeft
	keyRight
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
)

// screen is a terminal that top has for itself.
type screen struct {
	tty     *os.File
	dumb    bool // it understands no commands
	colour  bool
	keys    <-chan key
	resized <-chan os.Signal
	restore *unix.Termios
}

// terminalOf is the terminal that out is, with somebody at its keys; nil when it is none.
func terminalOf(out io.Writer) *os.File {
	file, ok := out.(*os.File)
	if !ok {
		return nil
	}
	for _, f := range []*os.File{file, os.Stdin} {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
			return nil
		}
	}
	return file
}

// openScreen takes the terminal over. close must be called, or the user is left with
// one that does not show what is typed.
func openScreen(ctx context.Context, tty *os.File) (*screen, error) {
	s := &screen{tty: tty, dumb: os.Getenv("TERM") == "dumb", colour: os.Getenv("NO_COLOR") == ""} // https://no-color.org
	before, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("asking the terminal for its settings: %w", err)
	}
	// Keys at once and unseen; ^C stays a signal.
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &now); err != nil {
		return nil, fmt.Errorf("taking keys from the terminal: %w", err)
	}
	s.restore = before
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	keys := make(chan key)
	s.keys, s.resized = keys, resized
	go func() { // ends with the process at the latest: a read of a terminal can't be called off
		var buf [64]byte
		for {
			n, err := os.Stdin.Read(buf[:])
			if n == 0 || err != nil {
				return
			}
			for _, k := range decode(buf[:n]) {
				select {
				case keys <- k:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	if !s.dumb {
		_, err = io.WriteString(tty, ownScreen)
	}
	return s, err
}

func (s *screen) close() {
	// The terminal may be gone, and then nobody needs it as it was.
	if !s.dumb {
		_, _ = io.WriteString(s.tty, backScreen)
	}
	_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, s.restore)
}

// decode reads keys as terminals send them: cursor keys by the sequences of xterm and
// VT220, all else as it is.
func decode(b []byte) []key {
	sequences := map[string]key{
		"[A": keyUp, "[B": keyDown, "[C": keyRight, "[D": keyLeft, "OA": keyUp, "OB": keyDown, "OC": keyRight, "OD": keyLeft,
		"[5~": keyPageUp, "[6~": keyPageDown, "[H": keyHome, "[F": keyEnd, "OH": keyHome, "OF": keyEnd, "[1~": keyHome, "[4~": keyEnd,
	}
	var out []key
	for s := string(b); s != ""; {
		if s[0] == 0x1b {
			s = s[1:]
			for n := min(3, len(s)); n >= 2; n-- {
				if k, ok := sequences[s[:n]]; ok {
					out, s = append(out, k), s[n:]
					break
				}
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		out, s = append(out, key(r)), s[n:]
	}
	return out
}

// show replaces what is seen. A dumb terminal gets it below what it had.
func (s *screen) show(v *view) error {
	columns, rows := 80, 24 // of a terminal that does not tell
	if size, err := unix.IoctlGetWinsize(int(s.tty.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		columns, rows = int(size.Col), int(size.Row)
	}
	lines := v.draw(columns, rows)
	var b strings.Builder
	if s.dumb {
		for _, l := range lines {
			b.WriteString(l.plain() + "\n")
		}
		b.WriteString("\n")
	} else {
		b.WriteString(home)
		for i, l := range lines {
			if i > 0 {
				b.WriteString("\r\n")
			}
			if s.colour {
				b.WriteString(l.styled())
			} else {
				b.WriteString(l.plain())
			}
			b.WriteString(clearLine)
		}
		b.WriteString(clearBelow)
	}
	_, err := io.WriteString(s.tty, b.String())
	return err
}

// view is what top shows on a screen, and where the person who looks at it is.
type view struct {
	order   topOrder
	ranking *liars.Ranking
	stale   error // why the ranking is not the newest
	paused  bool
	first   int // row at the top
	page    int // rows that were shown
}

// press does what a key asks for; false ends.
func (v *view) press(k key) bool {
	switch k {
	case 'q', 'Q', 3, 4: // and ^C, ^D
		return false
	case 'r', 'R':
		v.order.ascending = !v.order.ascending
	case '>', '.', keyRight:
		v.order.turn(1)
	case '<', ',', keyLeft:
		v.order.turn(-1)
	case ' ', 'p', 'P':
		v.paused = !v.paused
	case keyUp, 'k':
		v.first--
	case keyDown, 'j':
		v.first++
	case keyPageUp:
		v.first -= v.page
	case keyPageDown:
		v.first += v.page
	case keyHome, 'g':
		v.first = 0
	case keyEnd, 'G':
		v.first = len(v.ranking.Containers)
	}
	return true
}

// draw fills a screen of that size: what it is, the rows, what is missing, the keys.
func (v *view) draw(columns, rows int) []line {
	if v.ranking == nil {
		return []line{{{"Nothing has been sampled yet.", plain}}}
	}
	all := v.order.sorted(v.ranking)
	head, body := topTable(all, v.order, true, columns)
	state := line{{"kernel-gossip", strong}, {"  " + v.ranking.At.Format(time.TimeOnly) + "  ", plain}, {summary(v.ranking), plain}}
	if liars.Count(v.ranking.Containers, (*liars.Row).Lying) > 0 {
		state[2].style = alarm
	}
	told := notes(v.ranking)
	if v.stale != nil {
		told = append([]string{"These are old figures: " + v.stale.Error() + "."}, told...)
	}
	told = told[:min(len(told), rows/4)]

	const around = 5 // lines beside rows and notes: state, units, titles, a blank one, keys
	v.page = max(1, rows-around-len(told))
	v.first = max(0, min(v.first, len(body)-v.page))
	shown := body[v.first:min(len(body), v.first+v.page)]
	about := units(all) + "; " + v.order.String()
	if len(shown) < len(body) {
		about += fmt.Sprintf("; rows %d to %d", v.first+1, v.first+len(shown))
	}
	if v.paused {
		about += "; paused"
	}
	title := line{{head.plain(), inverse}}
	if n := columns - len([]rune(head.plain())); n > 0 {
		title[0].text += strings.Repeat(" ", n)
	}
	out := []line{state, {{about, faint}}, title}
	out = append(out, shown...)
	out = append(out, line{})
	for _, n := range told {
		out = append(out, line{{n, faint}})
	}
	var keys line
	for _, k := range [][2]string{{"q", "quit"}, {"← →", "sort by another column"}, {"r", "turn round"}, {"↑ ↓", "scroll"}, {"space", "pause"}} {
		keys = append(keys, span{" " + k[0] + " ", inverse}, span{" " + k[1] + "  ", plain})
	}
	out = append(out, keys)
	for i := range out {
		out[i] = out[i].cut(columns)
	}
	return out[max(0, len(out)-rows):]
}
