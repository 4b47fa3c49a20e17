package dashboards_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// lintRules are those of Grafana's dashboard-linter for Prometheus
// (https://github.com/grafana/dashboard-linter/blob/main/docs/index.md), by its names
// and written anew from their descriptions.
func lintRules() map[string]func(dashboard) []string {
	return map[string]func(dashboard) []string{
		"template-datasource-rule": func(d dashboard) []string {
			var sources []variable
			for _, v := range d.Templating.List {
				if v.Type == "datasource" {
					sources = append(sources, v)
				}
			}
			if len(sources) != 1 || sources[0].Name != "datasource" || sources[0].Label != "Data source" || sources[0].Query != "prometheus" {
				return []string{"want one variable datasource, labelled Data source, of Prometheus"}
			}
			return nil
		},
		"template-job-rule":      func(d dashboard) []string { return lintVariable(d, "job") },
		"template-instance-rule": func(d dashboard) []string { return lintVariable(d, "instance") },
		"template-label-promql-rule": func(d dashboard) []string {
			var faults []string
			for _, v := range d.Templating.List {
				if v.Type == "query" && !strings.HasPrefix(v.Query, "label_values(") {
					faults = append(faults, v.Name+": no label_values")
				}
			}
			return faults
		},
		"template-on-time-change-reload-rule": func(d dashboard) []string {
			var faults []string
			for _, v := range d.Templating.List {
				if v.Type == "query" && v.Refresh != 2 {
					faults = append(faults, v.Name+": not reloaded when the time range changes")
				}
			}
			return faults
		},
		"panel-datasource-rule": eachPanel(func(p panel) string {
			want := source{"prometheus", "${datasource}"}
			if p.Datasource != want || slices.ContainsFunc(p.Targets, func(q target) bool { return q.Datasource != want }) {
				return "does not use the chosen data source"
			}
			return ""
		}),
		"panel-title-description-rule": eachPanel(func(p panel) string {
			if p.Title == "" || p.Description == "" {
				return "has no title or no description"
			}
			return ""
		}),
		"panel-no-targets-rule": eachPanel(func(p panel) string {
			if len(p.Targets) == 0 {
				return "has no query"
			}
			return ""
		}),
		"panel-units-rule": eachPanel(func(p panel) string {
			// Those of Grafana's units that are used here.
			known := []string{"none", "short", "percentunit", "s", "bytes", "ops", "reqps", "pps", "bool_yes_no"}
			units := []string{p.FieldConfig.Defaults.Unit}
			for _, o := range p.FieldConfig.Overrides {
				for _, property := range o.Properties {
					if property.ID == "unit" {
						units = append(units, strings.Trim(string(property.Value), `"`))
					}
				}
			}
			for _, u := range units {
				if !slices.Contains(known, u) {
					return fmt.Sprintf("has unit %q", u)
				}
			}
			return ""
		}),
		"target-promql-rule": eachTarget(func(d dashboard, q target) string {
			if _, err := lintParse(d, q); err != nil {
				return err.Error()
			}
			return ""
		}),
		"target-rate-interval-rule": eachTarget(func(_ dashboard, q target) string {
			for _, call := range []string{"rate(", "irate(", "increase("} {
				if strings.Count(q.Expr, call) > 0 && strings.Count(q.Expr, "[") != strings.Count(q.Expr, "[$__rate_interval]") {
					return "has a range other than $__rate_interval"
				}
			}
			return ""
		}),
		"target-job-rule":      eachTarget(func(d dashboard, q target) string { return lintMatcher(d, q, "job") }),
		"target-instance-rule": eachTarget(func(d dashboard, q target) string { return lintMatcher(d, q, "instance") }),
		"target-counter-agg-rule": eachTarget(func(d dashboard, q target) string {
			expr, err := lintParse(d, q)
			if err != nil {
				return "" // another rule's
			}
			fault := ""
			parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
				s, ok := node.(*parser.VectorSelector)
				if !ok || !strings.HasSuffix(s.Name, "_total") {
					return nil
				}
				if len(path) >= 2 {
					if call, ok := path[len(path)-2].(*parser.Call); ok && slices.Contains([]string{"rate", "irate", "increase"}, call.Func.Name) {
						return nil
					}
				}
				fault = s.Name + " is a counter and not rated"
				return nil
			})
			return fault
		}),
		"uneditable-dashboard": func(d dashboard) []string {
			if d.Editable {
				return []string{"is editable; a provisioned one should not be"}
			}
			return nil
		},
	}
}

