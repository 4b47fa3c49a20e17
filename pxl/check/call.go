package check

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// maxCalls bounds functions that call functions.
const maxCalls = 20

func (c *checker) call(e *call) value {
	fn := c.eval(e.fn)
	switch fn.what {
	case methodValue:
		return c.method(e, fn)
	case definedValue:
		var args []value
		for _, a := range append(slices.Clone(e.args), e.values...) {
			args = append(args, c.eval(a))
		}
		if len(args) > len(fn.fn.params) {
			return c.fault(e.at(), "%s takes %d arguments, got %d", fn.fn.name, len(fn.fn.params), len(args))
		}
		return c.apply(fn.fn, args)
	case functionValue:
		if _, object := c.facts.Objects[fn.text]; object {
			return c.object(e, fn.text)
		}
		return c.function(e, fn.text)
	case unknown:
		for _, a := range append(slices.Clone(e.args), e.values...) {
			c.eval(a)
		}
		return value{}
	}
	return c.fault(e.at(), "this can't be called")
}

// apply runs a script's own function.
func (c *checker) apply(f *defined, args []value) value {
	f.called = true
	if c.depth == maxCalls {
		return c.fault(f.at(), "%s calls itself", f.name)
	}
	c.depth++
	outer := c.scope
	c.scope = maps.Clone(outer)
	for i, p := range f.params {
		c.scope[p] = value{}
		if i < len(args) {
			c.scope[p] = args[i]
		}
	}
	result := c.run(f.body)
	c.scope = outer
	c.depth--
	return result
}

// function is a scalar function of px.
func (c *checker) function(e *call, path string) value {
	name := strings.TrimPrefix(path, "px.")
	f, known := c.facts.Functions[name]
	if !known {
		return c.fault(e.at(), "%s aggregates: use it as agg(name=('column', %s))", path, path)
	}
	if len(e.keys) > 0 {
		c.fault(e.at(), "%s takes no named arguments", path)
	}
	if n := len(e.args); n < f.Args.least || n > f.Args.most {
		c.fault(e.at(), "%s takes %s arguments, got %d", path, f.Args, n)
	}
	typ := f.Returns
	for i, a := range e.args {
		var v value
		if name == "equals_any" && i == 1 {
			v = c.eval(a)
		} else {
			v = c.scalar(a)
		}
		if typ == "first" && i == 0 || typ == "same" && i == len(e.args)-1 {
			typ = v.typ
			if i < len(e.args)-1 {
				continue
			}
		}
	}
	if typ == "same" || typ == "first" {
		typ = ""
	}
	return value{what: scalarValue, typ: typ}
}

func (c *checker) method(e *call, fn value) value {
	f := fn.frame
	same := value{what: frameValue, frame: f}
	first := func(what string) (value, bool) {
		if len(e.args)+len(e.keys) != 1 {
			c.fault(e.at(), "%s takes %s", fn.text, what)
			return value{}, false
		}
		return c.eval(append(slices.Clone(e.args), e.values...)[0]), true
	}
	switch fn.text {
	case "groupby":
		by, ok := first("the columns to group by")
		if !ok {
			return value{}
		}
		names := c.names(e.at(), by)
		for _, name := range names {
			c.column(e.at(), f, name)
		}
		return value{what: frameValue, frame: &frame{columns: f.columns, grouped: append([]string{}, names...)}}
	case "agg":
		return c.agg(e, f)
	case "drop":
		what, ok := first("the columns to drop")
		if !ok {
			return value{}
		}
		left := &frame{columns: maps.Clone(f.columns)}
		for _, name := range c.names(e.at(), what) {
			c.column(e.at(), f, name)
			delete(left.columns, name)
		}
		return value{what: frameValue, frame: left}
	case "merge":
		return c.merge(e, f)
	case "append":
		other, ok := first("a DataFrame of the same columns")
		if ok && other.what == frameValue && !maps.Equal(other.frame.columns, f.columns) {
			c.fault(e.at(), "append needs the same columns on both sides")
		}
	case "head", "rolling":
		for _, a := range append(slices.Clone(e.args), e.values...) {
			c.scalar(a)
		}
	}
	return same
}

