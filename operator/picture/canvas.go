package picture

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// canvas is an SVG in the making. What comes from outside passes text, which
// escapes it and leaves out what XML can't hold.
type canvas struct{ b bytes.Buffer }

func (c *canvas) rect(x, y, width, height, round float64, class string) {
	fmt.Fprintf(&c.b, `<rect class=%q x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f"/>`+"\n", class, x, y, width, height, round)
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&c.b, `<path class=%q d="M%.1f %.1fL%.1f %.1f"/>`+"\n", class, x1, y1, x2, y2)
}

// text writes s at a base line. A text that was cut shows the whole to a pointer.
func (c *canvas) text(x, y float64, class, s, whole string) {
	fmt.Fprintf(&c.b, `<text class=%q x="%.1f" y="%.1f">`, class, x, y)
	if whole != "" && whole != s {
		c.b.WriteString("<title>")
		c.escape(whole)
		c.b.WriteString("</title>")
	}
	c.escape(s)
	c.b.WriteString("</text>\n")
}

func (c *canvas) escape(s string) {
	_ = xml.EscapeText(&c.b, []byte(s)) // a buffer takes everything
}

// width is about what a text takes, in a font of a size.
func width(s string, size float64) float64 { return 0.58 * size * float64(utf8.RuneCountInString(s)) }

// cut shortens a text to n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 1 {
		return "…"
	}
	return strings.TrimSpace(string([]rune(s)[:n-1])) + "…"
}

// wrap breaks a text into lines of n characters, at most so many.
func wrap(s string, n, most int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		word = cut(word, n)
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= n:
			line += " " + word
		case len(lines) == most-1:
			return append(lines, cut(line+" "+word+strings.Repeat(" ", n), n))
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// span writes a time as a person reads it.
func span(d time.Duration) string {
	switch abs := d.Abs(); {
	case d == 0:
		return "0"
	case abs < 100*time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d.Round(100*time.Microsecond).Microseconds())/1000)
	case abs < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	case abs < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case abs < 10*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// seconds writes a time that is known to about one.
func seconds(d time.Duration) string {
	if d >= 10*time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
}

// number groups digits by three.
func number(n int64) string {
	s := fmt.Sprint(n)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
