// Package check tells whether a PxL script can work: it reads PxL, follows each
// DataFrame's columns and their types from table to export, and compares every
// table, column, function and argument with what Pixie has (pixie.yaml).
//
// It is not Pixie's compiler. It knows no semantic types, takes unions of numbers
// lightly, and looks into a bpftrace program for its printf alone: that is what
// makes a tracepoint's table.
package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Error is one fault of a script.
type Error struct {
	Line    int
	Problem string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Problem) }

// Result is what a script makes.
type Result struct {
	// Tables are those that its tracepoints fill.
	Tables map[string]Columns
	// Displayed are the columns of what it displays, by name.
	Displayed map[string]Columns
	// Metrics and Spans are the names of what it exports.
	Metrics, Spans []string
}

// Script checks a script. Tables are those that tracepoints of other scripts fill.
func Script(source string, facts *Facts, tables map[string]Columns) (Result, []*Error) {
	c := &checker{facts: facts, tables: maps.Clone(facts.Tables), modules: map[string]bool{}, scope: map[string]value{},
		result: Result{Tables: map[string]Columns{}, Displayed: map[string]Columns{}}}
	maps.Copy(c.tables, tables)
	statements, err := parse(source)
	if err != nil {
		fault, ok := err.(*Error) //nolint:errorlint // parse returns no other
		if !ok {
			fault = &Error{Problem: err.Error()}
		}
		return c.result, []*Error{fault}
	}
	c.run(statements)
	for _, f := range c.functions() {
		if !f.called {
			c.apply(f, nil)
		}
	}
	slices.SortStableFunc(c.faults, func(a, b *Error) int { return a.Line - b.Line })
	return c.result, c.faults
}

// value is what an expression is. Its zero value is unknown: no fault follows from it.
type value struct {
	what    what
	typ     string // of a scalar or column; "" is unknown
	text    string // of a string constant; a column's name; a callee's path
	frame   *frame
	items   []value // of a list; of an object, its parts
	keys    []value // of a dict
	columns []column
	fn      *defined
}

type what int

const (
	unknown what = iota
	scalarValue
	columnValue
	stringValue
	noneValue
	frameValue
	ctxValue
	methodValue
	functionValue
	listValue
	dictValue
	moduleValue
	definedValue
	gaugeValue
	spanValue
	dataValue
	endpointValue
	programValue
)

// column is one that an export reads, and how.
type column struct {
	name, as string
	line     int
}

type frame struct {
	columns Columns
	grouped []string
}

func (f *frame) with(name, typ string) *frame {
	next := &frame{columns: maps.Clone(f.columns)}
	next.columns[name] = typ
	return next
}

type defined struct {
	*function
	called bool
}

type checker struct {
	facts   *Facts
	tables  map[string]Columns
	modules map[string]bool
	scope   map[string]value
	depth   int
	faults  []*Error
	result  Result
}

func (c *checker) fault(at int, format string, args ...any) value {
	e := &Error{at, fmt.Sprintf(format, args...)}
	if !slices.ContainsFunc(c.faults, func(x *Error) bool { return *x == *e }) {
		c.faults = append(c.faults, e)
	}
	return value{}
}

// missing is a fault with what to use instead, or what there is.
func (c *checker) missing(at int, name, format string, args ...any) value {
	problem := fmt.Sprintf(format, args...)
	if hint, known := c.facts.Instead[name]; known {
		problem += "; use " + hint
	}
	return c.fault(at, "%s", problem)
}

func (c *checker) functions() []*defined {
	var all []*defined
	for _, name := range slices.Sorted(maps.Keys(c.scope)) {
		if f := c.scope[name].fn; f != nil {
			all = append(all, f)
		}
	}
	return all
}

func (c *checker) run(statements []stmt) value {
	for _, s := range statements {
		switch s := s.(type) {
		case *importing:
			if s.module != "px" && s.module != "pxtrace" {
				c.fault(s.at(), "there is no module %s; PxL has px and pxtrace", s.module)
			}
			c.modules[s.module] = true
		case *assign:
			c.assign(s)
		case *expression:
			c.eval(s.value)
		case *function:
			c.scope[s.name] = value{what: definedValue, fn: &defined{function: s}}
		case *returning:
			return c.eval(s.value)
		}
	}
	return value{what: noneValue}
}