// agg takes name=('column', px.function).
func (c *checker) agg(e *call, f *frame) value {
	if len(e.args) > 0 {
		c.fault(e.at(), "agg takes name=('column', px.function)")
	}
	out := &frame{columns: Columns{}}
	all := &frame{columns: f.columns}
	for _, name := range f.grouped {
		out.columns[name] = f.columns[name]
	}
	for i, name := range e.keys {
		at := e.values[i].at()
		pair := c.eval(e.values[i])
		if pair.what == unknown {
			continue
		}
		if pair.what != listValue || len(pair.items) != 2 || pair.items[0].what != stringValue && pair.items[0].what != unknown {
			c.fault(at, "%s: want ('column', px.function)", name)
			continue
		}
		typ := c.column(at, all, pair.items[0].text).typ
		fn := strings.TrimPrefix(pair.items[1].text, "px.")
		returns, known := c.facts.Aggregates[fn]
		switch {
		case pair.items[1].what == unknown:
		case pair.items[1].what != functionValue || !known:
			c.fault(at, "%s: px.%s does not aggregate; there are %s", name, fn, strings.Join(slices.Sorted(maps.Keys(c.facts.Aggregates)), ", "))
		case slices.Contains([]string{"sum", "mean", "quantiles"}, fn) && (typ == "string" || typ == "time" || typ == "upid"),
			(fn == "max" || fn == "min") && (typ == "string" || typ == "upid"):
			c.fault(at, "%s: px.%s takes no %s", name, fn, typ)
		}
		if returns == "same" {
			returns = typ
		}
		out.columns[name] = returns
	}
	return value{what: frameValue, frame: out}
}

func (c *checker) merge(e *call, left *frame) value {
	args, ok := c.arguments(e, "merge", "right how left_on right_on | suffixes")
	if !ok || args["right"].what != frameValue {
		return value{}
	}
	right := args["right"].frame
	if how := args["how"]; how.what == stringValue && !slices.Contains([]string{"inner", "outer", "left", "right"}, how.text) {
		c.fault(e.at(), "how is one of inner, outer, left, right, got %q", how.text)
	}
	on, with := c.names(e.at(), args["left_on"]), c.names(e.at(), args["right_on"])
	if len(on) != len(with) {
		c.fault(e.at(), "left_on has %d columns, right_on %d", len(on), len(with))
	}
	for i := range min(len(on), len(with)) {
		a, b := c.column(e.at(), left, on[i]), c.column(e.at(), right, with[i])
		if a.typ != "" && b.typ != "" && a.typ != b.typ {
			c.fault(e.at(), "%s is %s, %s is %s: they can't be joined", on[i], a.typ, with[i], b.typ)
		}
	}
	suffixes := []string{"_x", "_y"}
	if s := c.names(e.at(), args["suffixes"]); len(s) == 2 {
		suffixes = s
	}
	out := &frame{columns: Columns{}}
	for name, typ := range left.columns {
		if _, both := right.columns[name]; both {
			name += suffixes[0]
		}
		out.columns[name] = typ
	}
	for name, typ := range right.columns {
		if _, both := left.columns[name]; both {
			name += suffixes[1]
		}
		out.columns[name] = typ
	}
	return value{what: frameValue, frame: out}
}

// arguments gives the values their names; false when the call does not fit.
func (c *checker) arguments(e *call, path, sign string) (map[string]value, bool) {
	required, optional := signature(sign)
	names := append(slices.Clone(required), optional...)
	got, ok := map[string]value{}, true
	for i, a := range e.args {
		if i >= len(names) {
			c.fault(e.at(), "%s takes at most %d arguments, got %d", path, len(names), len(e.args))
			return got, false
		}
		got[names[i]] = c.eval(a)
	}
	for i, key := range e.keys {
		v := c.eval(e.values[i])
		if !slices.Contains(names, key) {
			c.fault(e.values[i].at(), "%s has no argument %s; it has %s", path, key, strings.Join(names, ", "))
			ok = false
		}
		got[key] = v
	}
	for _, name := range required {
		if _, told := got[name]; !told {
			c.fault(e.at(), "%s needs the argument %s", path, name)
			ok = false
		}
	}
	return got, ok
}

