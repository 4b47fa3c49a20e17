package check

import (
	"fmt"
	"slices"
)

// maxNesting bounds what a script may nest: far more than any needs.
const maxNesting = 100

// An expr is one of: *ident, *attr, *call, *index, *literal, *list, *dict, *binary, *unary.
type expr interface{ at() int }

type (
	line  int
	ident struct {
		line
		name string
	}
	attr struct {
		line
		of   expr
		name string
	}
	call struct {
		line
		fn     expr
		args   []expr
		keys   []string // of the keyword arguments
		values []expr
	}
	index struct {
		line
		of  expr
		key expr
	}
	literal struct {
		line
		kind kind
		text string
	}
	list struct { // a tuple too
		line
		items []expr
	}
	dict struct {
		line
		keys, values []expr
	}
	binary struct {
		line
		op          string
		left, right expr
	}
	unary struct {
		line
		op string
		of expr
	}
)

func (l line) at() int { return int(l) }

// A stmt is one of: *importing, *assign, *expression, *function, *returning.
type stmt interface{}

type (
	importing struct {
		line
		module string
	}
	assign struct {
		line
		to, value expr
	}
	expression struct{ value expr }
	function   struct {
		line
		name   string
		params []string
		body   []stmt
	}
	returning struct {
		line
		value expr
	}
)

type parser struct {
	tokens []token
	pos    int
	depth  int
}

// parse reads the part of Python that PxL is. Errors are *Error.
func parse(source string) (script []stmt, err error) {
	tokens, err := lex(source)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	defer func() {
		if fault, ok := recover().(*Error); ok {
			script, err = nil, fault
		}
	}()
	for p.peek().kind != eof {
		script = append(script, p.statement())
	}
	return script, nil
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) take() token {
	t := p.tokens[p.pos]
	if t.kind != eof {
		p.pos++
	}
	return t
}

func (p *parser) is(text string) bool {
	t := p.peek()
	return (t.kind == operator || t.kind == name) && t.text == text
}

func (p *parser) accept(text string) bool {
	if p.is(text) {
		p.pos++
		return true
	}
	return false
}

// fail leaves parse with an error.
func (p *parser) fail(at int, format string, args ...any) {
	panic(&Error{Line: at, Problem: fmt.Sprintf(format, args...)})
}

func (p *parser) want(text string) {
	if !p.accept(text) {
		p.fail(p.peek().line, "want %q, got %s", text, p.peek())
	}
}

func (p *parser) wantKind(k kind, what string) token {
	if p.peek().kind != k {
		p.fail(p.peek().line, "want %s, got %s", what, p.peek())
	}
	return p.take()
}

func (p *parser) nest() func() {
	if p.depth++; p.depth > maxNesting {
		p.fail(p.peek().line, "nested more than %d deep", maxNesting)
	}
	return func() { p.depth-- }
}

func (p *parser) statement() stmt {
	defer p.nest()()
	t := p.peek()
	var s stmt
	switch {
	case p.accept("import"):
		s = &importing{line(t.line), p.wantKind(name, "a module").text}
	case p.accept("def"):
		return p.function(t.line)
	case p.accept("return"):
		s = &returning{line(t.line), p.tuple()}
	case t.kind == name && slices.Contains([]string{"for", "while", "class", "try", "with", "lambda", "if", "from", "raise", "global"}, t.text):
		p.fail(t.line, "PxL has no %q: it describes the way of the data and does not run step by step", t.text)
	default:
		e := p.tuple()
		if p.accept("=") {
			s = &assign{line(t.line), e, p.tuple()}
		} else {
			s = &expression{e}
		}
	}
	p.wantKind(newline, "the end of the line")
	return s
}

func (p *parser) function(at int) stmt {
	f := &function{line: line(at), name: p.wantKind(name, "the function's name").text}
	p.want("(")
	for !p.accept(")") {
		f.params = append(f.params, p.wantKind(name, "a parameter").text)
		if p.accept(":") {
			p.expr()
		}
		if p.accept("=") {
			p.expr()
		}
		if !p.is(")") {
			p.want(",")
		}
	}
	if p.accept("->") {
		p.expr()
	}
	p.want(":")
	p.wantKind(newline, "the end of the line")
	p.wantKind(indent, "an indented body")
	for p.peek().kind != dedent && p.peek().kind != eof {
		f.body = append(f.body, p.statement())
	}
	if p.peek().kind == dedent {
		p.take()
	}
	return f
}

