package build

import (
	"strconv"
	"strings"
)

const (
	tag       = "kernel-gossip"
	gridWidth = 24
)

func prometheus() source { return source{Type: "prometheus", UID: "${datasource}"} }

// query is PromQL and the name of its series.
type query struct{ expr, legend string }

func q(legend string, expr ...string) query {
	return query{expr: strings.Join(expr, " "), legend: legend}
}

// cores is no unit of Grafana's: figures are plain, and the word goes where each kind
// of panel has room for it.
const cores = "cores"

func unitOf(unit string) string {
	if unit == cores {
		return "short"
	}
	return unit
}

func newPanel(id int, kind, title, unit, description string, queries ...query) *Panel {
	ds := prometheus()
	p := &Panel{
		ID: id, Type: kind, Title: title, Description: description, Datasource: &ds,
		FieldConfig: &fieldConfig{Defaults: defaults{Unit: unitOf(unit)}, Overrides: []override{}},
	}
	for i, q := range queries {
		p.Targets = append(p.Targets, target{
			RefID: string(rune('A' + i)), Datasource: ds, Expr: q.expr, LegendFormat: q.legend,
			Format: "time_series", Range: true, EditorMode: "code",
		})
	}
	return p
}

// series is a graph over time.
func series(id int, title, unit, description string, queries ...query) *Panel {
	p := newPanel(id, "timeseries", title, unit, description, queries...)
	p.FieldConfig.Defaults.Custom = map[string]any{
		"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false,
	}
	if unit == cores {
		p.FieldConfig.Defaults.Custom["axisLabel"] = cores
	}
	p.FieldConfig.Defaults.Min = ptr(0.0)
	p.Options = map[string]any{
		"legend":  map[string]any{"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"}},
		"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
	}
	return p.size(12, 8)
}

// stat is one figure, as it is now.
func stat(id int, title, unit, description, expr string) *Panel {
	if unit == cores {
		title += " (cores)"
	}
	p := newPanel(id, "stat", title, unit, description, q("", expr)).now("time_series")
	p.FieldConfig.Defaults.Decimals = decimals(unit)
	p.Options = map[string]any{
		"colorMode": "value", "graphMode": "none", "textMode": "value", "justifyMode": "auto", "orientation": "auto",
		"wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
		"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
	}
	p.FieldConfig.Defaults.NoValue = "not measured"
	return p.lines(step{Color: "text"}).size(4, 4)
}

// axis is what a curve runs over: a label whose values are numbers.
type axis struct{ label, title string }

// estimate is the queries of a curve: the interval's ends, what is held to be likeliest,
// and the one point that is measured.
type estimate struct{ low, best, high, measured string }

