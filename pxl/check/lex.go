package check

import (
	"fmt"
	"strings"
	"unicode"
)

type kind int

const (
	eof kind = iota
	newline
	indent
	dedent
	name
	integer
	decimal
	text
	operator
)

type token struct {
	kind kind
	text string
	line int
}

func (t token) String() string {
	switch t.kind {
	case eof:
		return "the end of the script"
	case newline:
		return "the end of the line"
	case indent:
		return "more indentation"
	case dedent:
		return "less indentation"
	case text:
		return "a string"
	}
	return fmt.Sprintf("%q", t.text)
}

// lexer splits Python's way: lines end statements except within brackets.
type lexer struct {
	source  string
	at      int
	line    int
	depth   int
	indents []int
	tokens  []token
}

// lex returns the tokens, or an *Error.
func lex(source string) ([]token, error) {
	l := &lexer{source: strings.ReplaceAll(source, "\r\n", "\n"), line: 1, indents: []int{0}}
	for l.at < len(l.source) {
		if l.depth == 0 && (l.at == 0 || l.source[l.at-1] == '\n') {
			if blank, err := l.margin(); err != nil {
				return nil, err
			} else if blank {
				continue
			}
		}
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	if l.depth > 0 {
		return nil, l.fault("a bracket is not closed")
	}
	l.end()
	for len(l.indents) > 1 {
		l.indents = l.indents[:len(l.indents)-1]
		l.emit(dedent, "")
	}
	l.emit(eof, "")
	return l.tokens, nil
}

func (l *lexer) fault(format string, args ...any) error {
	return &Error{Line: l.line, Problem: fmt.Sprintf(format, args...)}
}

func (l *lexer) emit(k kind, s string) { l.tokens = append(l.tokens, token{k, s, l.line}) }

// end ends a statement, if one is under way.
func (l *lexer) end() {
	if n := len(l.tokens); n > 0 && l.tokens[n-1].kind != newline && l.tokens[n-1].kind != indent && l.tokens[n-1].kind != dedent {
		l.emit(newline, "")
	}
}

// margin reads a line's indentation; blank tells that there is nothing else in it.
func (l *lexer) margin() (blank bool, err error) {
	start := l.at
	for l.at < len(l.source) && (l.source[l.at] == ' ' || l.source[l.at] == '\t') {
		l.at++
	}
	if l.at == len(l.source) {
		return true, nil
	}
	if c := l.source[l.at]; c == '\n' || c == '#' {
		for l.at < len(l.source) && l.source[l.at] != '\n' {
			l.at++
		}
		if l.at < len(l.source) {
			l.at++
			l.line++
		}
		return true, nil
	}
	width := strings.ReplaceAll(l.source[start:l.at], "\t", "        ")
	switch deepest := l.indents[len(l.indents)-1]; {
	case len(width) > deepest:
		l.indents = append(l.indents, len(width))
		l.emit(indent, "")
	case len(width) < deepest:
		for len(width) < l.indents[len(l.indents)-1] {
			l.indents = l.indents[:len(l.indents)-1]
			l.emit(dedent, "")
		}
		if len(width) != l.indents[len(l.indents)-1] {
			return false, l.fault("the indentation fits no line above")
		}
	}
	return false, nil
}

func (l *lexer) next() error {
	c := l.source[l.at]
	rest := l.source[l.at:]
	switch {
	case c == '\n':
		if l.depth == 0 {
			l.end()
		}
		l.at++
		l.line++
	case c == ' ' || c == '\t':
		l.at++
	case c == '#':
		for l.at < len(l.source) && l.source[l.at] != '\n' {
			l.at++
		}
	case strings.HasPrefix(rest, "\\\n"):
		l.at += 2
		l.line++
	case c == '"' || c == '\'':
		return l.quoted()
	case c >= '0' && c <= '9':
		l.number()
	case c == '_' || unicode.IsLetter(rune(c)):
		end := l.at
		for end < len(l.source) && (l.source[end] == '_' || l.source[end] >= '0' && l.source[end] <= '9' || l.source[end] < 0x80 && unicode.IsLetter(rune(l.source[end]))) {
			end++
		}
		if end == l.at {
			return l.fault("can't read %q", []rune(rest)[0])
		}
		l.emit(name, l.source[l.at:end])
		l.at = end
	default:
		return l.operator(rest)
	}
	return nil
}

func (l *lexer) number() {
	end, k := l.at, integer
	for end < len(l.source) && (strings.IndexByte("0123456789._", l.source[end]) >= 0 ||
		strings.IndexByte("eE", l.source[end]) >= 0 || strings.IndexByte("+-", l.source[end]) >= 0 && strings.IndexByte("eE", l.source[end-1]) >= 0) {
		if strings.IndexByte(".eE", l.source[end]) >= 0 {
			k = decimal
		}
		end++
	}
	l.emit(k, l.source[l.at:end])
	l.at = end
}

func (l *lexer) operator(rest string) error {
	for _, op := range []string{"->", "==", "!=", "<=", ">=", "**", "//"} {
		if strings.HasPrefix(rest, op) {
			l.emit(operator, op)
			l.at += 2
			return nil
		}
	}
	if strings.IndexByte("()[]{}.,:=+-*/%<>@", rest[0]) < 0 {
		return l.fault("can't read %q", []rune(rest)[0])
	}
	switch rest[0] {
	case '(', '[', '{':
		l.depth++
	case ')', ']', '}':
		if l.depth--; l.depth < 0 {
			return l.fault("%q closes nothing", rest[:1])
		}
	}
	l.emit(operator, rest[:1])
	l.at++
	return nil
}

func (l *lexer) quoted() error {
	begin, line := l.at, l.line
	quote := l.source[l.at : l.at+1]
	if strings.HasPrefix(l.source[l.at:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	var s strings.Builder
	for at := begin + len(quote); at < len(l.source); at++ {
		switch {
		case strings.HasPrefix(l.source[at:], quote):
			l.tokens = append(l.tokens, token{text, s.String(), line})
			l.at = at + len(quote)
			return nil
		case l.source[at] == '\\' && at+1 < len(l.source):
			at++
			if l.source[at] == '\n' {
				l.line++
			} else {
				s.WriteByte(unescape(l.source[at]))
			}
			continue
		case l.source[at] == '\n':
			if len(quote) == 1 {
				return l.fault("the string is not closed")
			}
			l.line++
		}
		s.WriteByte(l.source[at])
	}
	l.line = line
	return l.fault("the string is not closed")
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	}
	return c
}