// tuple is expressions with commas between, or one.
func (p *parser) tuple() expr {
	first := p.expr()
	if !p.is(",") {
		return first
	}
	l := &list{line(first.at()), []expr{first}}
	for p.accept(",") {
		if t := p.peek(); t.kind == newline || t.kind == operator && (t.text == ")" || t.text == "]" || t.text == "=") {
			break
		}
		l.items = append(l.items, p.expr())
	}
	return l
}

// levels are the binary operators, the weakest first.
func levels() [][]string {
	return [][]string{{"or"}, {"and"}, {"==", "!=", "<", ">", "<=", ">="}, {"+", "-"}, {"*", "/", "%", "//"}, {"**"}}
}

func (p *parser) expr() expr { return p.level(0) }

func (p *parser) level(n int) expr {
	defer p.nest()()
	ops := levels()
	if n == len(ops) {
		return p.unary()
	}
	if n == 2 && p.is("not") {
		t := p.take()
		return &unary{line(t.line), "not", p.level(n)}
	}
	left := p.level(n + 1)
	for slices.ContainsFunc(ops[n], p.is) {
		t := p.take()
		left = &binary{line(t.line), t.text, left, p.level(n + 1)}
	}
	return left
}

func (p *parser) unary() expr {
	defer p.nest()()
	if p.is("-") || p.is("+") {
		t := p.take()
		return &unary{line(t.line), t.text, p.unary()}
	}
	e := p.atom()
	for {
		t := p.peek()
		switch {
		case p.accept("."):
			e = &attr{line(t.line), e, p.wantKind(name, "a name after the dot").text}
		case p.accept("["):
			e = &index{line(t.line), e, p.tuple()}
			p.want("]")
		case p.accept("("):
			e = p.call(t.line, e)
		default:
			return e
		}
	}
}

func (p *parser) call(at int, fn expr) expr {
	c := &call{line: line(at), fn: fn}
	for !p.accept(")") {
		key := ""
		if t := p.peek(); t.kind == name && p.tokens[p.pos+1].kind == operator && p.tokens[p.pos+1].text == "=" {
			key = t.text
			p.pos += 2
		}
		value := p.expr()
		switch {
		case key != "" && slices.Contains(c.keys, key):
			p.fail(value.at(), "argument %s is given twice", key)
		case key != "":
			c.keys, c.values = append(c.keys, key), append(c.values, value)
		case len(c.keys) > 0:
			p.fail(value.at(), "an argument without a name after one with a name")
		default:
			c.args = append(c.args, value)
		}
		if !p.is(")") {
			p.want(",")
		}
	}
	return c
}

func (p *parser) atom() expr {
	t := p.take()
	switch t.kind {
	case name:
		return &ident{line(t.line), t.text}
	case integer, decimal:
		return &literal{line(t.line), t.kind, t.text}
	case text:
		s := t.text
		for p.peek().kind == text { // adjacent strings are one
			s += p.take().text
		}
		return &literal{line(t.line), text, s}
	}
	switch t.text {
	case "(":
		if p.accept(")") {
			return &list{line: line(t.line)}
		}
		e := p.tuple()
		p.want(")")
		return e
	case "[":
		l := &list{line: line(t.line)}
		for !p.accept("]") {
			l.items = append(l.items, p.expr())
			if !p.is("]") {
				p.want(",")
			}
		}
		return l
	case "{":
		d := &dict{line: line(t.line)}
		for !p.accept("}") {
			d.keys = append(d.keys, p.expr())
			p.want(":")
			d.values = append(d.values, p.expr())
			if !p.is("}") {
				p.want(",")
			}
		}
		return d
	}
	p.fail(t.line, "want a value, got %s", t)
	return nil
}