// curve is an estimate as it is now, over something else than time: Grafana's trend panel,
// with the interval as a band around the line.
func curve(id int, title, unit, description string, x axis, e estimate) *Panel {
	const low, best, high, measured = "Low", "Expected", "High", "Measured now"
	p := newPanel(id, "trend", title, unit, description, q(low, e.low), q(best, e.best), q(high, e.high), q(measured, e.measured)).now("table")
	rename, order := map[string]string{x.label: x.title}, map[string]int{x.label: 0}
	for i, t := range p.Targets {
		rename["Value #"+t.RefID], order["Value #"+t.RefID] = t.LegendFormat, i+1
	}
	// The panel wants one frame, by an ascending number.
	p.Transformations = []transformation{
		{ID: "merge", Options: map[string]any{}},
		{ID: "convertFieldType", Options: map[string]any{"conversions": []map[string]any{{"targetField": x.label, "destinationType": "number"}}}},
		{ID: "sortBy", Options: map[string]any{"sort": []map[string]any{{"field": x.label}}}},
		{ID: "organize", Options: map[string]any{"excludeByName": map[string]bool{"Time": true}, "renameByName": rename, "indexByName": order}},
	}
	p.Options = map[string]any{
		"xField":  x.title,
		"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": map[string]any{"mode": "multi", "sort": "none"},
	}
	// What is measured stands between two points of the curve, which runs on.
	p.FieldConfig.Defaults.Custom = map[string]any{
		"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "spanNulls": true, "axisSoftMax": 1,
	}
	p.FieldConfig.Defaults.Min = ptr(0.0) // of both axes; a maximum would cut the curve
	p.FieldConfig.Defaults.NoValue = "not measured"
	color := func(name string) property {
		return property{"color", map[string]any{"mode": "fixed", "fixedColor": name}}
	}
	p.FieldConfig.Overrides = []override{
		{Matcher: matcher{"byName", x.title}, Properties: []property{{"unit", "none"}, {"custom.axisLabel", x.title}}},
		{Matcher: matcher{"byName", low}, Properties: []property{color("light-blue")}},
		{Matcher: matcher{"byName", high}, Properties: []property{color("light-blue"), {"custom.fillBelowTo", low}, {"custom.fillOpacity", 20}}},
		{Matcher: matcher{"byName", best}, Properties: []property{color("blue"), {"custom.lineWidth", 2}, {"custom.showPoints", "always"}}},
		{Matcher: matcher{"byName", measured}, Properties: []property{color("orange"), {"custom.drawStyle", "points"}, {"custom.showPoints", "always"}, {"custom.pointSize", 9}}},
	}
	return p.size(12, 8)
}

// heat is the distribution of a histogram over time.
func heat(id int, title, unit, description string, queries ...query) *Panel {
	p := newPanel(id, "heatmap", title, unit, description, queries...)
	for i := range p.Targets {
		p.Targets[i].Format = "heatmap"
	}
	p.FieldConfig.Defaults.Custom = map[string]any{"scaleDistribution": map[string]any{"type": "linear"}}
	p.Options = map[string]any{
		"calculate":    false,
		"cellGap":      1,
		"color":        map[string]any{"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "scale": "exponential", "exponent": 0.5, "steps": 64, "reverse": false},
		"exemplars":    map[string]any{"color": "rgba(255,0,255,0.7)"},
		"filterValues": map[string]any{"le": 1e-9},
		"legend":       map[string]any{"show": true},
		"showValue":    "never",
		"rowsFrame":    map[string]any{"layout": "auto"},
		"tooltip":      map[string]any{"mode": "single", "yHistogram": true},
		"yAxis":        map[string]any{"axisPlacement": "left", "unit": unit},
	}
	return p.size(12, 8)
}

// column is a column of a table: a query, or a label where expr is empty.
type column struct {
	label string // of a label column, as in the series
	title string
	expr  string
	unit  string
	lines []step
	link  *link
}

// table has a row a container or whatever the queries' labels name, and a column a
// query. The first query's column is the one that is sorted by.
func table(id int, title, description string, columns ...column) *Panel {
	var queries []query
	for i, c := range columns {
		if c.unit == cores {
			columns[i].title += " (cores)"
		}
		if c.expr != "" {
			queries = append(queries, q(columns[i].title, c.expr))
		}
	}
	p := newPanel(id, "table", title, "none", description, queries...).now("table")
	rename, order := map[string]string{}, map[string]int{}
	sortBy := ""
	n := 0
	for i, c := range columns {
		field := c.label
		if c.expr != "" {
			field = "Value #" + p.Targets[n].RefID
			if len(queries) == 1 {
				field = "Value"
			}
			n++
			if sortBy == "" {
				sortBy = c.title
			}
		}
		rename[field], order[field] = c.title, i
		var properties []property
		if c.unit != "" {
			properties = append(properties, property{"unit", unitOf(c.unit)})
			if d := decimals(c.unit); d != nil {
				properties = append(properties, property{"decimals", *d})
			}
		}
		if c.lines != nil {
			properties = append(properties, property{"thresholds", thresholds{Mode: "absolute", Steps: c.lines}},
				property{"custom.cellOptions", map[string]any{"type": "color-text"}})
		}
		if c.link != nil {
			properties = append(properties, property{"links", []link{*c.link}})
		}
		if properties != nil {
			p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, override{Matcher: matcher{"byName", c.title}, Properties: properties})
		}
	}
	p.Transformations = []transformation{
		{ID: "merge", Options: map[string]any{}},
		{ID: "organize", Options: map[string]any{"excludeByName": map[string]bool{"Time": true}, "renameByName": rename, "indexByName": order}},
	}
	p.Options = map[string]any{
		"showHeader": true, "cellHeight": "sm", "frameIndex": 0,
		"sortBy": []map[string]any{{"displayName": sortBy, "desc": true}},
		"footer": map[string]any{"show": false, "reducer": []string{"sum"}, "countRows": false},
	}
	p.FieldConfig.Defaults.Custom = map[string]any{"align": "auto", "filterable": true, "inspect": false}
	return p.size(gridWidth, 10)
}