func (c *checker) object(e *call, path string) value {
	args, ok := c.arguments(e, path, c.facts.Objects[path])
	if !ok {
		return value{}
	}
	switch path {
	case "px.DataFrame":
		return c.dataFrame(e, args)
	case "px.display":
		if df := args["df"]; df.what == frameValue {
			name := "output"
			if n, told := args["name"]; told {
				name = n.text
			}
			c.result.Displayed[name] = df.frame.columns
		} else if df.what != unknown {
			c.fault(e.at(), "px.display shows a DataFrame")
		}
	case "px.export":
		c.export(e, args)
	case "px.otel.Data":
		return c.data(e, args)
	case "px.otel.metric.Gauge":
		return c.gauge(e, args)
	case "px.otel.trace.Span":
		return c.spanOf(e, args)
	case "px.otel.Endpoint":
		return value{what: endpointValue}
	case "pxtrace.TraceProgram":
		return value{what: programValue, text: args["program"].text}
	case "pxtrace.UpsertTracepoint":
		c.tracepoint(e, args)
	}
	return value{}
}

func (c *checker) dataFrame(e *call, args map[string]value) value {
	table := args["table"]
	if table.what == unknown {
		return value{}
	}
	columns, known := c.tables[table.text]
	if !known {
		return c.missing(e.at(), table.text, "Pixie has no table %q; it has %s", table.text, strings.Join(slices.Sorted(maps.Keys(c.tables)), ", "))
	}
	f := &frame{columns: maps.Clone(columns)}
	if chosen, told := args["select"]; told && chosen.what == listValue {
		some := Columns{}
		for _, name := range c.names(e.at(), chosen) {
			some[name] = c.column(e.at(), f, name).typ
		}
		f.columns = some
	}
	return value{what: frameValue, frame: f}
}

// attributes are a dict from names to columns of strings, or to strings.
func (c *checker) attributes(e *call, v value, where string) []column {
	if v.what == unknown || v.what == noneValue {
		return nil
	}
	if v.what != dictValue {
		c.fault(e.at(), "%s: want {'name': df.column}", where)
		return nil
	}
	var all []column
	for i, key := range v.keys {
		item := v.items[i]
		switch {
		case key.what != stringValue || key.text == "":
			c.fault(e.at(), "%s: a name is a string, and not empty", where)
		case item.what == columnValue:
			if item.typ != "string" && item.typ != "" {
				c.fault(e.at(), "%s: %s is %s; attributes are strings", where, item.text, item.typ)
			}
			all = append(all, column{item.text, "string", e.at()})
		case item.what != stringValue && item.what != unknown:
			c.fault(e.at(), "%s: %s: want a column or a string", where, key.text)
		}
	}
	return all
}