func (c *checker) assign(s *assign) {
	v := c.eval(s.value)
	switch to := s.to.(type) {
	case *ident:
		c.scope[to.name] = v
	case *attr:
		c.setColumn(to.at(), to.of, to.name, v)
	case *index:
		key := c.eval(to.key)
		if key.what != stringValue {
			c.fault(to.at(), "want a column's name in quotes between the brackets")
			return
		}
		c.setColumn(to.at(), to.of, key.text, v)
	default:
		c.fault(s.at(), "only a name or a column can be assigned to")
	}
}

func (c *checker) setColumn(at int, of expr, name string, v value) {
	holder, ok := of.(*ident)
	if !ok {
		c.fault(at, "only a column of a named DataFrame can be assigned to")
		return
	}
	f := c.eval(of)
	switch {
	case f.what == unknown:
		return
	case f.what != frameValue:
		c.fault(at, "%s is no DataFrame", holder.name)
		return
	}
	switch v.what {
	case unknown, scalarValue, columnValue, stringValue:
	default:
		c.fault(at, "column %s: want a column, a number or a string", name)
	}
	c.scope[holder.name] = value{what: frameValue, frame: f.frame.with(name, v.typ)}
}

func (c *checker) eval(e expr) value {
	switch e := e.(type) {
	case *literal:
		switch e.kind {
		case text:
			return value{what: stringValue, typ: "string", text: e.text}
		case integer:
			return value{what: scalarValue, typ: "int"}
		}
		return value{what: scalarValue, typ: "float"}
	case *ident:
		return c.ident(e)
	case *attr:
		return c.attr(e)
	case *index:
		return c.index(e)
	case *call:
		return c.call(e)
	case *list:
		v := value{what: listValue}
		for _, item := range e.items {
			v.items = append(v.items, c.eval(item))
		}
		return v
	case *dict:
		v := value{what: dictValue}
		for i := range e.keys {
			v.keys = append(v.keys, c.eval(e.keys[i]))
			v.items = append(v.items, c.eval(e.values[i]))
		}
		return v
	case *unary:
		v := c.scalar(e.of)
		if e.op == "not" {
			v.typ = "bool"
		}
		return value{what: scalarValue, typ: v.typ}
	case *binary:
		return c.binary(e)
	}
	return value{}
}

func (c *checker) ident(e *ident) value {
	if v, known := c.scope[e.name]; known {
		return v
	}
	switch e.name {
	case "px", "pxtrace":
		if !c.modules[e.name] {
			return c.fault(e.at(), "%s is not imported", e.name)
		}
		return value{what: moduleValue, text: e.name}
	case "True", "False":
		return value{what: scalarValue, typ: "bool"}
	case "None":
		return value{what: noneValue}
	case "str", "int", "float", "bool":
		return value{what: functionValue}
	}
	return c.fault(e.at(), "%s is not defined", e.name)
}

// scalar evaluates what must be a column, a number or a string.
func (c *checker) scalar(e expr) value {
	v := c.eval(e)
	switch v.what {
	case unknown, scalarValue, columnValue, stringValue:
		return v
	}
	return c.fault(e.at(), "want a column, a number or a string")
}

func (c *checker) binary(e *binary) value {
	a, b := c.scalar(e.left), c.scalar(e.right)
	if a.typ == "" || b.typ == "" {
		switch e.op {
		case "+", "-", "*", "/", "%", "//", "**":
			return value{what: scalarValue}
		}
		return value{what: scalarValue, typ: "bool"}
	}
	mixed := func() value {
		return c.fault(e.at(), "%s %s %s: these types do not go together", a.typ, e.op, b.typ)
	}
	isNumber := func(t string) bool { return t == "int" || t == "float" }
	result := func(t string) value { return value{what: scalarValue, typ: t} }
	switch e.op {
	case "and", "or":
		return result("bool")
	case "==", "!=", "<", ">", "<=", ">=":
		if a.typ != b.typ && (!isNumber(a.typ) || !isNumber(b.typ)) {
			return mixed()
		}
		return result("bool")
	case "/":
		if isNumber(a.typ) && isNumber(b.typ) {
			return result("float")
		}
	case "+", "-":
		switch {
		case a.typ == "time" && b.typ == "time" && e.op == "-":
			return result("int")
		case a.typ == "time" && b.typ == "int":
			return result("time")
		case a.typ == "string" && b.typ == "string" && e.op == "+":
			return result("string")
		}
		fallthrough
	default:
		switch {
		case a.typ == "int" && b.typ == "int":
			return result("int")
		case isNumber(a.typ) && isNumber(b.typ):
			return result("float")
		}
	}
	return mixed()
}

