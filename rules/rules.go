// Package rules holds the Prometheus rules and the Alertmanager fragment, and
// derives from them what other places need.
package rules

//go:generate go run ./cmd/generate

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"
)

// Pattern matches the rule files in Files.
const Pattern = "*.rules.yml"

// Alertmanager is the name of the Alertmanager fragment in Files.
const Alertmanager = "alertmanager.yml"

//go:embed *.rules.yml alertmanager.yml
var files embed.FS

// Files are the rule files and the Alertmanager fragment, as Prometheus and
// Alertmanager load them.
func Files() fs.FS { return files }

// PrometheusRule wraps a rule file in the resource that the Prometheus operator
// loads (monitoring.coreos.com/v1), named name.
func PrometheusRule(name string, file []byte) ([]byte, error) {
	var spec map[string]any
	if err := yaml.Unmarshal(file, &spec); err != nil {
		return nil, fmt.Errorf("reading the rules for %s: %w", name, err)
	}
	out, err := yaml.Marshal(map[string]any{
		"apiVersion": "monitoring.coreos.com/v1",
		"kind":       "PrometheusRule",
		"metadata": map[string]any{
			"name":      name,
			"namespace": "kernel-gossip",
			"labels":    map[string]string{"app.kubernetes.io/part-of": "kernel-gossip"},
		},
		"spec": spec,
	})
	if err != nil {
		return nil, fmt.Errorf("writing PrometheusRule %s: %w", name, err)
	}
	return append([]byte("# Generated from rules/"+name+".rules.yml by make generate. Do not edit.\n"), out...), nil
}

// Scale divides every duration in a rule file by factor: ranges, `for`,
// intervals, and with them the names and texts that carry one. Thresholds stay.
// It lets a demonstration fire in seconds what takes minutes in earnest; each
// duration must be a whole number of seconds after the division.
func Scale(file []byte, factor int) ([]byte, error) {
	if factor < 1 {
		return nil, fmt.Errorf("scaling rules by %d: want a factor of at least 1", factor)
	}
	var fault error
	duration := regexp.MustCompile(`\b(rate|avg|max|increase|ratio_rate|ratio_limit_avg)?(\d+[smhd])\b`)
	out := duration.ReplaceAllFunc(file, func(match []byte) []byte {
		parts := duration.FindSubmatch(match)
		long, err := model.ParseDuration(string(parts[2]))
		short := time.Duration(long) / time.Duration(factor)
		if err == nil && short%time.Second != 0 {
			err = fmt.Errorf("%s / %d is not a whole number of seconds", parts[2], factor)
		}
		if err != nil && fault == nil {
			fault = fmt.Errorf("scaling rules: %w", err)
		}
		return append(append([]byte{}, parts[1]...), model.Duration(short).String()...)
	})
	seconds := regexp.MustCompile(`(period_seconds: ")(\d+)"`)
	out = seconds.ReplaceAllFunc(out, func(match []byte) []byte {
		parts := seconds.FindSubmatch(match)
		n, err := strconv.Atoi(string(parts[2]))
		if err != nil && fault == nil {
			fault = fmt.Errorf("scaling period_seconds: %w", err)
		}
		return fmt.Appendf(nil, "%s%d\"", parts[1], n/factor)
	})
	if fault != nil {
		return nil, fault
	}
	return out, nil
}
