package rules

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Record      string            `json:"record"`
			Expr        string            `json:"expr"`
			For         string            `json:"for"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

// Markdown is docs/alerts.md: every alert and recording rule with its expression.
func Markdown() ([]byte, error) {
	names, err := fs.Glob(files, Pattern)
	if err != nil {
		return nil, err
	}
	var alerts, records bytes.Buffer
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		var f ruleFile
		if err := yaml.Unmarshal(text, &f); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				if r.Record != "" {
					fmt.Fprintf(&records, "| `%s` | [%s](../rules/%s) |\n", r.Record, g.Name, name)
					continue
				}
				fmt.Fprintf(&alerts, "\n### %s, %s", r.Alert, r.Labels["severity"])
				for _, l := range slices.Sorted(maps.Keys(r.Labels)) {
					if l != "severity" {
						fmt.Fprintf(&alerts, ", %s %s", l, r.Labels[l])
					}
				}
				fmt.Fprintf(&alerts, "\n\n%s\n\n", r.Annotations["summary"])
				if url := r.Annotations["runbook_url"]; url != "" {
					fmt.Fprintf(&alerts, "[What to do](../rules/runbooks/%s). ", path.Base(url))
				}
				if r.For != "" {
					fmt.Fprintf(&alerts, "After %s of:", r.For)
				} else {
					fmt.Fprint(&alerts, "At once when:")
				}
				fmt.Fprintf(&alerts, "\n\n```promql\n%s\n```\n", strings.TrimSpace(r.Expr))
			}
		}
	}
	var page bytes.Buffer
	fmt.Fprint(&page, "# Alerts\n\nGenerated from [rules](../rules) by `make generate`; do not edit. `{{ … }}` is filled in by Prometheus.\n")
	page.Write(alerts.Bytes())
	fmt.Fprint(&page, "\n## Recording rules\n\n| series | group |\n|---|---|\n")
	page.Write(records.Bytes())
	return page.Bytes(), nil
}