func (c *checker) attr(e *attr) value {
	of := c.eval(e.of)
	switch of.what {
	case unknown:
		return value{}
	case moduleValue:
		return c.member(e.at(), of.text+"."+e.name)
	case frameValue:
		switch e.name {
		case "groupby", "agg", "merge", "drop", "head", "append", "rolling", "stream":
			return value{what: methodValue, text: e.name, frame: of.frame}
		case "ctx":
			return value{what: ctxValue, frame: of.frame}
		}
		return c.column(e.at(), of.frame, e.name)
	}
	return c.fault(e.at(), "this has no %s", e.name)
}

// member is what a module has by the path.
func (c *checker) member(at int, path string) value {
	if _, known := c.facts.Objects[path]; known {
		return value{what: functionValue, text: path}
	}
	if slices.Contains(c.facts.Constants, path) {
		if strings.HasPrefix(path, "px.plugin.") {
			return value{what: scalarValue, typ: "time"}
		}
		return value{what: scalarValue, typ: "int"}
	}
	if c.facts.module(path) {
		return value{what: moduleValue, text: path}
	}
	if fn, inPx := strings.CutPrefix(path, "px."); inPx {
		if _, known := c.facts.Functions[fn]; known {
			return value{what: functionValue, text: path}
		}
		if _, known := c.facts.Aggregates[fn]; known {
			return value{what: functionValue, text: path}
		}
		switch fn {
		case "Pod", "Service", "Namespace", "Node", "Time", "Duration": // types of a function's arguments
			return value{what: functionValue}
		}
	}
	return c.missing(at, path, "Pixie has no %s", path)
}

func (c *checker) column(at int, f *frame, name string) value {
	if f.grouped != nil {
		return c.fault(at, "a grouped DataFrame has no columns before agg()")
	}
	typ, has := f.columns[name]
	if !has {
		return c.missing(at, name, "there is no column %s here, only %s", name, strings.Join(slices.Sorted(maps.Keys(f.columns)), ", "))
	}
	return value{what: columnValue, typ: typ, text: name}
}

func (c *checker) index(e *index) value {
	of := c.eval(e.of)
	switch of.what {
	case unknown:
		c.eval(e.key)
		return value{}
	case ctxValue:
		key := c.eval(e.key)
		if key.what != stringValue {
			return c.fault(e.at(), "want a name in quotes: df.ctx['pod']")
		}
		typ, err := c.facts.ctx(key.text, of.frame.columns)
		if err != nil {
			return c.fault(e.at(), "%v", err)
		}
		return value{what: columnValue, typ: typ, text: key.text}
	case frameValue:
	default:
		return c.fault(e.at(), "only a DataFrame has columns in brackets")
	}
	key := c.eval(e.key)
	switch key.what {
	case stringValue:
		return c.column(e.at(), of.frame, key.text)
	case listValue:
		kept := &frame{columns: Columns{}}
		for _, name := range c.names(e.at(), key) {
			kept.columns[name] = c.column(e.at(), of.frame, name).typ
		}
		return value{what: frameValue, frame: kept}
	case scalarValue, columnValue:
		if key.typ != "bool" && key.typ != "" {
			return c.fault(e.at(), "a filter is a condition, this is %s", key.typ)
		}
		return of
	case unknown:
		return of
	}
	return c.fault(e.at(), "want a condition, a column's name or a list of names")
}

// names are the strings of a list, or one string.
func (c *checker) names(at int, v value) []string {
	if v.what == stringValue {
		return []string{v.text}
	}
	var all []string
	for _, item := range v.items {
		switch item.what {
		case stringValue:
			all = append(all, item.text)
		case unknown:
		default:
			c.fault(at, "want column names in quotes")
		}
	}
	return all
}
