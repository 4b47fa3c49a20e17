package dashboards_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// values stand for a dashboard's variables.
type values map[string]string

// fill puts values for the variables, as Grafana does before it asks.
func fill(expr string, v values, interval time.Duration) string {
	// Grafana's: four scrapes.
	expr = strings.ReplaceAll(expr, "$__rate_interval", (4 * interval).String())
	for name, value := range v {
		expr = regexp.MustCompile(`\$`+name+`\b`).ReplaceAllLiteralString(expr, value)
	}
	return expr
}

// everyValue is All where a variable has it, else a container that was recorded.
func everyValue(d dashboard) values {
	v := values{}
	for _, variable := range d.Templating.List {
		switch {
		case variable.IncludeAll:
			v[variable.Name] = variable.AllValue
		case variable.Type == "query":
			v[variable.Name] = recordedContainer
		}
	}
	return v
}

const recordedContainer = "app"

func parse(t *testing.T, text string) parser.Expr {
	t.Helper()
	require.NotContains(t, text, "$", "a variable that the dashboard does not have")
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	require.NoError(t, err, text)
	return expr
}

// metrics are the existing metrics that a selector names.
func (c catalog) metrics(s *parser.VectorSelector) []string {
	var found []string
	for _, m := range s.LabelMatchers {
		if m.Name != model.MetricNameLabel {
			continue
		}
		for name := range c {
			if m.Matches(name) {
				found = append(found, name)
			}
		}
	}
	return found
}

// check tells what an expression names that does not exist. Labels hold all that the
// metrics in it have.
func (c catalog) check(expr parser.Expr) (faults []string, all map[string]bool) {
	all = map[string]bool{}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names := c.metrics(s)
		if len(names) == 0 {
			faults = append(faults, fmt.Sprintf("no metric %s", s))
		}
		for _, name := range names {
			for l := range c[name] {
				all[l] = true
			}
			for _, m := range s.LabelMatchers {
				if m.Name != model.MetricNameLabel && !c[name][m.Name] {
					faults = append(faults, fmt.Sprintf("%s has no label %s", name, m.Name))
				}
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var named []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			named = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				named = append(append(named, n.VectorMatching.MatchingLabels...), n.VectorMatching.Include...)
			}
		}
		for _, l := range named {
			if !all[l] {
				faults = append(faults, fmt.Sprintf("nothing in %s has a label %s", node, l))
			}
		}
		return nil
	})
	return faults, all
}

func TestQueriesNameWhatExists(t *testing.T) {
	c := everything(t)
	legend := regexp.MustCompile(`{{(\w+)}}`)
	for _, d := range all(t) {
		v := everyValue(d)
		for _, p := range d.content() {
			for _, q := range p.Targets {
				faults, labels := c.check(parse(t, fill(q.Expr, v, time.Minute)))
				assert.Empty(t, faults, "%s %s %s", d.UID, p, q.RefID)
				for _, l := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
					assert.True(t, labels[l[1]], "%s %s: the legend names %s", d.UID, p, l[1])
				}
			}
		}
		for _, a := range d.Annotations.List {
			faults, _ := c.check(parse(t, fill(a.Expr, v, time.Minute)))
			assert.Empty(t, faults, "%s, annotation %s", d.UID, a.Name)
		}
		for _, variable := range d.Templating.List {
			if variable.Type != "query" {
				continue
			}
			match := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(variable.Query)
			require.NotNil(t, match, variable.Query)
			assert.Equal(t, variable.Name, match[2])
			faults, labels := c.check(parse(t, fill(match[1], v, time.Minute)))
			assert.Empty(t, faults, "%s, variable %s", d.UID, variable.Name)
			assert.True(t, labels[match[2]], "%s, variable %s", d.UID, variable.Name)
		}
	}
}

func TestCheckFindsFaults(t *testing.T) {
	c := catalog{}
	c.add("a_total", "pod")
	c.addHistogram("b_seconds", "pod")
	for expr, want := range map[string]string{
		`rate(c_total[1m])`:                            "no metric c_total",
		`rate(a_total{node="x"}[1m])`:                  "a_total has no label node",
		`sum by (node) (rate(a_total[1m]))`:            "has a label node",
		`a_total and on (node) b_seconds`:              "has a label node",
		`a_total * on (pod) group_left (node) a_total`: "has a label node",
	} {
		faults, _ := c.check(parse(t, expr))
		if assert.Len(t, faults, 1, expr) {
			assert.Contains(t, faults[0], want, expr)
		}
	}
	faults, _ := c.check(parse(t, `histogram_quantile(0.9, sum by (le, pod) (rate(b_seconds_bucket{instance="i"}[1m])))`))
	assert.Empty(t, faults)
}
