package dashboards_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/collector"
	"github.com/kernel-gossip/kernel-gossip/rules"
)

// recordings are of programs on this machine's kernel and on one with cgroup v2.
const recordings = "testdata/*.promql"

// catalog is every metric that exists, with its labels.
type catalog map[string]map[string]bool

func (c catalog) add(name string, labels ...string) {
	if c[name] == nil {
		// Prometheus adds these.
		c[name] = map[string]bool{model.InstanceLabel: true, model.JobLabel: true}
	}
	for _, l := range labels {
		c[name][l] = true
	}
}

func (c catalog) addHistogram(name string, labels ...string) {
	c.add(name, labels...)
	c.add(name+"_sum", labels...)
	c.add(name+"_count", labels...)
	c.add(name+"_bucket", append(labels, model.BucketLabel)...)
}

// everything is what the exporter's collectors declare, what the recorded programs
// exposed and what the rules write.
func everything(t *testing.T) catalog {
	t.Helper()
	c := catalog{}
	for _, m := range collector.Describe() {
		if m.Type == "histogram" {
			c.addHistogram(m.Name, m.Labels...)
		} else {
			c.add(m.Name, m.Labels...)
		}
	}
	for _, s := range recorded(t).series {
		var labels []string
		for name := range s.labels {
			labels = append(labels, name)
		}
		if s.histogram {
			c.addHistogram(s.name, labels...)
		} else {
			c.add(s.name, labels...)
		}
	}
	for _, r := range allRules(t) {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		require.NoError(t, err)
		labels := grouping(expr)
		for l := range r.Labels {
			labels = append(labels, l)
		}
		if r.Record != "" {
			// A rule drops the target's labels unless it names them.
			c[r.Record] = map[string]bool{}
			c.add(r.Record, labels...)
			continue
		}
		c.add("ALERTS", append(labels, model.AlertNameLabel, "alertstate")...)
	}
	return c
}

// grouping is every label that an expression groups by.
func grouping(expr parser.Node) []string {
	var labels []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if a, ok := node.(*parser.AggregateExpr); ok && !a.Without {
			labels = append(labels, a.Grouping...)
		}
		// What an alert reads of another record keeps that record's labels.
		if s, ok := node.(*parser.VectorSelector); ok && strings.HasPrefix(s.Name, "container:") {
			labels = append(labels, "namespace", "pod", "container", "instance")
		}
		return nil
	})
	return labels
}

func allRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	names, err := fs.Glob(rules.Files(), rules.Pattern)
	require.NoError(t, err)
	var all []rulefmt.Rule
	for _, name := range names {
		text, err := fs.ReadFile(rules.Files(), name)
		require.NoError(t, err)
		groups, errs := rulefmt.Parse(text, false, model.LegacyValidation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
		require.Empty(t, errs, name)
		for _, g := range groups.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all
}

// ruleFiles are the paths of the shipped rules.
func ruleFiles(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("../rules/" + rules.Pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

// tape is a recording.
type tape struct {
	text     string
	interval time.Duration
	scrapes  int
	series   []recordedSeries
}

type recordedSeries struct {
	name      string
	labels    map[string]string
	histogram bool
}

// recorded is all recordings as one. They end at the same time.
func recorded(t *testing.T) tape {
	t.Helper()
	names, err := filepath.Glob(recordings)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	var tapes []tape
	var all tape
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		one := read(t, string(b))
		tapes = append(tapes, one)
		if all.interval != 0 {
			require.Equal(t, all.interval, one.interval, name)
		}
		all.interval, all.scrapes = one.interval, max(all.scrapes, one.scrapes)
		all.series = append(all.series, one.series...)
	}
	for _, one := range tapes {
		late := "} "
		if n := all.scrapes - one.scrapes; n > 0 {
			late = fmt.Sprintf("} _x%d ", n)
		}
		for line := range strings.Lines(one.text) {
			if series, points, ok := cutSeries(line); ok {
				line = series + late + points
			}
			all.text += line
		}
	}
	return all
}

// cutSeries cuts a line of a load command after its series.
func cutSeries(line string) (series, points string, ok bool) {
	if !strings.HasPrefix(line, "  ") {
		return "", "", false
	}
	quoted, escaped := false, false
	for i, r := range line {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case r == '}' && !quoted:
			return line[:i], strings.TrimPrefix(line[i+1:], " "), true
		}
	}
	return "", "", false
}

func read(t *testing.T, text string) tape {
	t.Helper()
	out := tape{text: text}
	promql := parser.NewParser(parser.Options{})
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if interval, ok := strings.CutPrefix(line, "load "); ok {
			var err error
			out.interval, err = time.ParseDuration(interval)
			require.NoError(t, err)
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		labels, values, err := promql.ParseSeriesDesc(line)
		require.NoError(t, err, line)
		s := recordedSeries{name: labels.Get(model.MetricNameLabel), labels: labels.Map()}
		delete(s.labels, model.MetricNameLabel)
		for _, v := range values {
			s.histogram = s.histogram || v.Histogram != nil
		}
		out.series = append(out.series, s)
		out.scrapes = max(out.scrapes, len(values))
	}
	require.NotZero(t, out.interval)
	require.NotEmpty(t, out.series)
	return out
}

func (r tape) end() time.Time {
	return time.Unix(0, 0).Add(time.Duration(r.scrapes-1) * r.interval)
}

func (r tape) instances() []string {
	found := map[string]bool{}
	for _, s := range r.series {
		found[s.labels[model.InstanceLabel]] = true
	}
	return slices.Sorted(maps.Keys(found))
}
