package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
)

// Styles are parameters of ECMA-48's SGR; plain is none.
const (
	plain   = ""
	strong  = "1"
	faint   = "2"
	inverse = "7"
	alarm   = "1;31" // bold, red
)

// span is text of one style.
type span struct{ text, style string }

// line is what stands in one line of top.
type line []span

func (l line) plain() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return strings.TrimRight(b.String(), " ")
}

// cut leaves at most so many columns, and shows that it did.
func (l line) cut(columns int) line {
	var out line
	for _, s := range l {
		n := utf8.RuneCountInString(s.text)
		if n <= columns {
			out, columns = append(out, s), columns-n
			continue
		}
		if columns > 0 {
			s.text = string([]rune(s.text)[:columns-1]) + "…"
			out = append(out, s)
		}
		break
	}
	return out
}

// styled writes the line for a terminal.
func (l line) styled() string {
	var b strings.Builder
	for _, s := range l {
		if s.style == plain {
			b.WriteString(s.text)
		} else {
			fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", s.style, s.text)
		}
	}
	return b.String()
}

// topColumn is a column of top.
type topColumn struct {
	title string
	key   string // of liars.Columns; empty: rows can't be sorted by it
	name  bool   // text, to the left; figures stand to the right
	cell  func(*liars.Row) span
}

const (
	barLength    = 10
	shortestName = 12   // that a column of names shrinks to
	gapOf2       = "  " // between columns
)

// topColumns are those of the rows; bars draws shares, too.
func topColumns(inPods, bars bool) []topColumn {
	name := func(of func(*liars.Row) string) func(*liars.Row) span {
		return func(r *liars.Row) span { return span{dash(printable(of(r))), plain} }
	}
	figure := func(of func(*liars.Row) *float64) func(*liars.Row) span {
		return func(r *liars.Row) span { return measured(cores(of(r)), plain) }
	}
	share := func(of func(*liars.Row) *float64, style func(*liars.Row) string) func(*liars.Row) span {
		return func(r *liars.Row) span {
			text, f := percent(of(r)), of(r)
			if bars && f != nil {
				text = fmt.Sprintf("%s %6s", bar(*f), text)
			}
			return measured(text, style(r))
		}
	}
	var out []topColumn
	if inPods {
		out = append(out,
			topColumn{"NAMESPACE", "", true, name(func(r *liars.Row) string { return r.Namespace })},
			topColumn{"POD", "", true, name(func(r *liars.Row) string { return r.Pod })})
	}
	return append(out,
		topColumn{"CONTAINER", liars.ByName, true, name(func(r *liars.Row) string { return shorten(r.Container) })},
		topColumn{"GAP", liars.ByGap, false, func(r *liars.Row) span { return measured(cores(r.Gap), strong) }},
		topColumn{"OF LIMIT", "share", false, share(func(r *liars.Row) *float64 { return r.ReportedShare }, func(*liars.Row) string { return plain })},
		topColumn{"THROTTLED", "throttled", false, share(func(r *liars.Row) *float64 { return r.ThrottleRatio }, func(r *liars.Row) string {
			if r.Throttled() {
				return alarm
			}
			return plain
		})},
		topColumn{"REPORTED", "reported", false, figure(func(r *liars.Row) *float64 { return r.Reported })},
		topColumn{"USED", "used", false, figure(func(r *liars.Row) *float64 { return r.Used })},
		topColumn{"LIMIT", "limit", false, figure(func(r *liars.Row) *float64 { return r.Limit })},
		topColumn{"WANTED", "wanted", false, figure(func(r *liars.Row) *float64 { return r.Demand })},
	)
}

// measured is a figure, or faint where there is none.
func measured(text, style string) span {
	if text == unmeasured {
		style = faint
	}
	return span{text, style}
}

// bar draws a share of 0 to 1; what is beyond fills it.
func bar(share float64) string {
	full := min(barLength, max(0, int(share*barLength+0.5)))
	return strings.Repeat("█", full) + strings.Repeat("░", barLength-full)
}

// topTable lays the rows out below their titles, that of the column sorted by being
// marked. Where a screen is too narrow for it, 0 being none, the bars go first, then
// the beginnings of long names.
func topTable(rows []liars.Row, order topOrder, bars bool, screen int) (head line, body []line) {
	inPods := slices.ContainsFunc(rows, func(r liars.Row) bool { return r.Pod != "" })
	columns := topColumns(inPods, bars)
	for i := range columns {
		switch {
		case columns[i].key == "" || columns[i].key != order.key:
		case order.ascending:
			columns[i].title += "▴"
		default:
			columns[i].title += "▾"
		}
	}
	cells := make([][]span, len(rows))
	width := make([]int, len(columns))
	for i, c := range columns {
		width[i] = utf8.RuneCountInString(c.title)
		for r := range rows {
			cell := c.cell(&rows[r])
			cells[r] = append(cells[r], cell)
			width[i] = max(width[i], utf8.RuneCountInString(cell.text))
		}
	}
	total := len(gapOf2) * (len(columns) - 1)
	for _, w := range width {
		total += w
	}
	for i := len(columns) - 1; i >= 0 && screen > 0 && total > screen; i-- {
		if bars {
			return topTable(rows, order, false, screen)
		}
		if !columns[i].name {
			continue
		}
		narrow := max(shortestName, utf8.RuneCountInString(columns[i].title), width[i]-(total-screen))
		if narrow >= width[i] {
			continue
		}
		total -= width[i] - narrow
		width[i] = narrow
		for r := range rows {
			cells[r][i].text = ending(cells[r][i].text, narrow)
		}
	}
	lay := func(cell func(int) span) line {
		var l line
		for i, c := range columns {
			if i > 0 {
				l = append(l, span{gapOf2, plain})
			}
			s := cell(i)
			blank := span{strings.Repeat(" ", width[i]-utf8.RuneCountInString(s.text)), plain}
			if c.name {
				l = append(l, s, blank)
			} else {
				l = append(l, blank, s)
			}
		}
		return l
	}
	head = lay(func(i int) span { return span{columns[i].title, plain} })
	for r := range rows {
		body = append(body, lay(func(i int) span { return cells[r][i] }))
	}
	return head, body
}
