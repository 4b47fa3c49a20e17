package rules_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

const runbookURL = "https://github.com/kernel-gossip/kernel-gossip/blob/main/rules/runbooks/"

func ruleFiles(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := fs.Glob(rules.Files(), rules.Pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	files := map[string][]byte{}
	for _, name := range names {
		files[name], err = fs.ReadFile(rules.Files(), name)
		require.NoError(t, err)
	}
	return files
}

func allRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	var all []rulefmt.Rule
	for name, text := range ruleFiles(t) {
		groups, errs := rulefmt.Parse(text, false, model.LegacyValidation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
		require.Empty(t, errs, name)
		for _, group := range groups.Groups {
			all = append(all, group.Rules...)
		}
	}
	return all
}

func TestEveryAlertTellsWhatToDo(t *testing.T) {
	linked := map[string]bool{}
	for _, rule := range allRules(t) {
		if rule.Alert == "" {
			continue
		}
		assert.Contains(t, []string{"info", "warning", "critical"}, rule.Labels["severity"], rule.Alert)
		assert.NotZero(t, rule.For, "%s fires at once", rule.Alert)
		for _, name := range []string{"summary", "description"} {
			assert.NotEmpty(t, rule.Annotations[name], "%s has no %s", rule.Alert, name)
		}
		assert.Equal(t, runbookURL+rule.Alert+".md", rule.Annotations["runbook_url"])
		linked[rule.Alert+".md"] = true
	}

	entries, err := os.ReadDir("runbooks")
	require.NoError(t, err)
	written := map[string]bool{}
	for _, entry := range entries {
		written[entry.Name()] = true
		text, err := os.ReadFile(filepath.Join("runbooks", entry.Name()))
		require.NoError(t, err)
		for _, heading := range []string{"# " + strings.TrimSuffix(entry.Name(), ".md"), "## Meaning", "## Look", "## Act"} {
			assert.Contains(t, string(text), heading+"\n", "runbooks/%s", entry.Name())
		}
	}
	assert.Equal(t, linked, written, "alerts on the left, runbooks on the right")
}

// selectors are the metric names that a rule reads, its templates included.
func selectors(t *testing.T, rule rulefmt.Rule) []string {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(rule.Expr)
	require.NoError(t, err, rule.Expr)
	var names []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			names = append(names, selector.Name)
		}
		return nil
	})
	for _, text := range rule.Annotations {
		names = append(names, regexp.MustCompile(`(container:)?kernel_gossip_[a-z_:0-9]+`).FindAllString(text, -1)...)
	}
	return names
}

func TestEveryRecordReadIsWritten(t *testing.T) {
	written, read := map[string]bool{}, map[string]bool{}
	for _, rule := range allRules(t) {
		if rule.Record != "" {
			written[rule.Record] = true
		}
		for _, name := range selectors(t, rule) {
			if strings.Contains(name, ":") {
				read[name] = true
			}
		}
	}
	assert.Equal(t, written, read, "records on the left, what rules read on the right")
}

func TestManifestsAreCurrent(t *testing.T) {
	var want []string
	for name, text := range ruleFiles(t) {
		resource := strings.TrimSuffix(name, ".rules.yml")
		want = append(want, resource+".yaml")
		manifest, err := rules.PrometheusRule(resource, text)
		require.NoError(t, err)
		committed, err := os.ReadFile(filepath.Join("manifests", resource+".yaml"))
		require.NoError(t, err)
		assert.Equal(t, string(manifest), string(committed), "manifests/%s.yaml is stale: run make generate", resource)

		// The resource holds the same rules, no more and no less.
		var got struct{ Spec map[string]any }
		require.NoError(t, yaml.Unmarshal(committed, &got))
		var source map[string]any
		require.NoError(t, yaml.Unmarshal(text, &source))
		assert.Equal(t, source, got.Spec)
	}
	found, err := filepath.Glob("manifests/*.yaml")
	require.NoError(t, err)
	for i := range found {
		found[i] = path.Base(found[i])
	}
	assert.ElementsMatch(t, want, found)
}

