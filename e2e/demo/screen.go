package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// The colours of a terminal (ECMA-48).
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

const (
	indent   = "  "
	barWidth = 10
)

// screen prints for people: in colour, and with a line that counts the seconds, on a
// terminal; else plain text, a line for each thing that happens.
type screen struct {
	w        io.Writer
	terminal bool
	replay   bool // then every line of figures says so
	waiting  bool // the last line is to be overwritten
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &screen{w: f, terminal: terminal}
}

func (s *screen) print(lines ...string) {
	if s.waiting {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.waiting = false
	}
	for _, l := range lines {
		fmt.Fprintln(s.w, strings.TrimRight(l, " "))
	}
}

func (s *screen) paint(colour, text string) string {
	if !s.terminal || text == "" {
		return text
	}
	return colour + text + plain
}

func (s *screen) title(what, platform, text string) {
	head := s.paint(bold, "kernel-gossip: "+what)
	if s.replay {
		head = s.paint(bold+yellow, "kernel-gossip: "+what)
	}
	s.print("", indent+head, indent+s.paint(dim, platform), "")
	for line := range strings.SplitSeq(text, "\n") {
		s.print(indent + line)
	}
	s.print("")
}

func (s *screen) note(format string, args ...any) {
	s.print(indent + s.paint(dim, fmt.Sprintf(format, args...)))
}

func (s *screen) heading(text string) {
	if s.replay {
		text += " (replay)"
	}
	s.print("", indent+s.paint(bold, text))
}

func (s *screen) pair(name, value string) {
	s.print(indent + pad(name, 17) + value)
}

// row is one line of the table; empty cells have nothing to tell yet.
type row struct {
	at               time.Duration
	reported, kernel *float64 // of the limit, of the periods; 0 to 1
	periods          string
	syscalls         string
	alert            string
}

func (s *screen) columns() {
	s.print("", indent+s.paint(bold, pad("", 8)+pad("15 s average (kubectl top)", 30)+pad("what the kernel did", 44)+pad("getppid calls", 15)+"alert"))
}

func (s *screen) row(r row) {
	reported, kernel := "not yet", "not yet"
	if r.reported != nil {
		reported = fmt.Sprintf("%s %2.0f %% of the limit", bar(*r.reported), 100**r.reported)
	}
	if r.kernel != nil {
		kernel = fmt.Sprintf("%s throttled in %s: %2.0f %%", bar(*r.kernel), r.periods, 100**r.kernel)
	}
	alert := s.paint(yellow, r.alert)
	if strings.HasPrefix(r.alert, "FIRING") {
		alert = s.paint(bold+red, r.alert)
	}
	s.print(indent + s.stamp(r.at) + s.paint(green, pad(reported, 30)) + s.paint(red, pad(kernel, 44)) + pad(r.syscalls, 15) + alert)
}

// event is a line between the rows.
func (s *screen) event(at time.Duration, text string) {
	s.print(indent + s.stamp(at) + s.paint(bold, "▶ "+text))
}

func (s *screen) stamp(at time.Duration) string {
	text := fmt.Sprintf("%3.0f s", at.Seconds())
	if s.replay {
		return s.paint(yellow, pad("replay "+text, 15))
	}
	return pad(text, 8)
}

// wait shows what is waited for, until the next line is printed.
func (s *screen) wait(at time.Duration, what string) {
	if !s.terminal {
		return
	}
	fmt.Fprint(s.w, "\r\x1b[K"+indent+s.stamp(at)+s.paint(dim, "… "+what))
	s.waiting = true
}

// bar draws a share; one over 1 is a full bar.
func bar(share float64) string {
	full := min(barWidth, max(0, int(share*barWidth+0.5)))
	return strings.Repeat("█", full) + strings.Repeat("░", barWidth-full)
}

// pad fills up to a width in characters.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(1, width-len([]rune(s))))
}

// grouped writes 8265679 as 8,265,679.
func grouped(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