func (p *Panel) size(w, h int) *Panel {
	p.GridPos.W, p.GridPos.H = w, h
	return p
}

// now makes the queries instant.
func (p *Panel) now(format string) *Panel {
	for i := range p.Targets {
		p.Targets[i].Instant, p.Targets[i].Range, p.Targets[i].Format = true, false, format
	}
	return p
}

// lines colours values from each step on. The first step has no value.
func (p *Panel) lines(steps ...step) *Panel {
	p.FieldConfig.Defaults.Thresholds = &thresholds{Mode: "absolute", Steps: steps}
	p.FieldConfig.Defaults.Color = map[string]any{"mode": "thresholds"}
	return p
}

// drawn draws the alerts' line into a graph.
func (p *Panel) drawn(threshold float64) *Panel {
	p.FieldConfig.Defaults.Thresholds = &thresholds{Mode: "absolute", Steps: above(threshold, "orange")}
	p.FieldConfig.Defaults.Custom["thresholdsStyle"] = map[string]any{"mode": "dashed"}
	return p
}

func (p *Panel) stacked() *Panel {
	p.FieldConfig.Defaults.Custom["stacking"] = map[string]any{"mode": "normal", "group": "A"}
	p.FieldConfig.Defaults.Custom["fillOpacity"] = 30
	return p
}

// share ends the axis at the whole.
func (p *Panel) share() *Panel {
	p.FieldConfig.Defaults.Max = ptr(1.0)
	return p
}

// signed lets the axis go below zero.
func (p *Panel) signed() *Panel {
	p.FieldConfig.Defaults.Min = nil
	return p
}

func above(value float64, color string) []step {
	return []step{{Color: "green"}, {Color: color, Value: &value}}
}

func ptr[T any](v T) *T { return &v }

// decimals is how exact a figure of the unit is, nil as Grafana sees fit.
func decimals(unit string) *int {
	switch unit {
	case cores:
		return ptr(2)
	case "percentunit":
		return ptr(1)
	}
	return nil
}

func num(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// section is a heading and the panels below it, from left to right.
type section struct {
	title  string
	panels []*Panel
}

// each gives all panels of a section one size.
func (s section) each(w, h int) section {
	for _, p := range s.panels {
		p.size(w, h)
	}
	return s
}

// lay gives each panel its place: next to the one before it where it fits, else in
// a new line below the tallest. Headings have identifiers from 1000 on.
func lay(sections ...section) []*Panel {
	var out []*Panel
	y := 0
	for i, s := range sections {
		heading := &Panel{ID: 1000 + i, Type: "row", Title: s.title, Collapsed: ptr(false), Panels: &[]*Panel{},
			GridPos: gridPos{H: 1, W: gridWidth, Y: y}}
		out = append(out, heading)
		y++
		x, tallest := 0, 0
		for _, p := range s.panels {
			if x+p.GridPos.W > gridWidth {
				x, y, tallest = 0, y+tallest, 0
			}
			p.GridPos.X, p.GridPos.Y = x, y
			x, tallest = x+p.GridPos.W, max(tallest, p.GridPos.H)
			out = append(out, p)
		}
		y += tallest
	}
	return out
}