func TestPrometheusRuleRefusesWhatIsNoYAML(t *testing.T) {
	_, err := rules.PrometheusRule("x", []byte("groups: ["))
	assert.ErrorContains(t, err, "reading the rules for x")
}

// Matchers that name no alert of ours, or labels that alerts do not have, would
// silently route and inhibit nothing.
func TestAlertmanagerFragmentNamesOurAlerts(t *testing.T) {
	text, err := fs.ReadFile(rules.Files(), rules.Alertmanager)
	require.NoError(t, err)
	signals, others := map[string]bool{}, map[string]bool{}
	for _, rule := range allRules(t) {
		switch {
		case rule.Annotations["signal_type"] != "":
			signals[rule.Alert] = true
		case rule.Alert != "":
			others[rule.Alert] = true
		}
	}
	var fragment struct {
		Route struct {
			Routes []struct {
				Matchers []string
				GroupBy  []string `json:"group_by"`
			}
		}
		InhibitRules []struct {
			SourceMatchers []string `json:"source_matchers"`
			TargetMatchers []string `json:"target_matchers"`
			Equal          []string
		} `json:"inhibit_rules"`
	}
	require.NoError(t, yaml.Unmarshal(text, &fragment))

	names := func(matchers []string) map[string]bool {
		found := map[string]bool{}
		for _, name := range regexp.MustCompile(`KernelGossip\w+`).FindAllString(strings.Join(matchers, " "), -1) {
			found[name] = true
		}
		return found
	}
	require.Len(t, fragment.Route.Routes, 1)
	assert.Equal(t, signals, names(fragment.Route.Routes[0].Matchers), "the operator gets every alert that carries a signal, and no other")
	require.Len(t, fragment.InhibitRules, 4)
	for _, rule := range fragment.InhibitRules {
		assert.Equal(t, []string{"namespace", "pod", "container", "instance"}, rule.Equal)
		for name := range names(append(rule.SourceMatchers, rule.TargetMatchers...)) {
			assert.True(t, signals[name], name)
			assert.False(t, others[name], name)
		}
	}
}

func TestScale(t *testing.T) {
	t.Run("durations and the names that carry them", func(t *testing.T) {
		out, err := rules.Scale([]byte(`- record: container:x:ratio_rate5m
  expr: rate(x_total[5m]) > 14.4 * 0.05 and container:x:avg1h > 120
  for: 10m
  annotations: {period_seconds: "300", text: 'over the last 1h {{ printf "%.1f" 5 }}'}
`), 20)
		require.NoError(t, err)
		assert.Equal(t, `- record: container:x:ratio_rate15s
  expr: rate(x_total[15s]) > 14.4 * 0.05 and container:x:avg3m > 120
  for: 30s
  annotations: {period_seconds: "15", text: 'over the last 3m {{ printf "%.1f" 5 }}'}
`, string(out))
	})
	t.Run("the files stay rules that read what they record", func(t *testing.T) {
		for name, text := range ruleFiles(t) {
			out, err := rules.Scale(text, 20)
			require.NoError(t, err, name)
			groups, errs := rulefmt.Parse(out, false, model.LegacyValidation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
			require.Empty(t, errs, name)
			records := map[string]bool{}
			for _, group := range groups.Groups {
				for _, rule := range group.Rules {
					records[rule.Record] = true
				}
			}
			for _, group := range groups.Groups {
				for _, rule := range group.Rules {
					for _, read := range selectors(t, rule) {
						assert.True(t, !strings.Contains(read, ":") || records[read], "%s reads %s", name, read)
					}
				}
			}
		}
	})
	t.Run("once is unchanged", func(t *testing.T) {
		for name, text := range ruleFiles(t) {
			out, err := rules.Scale(text, 1)
			require.NoError(t, err)
			assert.Equal(t, string(text), string(out), name)
		}
	})
	t.Run("refused", func(t *testing.T) {
		_, err := rules.Scale([]byte("for: 5m"), 7)
		assert.ErrorContains(t, err, "5m / 7 is not a whole number of seconds")
		_, err = rules.Scale([]byte("for: 5m"), 0)
		assert.ErrorContains(t, err, "factor of at least 1")
	})
}