func lintVariable(d dashboard, name string) []string {
	for _, v := range d.Templating.List {
		if v.Name != name {
			continue
		}
		var faults []string
		if v.Datasource != (source{"prometheus", "${datasource}"}) {
			faults = append(faults, name+" does not use the chosen data source")
		}
		if v.Type != "query" || !v.Multi || !v.IncludeAll || v.AllValue != ".+" || !strings.EqualFold(v.Label, name) {
			faults = append(faults, name+" is not a query for several or all values, all being .+, labelled by its name")
		}
		return faults
	}
	return []string{"has no variable " + name}
}

func lintParse(d dashboard, q target) (parser.Expr, error) {
	return parser.NewParser(parser.Options{}).ParseExpr(fill(q.Expr, everyValue(d), time.Minute))
}

// lintMatcher wants each selector to be narrowed by a variable.
func lintMatcher(d dashboard, q target, name string) string {
	v := everyValue(d)
	const mark = "chosen"
	v[name] = mark
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(fill(q.Expr, v, time.Minute))
	if err != nil {
		return ""
	}
	fault := ""
	for _, matchers := range parser.ExtractSelectors(expr) {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool {
			return m.Name == name && m.Type == labels.MatchRegexp && m.Value == mark
		}) {
			fault = fmt.Sprintf("%s has no %s=~\"$%s\"", matchers, name, name)
		}
	}
	return fault
}

func eachPanel(check func(panel) string) func(dashboard) []string {
	return func(d dashboard) []string {
		var faults []string
		for _, p := range d.content() {
			if fault := check(p); fault != "" {
				faults = append(faults, fmt.Sprintf("%s %s", p, fault))
			}
		}
		return faults
	}
}

func eachTarget(check func(dashboard, target) string) func(dashboard) []string {
	return func(d dashboard) []string {
		return eachPanel(func(p panel) string {
			for _, q := range p.Targets {
				if fault := check(d, q); fault != "" {
					return q.RefID + ": " + fault
				}
			}
			return ""
		})(d)
	}
}

func TestDashboardLinter(t *testing.T) {
	b, err := os.ReadFile(".lint")
	require.NoError(t, err)
	var config struct {
		Exclusions map[string]struct{ Reason string }
	}
	require.NoError(t, yaml.Unmarshal(b, &config))

	lint := lintRules()
	for name, exclusion := range config.Exclusions {
		assert.NotEmpty(t, exclusion.Reason, name)
		require.Contains(t, lint, name)
		var faults []string
		for _, d := range all(t) {
			faults = append(faults, lint[name](d)...)
		}
		assert.NotEmpty(t, faults, "%s is excluded and finds nothing", name)
		delete(lint, name)
	}
	for name, rule := range lint {
		t.Run(name, func(t *testing.T) {
			for _, d := range all(t) {
				assert.Empty(t, rule(d), d.UID)
			}
		})
	}
}

// Each rule finds the fault that it is for.
func TestLintRulesFind(t *testing.T) {
	good := func() dashboard {
		for _, d := range all(t) {
			if d.UID == "kernel-gossip-node" {
				return d
			}
		}
		t.Fatal("no dashboard of the node")
		return dashboard{}
	}
	first := func(d dashboard) *panel {
		for i := range d.Panels {
			if d.Panels[i].Type != "row" {
				return &d.Panels[i]
			}
		}
		return nil
	}
	for name, spoil := range map[string]func(*dashboard){
		"template-datasource-rule":            func(d *dashboard) { d.Templating.List[0].Name = "ds" },
		"template-instance-rule":              func(d *dashboard) { d.Templating.List[1].Multi = false },
		"template-label-promql-rule":          func(d *dashboard) { d.Templating.List[1].Query = "up" },
		"template-on-time-change-reload-rule": func(d *dashboard) { d.Templating.List[1].Refresh = 1 },
		"panel-datasource-rule":               func(d *dashboard) { first(*d).Targets[0].Datasource.UID = "P1809F7CD0C75ACF3" },
		"panel-title-description-rule":        func(d *dashboard) { first(*d).Description = "" },
		"panel-no-targets-rule":               func(d *dashboard) { first(*d).Targets = nil },
		"panel-units-rule":                    func(d *dashboard) { first(*d).FieldConfig.Defaults.Unit = "" },
		"target-promql-rule":                  func(d *dashboard) { first(*d).Targets[0].Expr = "sum(" },
		"target-rate-interval-rule":           func(d *dashboard) { first(*d).Targets[0].Expr = "rate(x_total[5m])" },
		"target-instance-rule":                func(d *dashboard) { first(*d).Targets[0].Expr = `up{instance="a"}` },
		"target-counter-agg-rule":             func(d *dashboard) { first(*d).Targets[0].Expr = "sum(x_total)" },
		"uneditable-dashboard":                func(d *dashboard) { d.Editable = true },
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			require.Empty(t, lintRules()[name](d))
			spoil(&d)
			assert.Len(t, lintRules()[name](d), 1)
		})
	}
}
