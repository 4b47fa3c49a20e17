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

type rule struct {
	Alert       string            `json:"alert"`
	Record      string            `json:"record"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`

	file, group string
}

// runbook is the file that the alert's runbook_url ends with.
func (r rule) runbook() string { return path.Base(r.Annotations["runbook_url"]) }

// all is every rule, in the order of the files.
func all() ([]rule, error) {
	names, err := fs.Glob(files, Pattern)
	if err != nil {
		return nil, err
	}
	var out []rule
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		var f struct {
			Groups []struct {
				Name  string `json:"name"`
				Rules []rule `json:"rules"`
			} `json:"groups"`
		}
		if err := yaml.Unmarshal(text, &f); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				r.file, r.group = name, g.Name
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// Table is the README's: every alert in a row, with its severities, the times that it
// waits for, and its runbook.
func Table() (string, error) {
	rules, err := all()
	if err != nil {
		return "", err
	}
	type row struct{ severities, waits []string }
	rows := map[string]*row{}
	var order []rule
	for _, r := range rules {
		if r.Alert == "" {
			continue
		}
		if rows[r.Alert] == nil {
			rows[r.Alert] = &row{}
			order = append(order, r)
		}
		row := rows[r.Alert]
		if s := r.Labels["severity"]; !slices.Contains(row.severities, s) {
			row.severities = append(row.severities, s)
		}
		if !slices.Contains(row.waits, r.For) {
			row.waits = append(row.waits, r.For)
		}
	}
	var b strings.Builder
	fmt.Fprint(&b, "| alert | severity | after | runbook |\n|---|---|---|---|\n")
	for _, r := range order {
		fmt.Fprintf(&b, "| `%s` | %s | %s | [what to do](rules/runbooks/%s) |\n",
			r.Alert, strings.Join(rows[r.Alert].severities, ", "), strings.Join(rows[r.Alert].waits, ", "), r.runbook())
	}
	return b.String(), nil
}

// Markdown is docs/alerts.md: every alert and recording rule with its expression.
func Markdown() ([]byte, error) {
	rules, err := all()
	if err != nil {
		return nil, err
	}
	var alerts, records bytes.Buffer
	for _, r := range rules {
		if r.Record != "" {
			fmt.Fprintf(&records, "| `%s` | [%s](../rules/%s) |\n", r.Record, r.group, r.file)
			continue
		}
		fmt.Fprintf(&alerts, "\n### %s, %s", r.Alert, r.Labels["severity"])
		for _, l := range slices.Sorted(maps.Keys(r.Labels)) {
			if l != "severity" {
				fmt.Fprintf(&alerts, ", %s %s", l, r.Labels[l])
			}
		}
		fmt.Fprintf(&alerts, "\n\n%s\n\n[What to do](../rules/runbooks/%s). ", r.Annotations["summary"], r.runbook())
		if r.For != "" {
			fmt.Fprintf(&alerts, "After %s of:", r.For)
		} else {
			fmt.Fprint(&alerts, "At once when:")
		}
		fmt.Fprintf(&alerts, "\n\n```promql\n%s\n```\n", strings.TrimSpace(r.Expr))
	}
	var page bytes.Buffer
	fmt.Fprint(&page, "# Alerts\n\nGenerated from [rules](../rules) by `make generate`; do not edit. `{{ … }}` is filled in by Prometheus.\n")
	page.Write(alerts.Bytes())
	fmt.Fprint(&page, "\n## Recording rules\n\n| series | group |\n|---|---|\n")
	page.Write(records.Bytes())
	return page.Bytes(), nil
}