func (c *checker) gauge(e *call, args map[string]value) value {
	name, of := args["name"], args["value"]
	// otel.cc: IsValidName.
	if name.what == stringValue && !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`).MatchString(name.text) {
		c.fault(e.at(), "metric name %q: want letters, digits, _, . and -, a letter first", name.text)
	}
	g := value{what: gaugeValue, text: name.text, columns: c.attributes(e, args["attributes"], "attributes")}
	switch {
	case of.what == unknown:
	case of.what != columnValue:
		c.fault(e.at(), "value: want a column, df.name: assign the expression to one first")
	case of.typ != "int" && of.typ != "float" && of.typ != "":
		c.fault(e.at(), "value: %s is %s; a gauge is int or float", of.text, of.typ)
	default:
		g.columns = append(g.columns, column{of.text, of.typ, e.at()})
	}
	g.columns = append(g.columns, column{"time_", "time", e.at()})
	return g
}

func (c *checker) spanOf(e *call, args map[string]value) value {
	s := value{what: spanValue, text: args["name"].text, columns: c.attributes(e, args["attributes"], "attributes")}
	for _, name := range []string{"start_time", "end_time"} {
		switch at := args[name]; {
		case at.what == unknown:
		case at.what != columnValue:
			c.fault(e.at(), "%s: want a column, df.name: assign the expression to one first", name)
		case at.typ != "time" && at.typ != "":
			c.fault(e.at(), "%s: %s is %s, want a time", name, at.text, at.typ)
		default:
			s.columns = append(s.columns, column{at.text, "time", e.at()})
		}
	}
	return s
}

func (c *checker) data(e *call, args map[string]value) value {
	d := value{what: dataValue, columns: c.attributes(e, args["resource"], "resource")}
	if r := args["resource"]; r.what == dictValue && !slices.ContainsFunc(r.keys, func(k value) bool { return k.text == "service.name" }) {
		c.fault(e.at(), "resource: 'service.name' is required")
	}
	parts := args["data"]
	if parts.what == listValue && len(parts.items) == 0 || parts.what != listValue && parts.what != unknown {
		c.fault(e.at(), "data: want a list of metrics and spans")
	}
	for _, part := range parts.items {
		switch part.what {
		case gaugeValue, spanValue:
			d.items = append(d.items, part)
			d.columns = append(d.columns, part.columns...)
		case unknown:
		default:
			c.fault(e.at(), "data: want px.otel.metric or px.otel.trace")
		}
	}
	return d
}

// export checks that the frame has, now, every column that the export reads.
func (c *checker) export(e *call, args map[string]value) {
	df, d := args["df"], args["exporter"]
	if df.what == unknown || d.what == unknown {
		return
	}
	if df.what != frameValue || d.what != dataValue {
		c.fault(e.at(), "px.export takes a DataFrame and px.otel.Data(…)")
		return
	}
	for _, col := range d.columns {
		v := c.column(col.line, df.frame, col.name)
		if v.what == columnValue && v.typ != "" && col.as != "" && v.typ != col.as {
			c.fault(col.line, "column %s is %s here, the export wants %s", col.name, v.typ, col.as)
		}
	}
	for _, part := range d.items {
		if part.what == spanValue {
			c.result.Spans = append(c.result.Spans, part.text)
		} else {
			c.result.Metrics = append(c.result.Metrics, part.text)
		}
	}
}

// tracepoint makes the table that a bpftrace program fills.
func (c *checker) tracepoint(e *call, args map[string]value) {
	programs := []value{args["probe_fn"]}
	if programs[0].what == listValue {
		programs = programs[0].items
	}
	var columns Columns
	for _, p := range programs {
		switch p.what {
		case unknown:
			continue
		case stringValue, programValue:
		default:
			c.fault(e.at(), "probe_fn: want a bpftrace program")
			continue
		}
		got, err := printed(p.text)
		switch {
		case err != nil:
			c.fault(e.at(), "the bpftrace program: %v", err)
		case columns != nil && !maps.Equal(columns, got):
			c.fault(e.at(), "the programs print different columns into one table")
		default:
			columns = got
		}
	}
	if columns != nil && args["table_name"].what == stringValue {
		c.tables[args["table_name"].text] = columns
		c.result.Tables[args["table_name"].text] = columns
	}
}

// printed reads the columns from the program's printf: "name:%format" with a space
// between, the same in every printf of the program (docs.px.dev, distributed
// bpftrace deployment).
func printed(program string) (Columns, error) {
	calls := regexp.MustCompile(`printf\(\s*"([^"]*)"((?:[^;])*)\);`).FindAllStringSubmatch(program, -1)
	if len(calls) == 0 {
		return nil, fmt.Errorf("it has no printf, so the table has no columns")
	}
	field := regexp.MustCompile(`^([a-z_][a-z0-9_]*):%(d|u|i|x|lld|llu|llx|lu|ld|s)$`)
	columns := Columns{}
	for i, call := range calls {
		if call[1] != calls[0][1] {
			return nil, fmt.Errorf("it prints %q and %q; a table has one form", calls[0][1], call[1])
		}
		fields := strings.Fields(call[1])
		if args := arguments(call[2]); args != len(fields) {
			return nil, fmt.Errorf("printf %q has %d fields and %d arguments", call[1], len(fields), args)
		}
		if i > 0 {
			continue
		}
		for _, f := range fields {
			m := field.FindStringSubmatch(f)
			if m == nil {
				return nil, fmt.Errorf("printf field %q: want name:%%format", f)
			}
			columns[m[1]] = "int"
			if m[2] == "s" {
				columns[m[1]] = "string"
			}
		}
	}
	if _, has := columns["time_"]; !has {
		return nil, fmt.Errorf("it prints no time_, so the table has no time")
	}
	columns["time_"] = "time"
	return columns, nil
}

// arguments counts what follows a printf's format: commas outside of brackets.
func arguments(rest string) int {
	n, depth := 0, 0
	for _, r := range rest {
		switch r {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case ',':
			if depth == 0 {
				n++
			}
		}
	}
	return n
}
