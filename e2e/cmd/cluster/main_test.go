package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The scenarios wait for what these say, so none may fall out of step with the files.
func TestHurried(t *testing.T) {
	rules, err := filepath.Glob("../../../rules/*.rules.yml")
	require.NoError(t, err)
	require.NotEmpty(t, rules)
	for _, path := range rules {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		got := hurried(string(b))
		assert.NotContains(t, got, "[5m]", path)
		assert.NotContains(t, got, `"300"`, path)
		assert.NotRegexp(t, `(?m)^\s+for: [0-9]+[mh]`, got, path)
		assert.Contains(t, got, "for: 10s", path)
	}
	for path, want := range map[string][]string{
		"../../../deploy/prometheus/scrape.yml": {"job_name: kernel-gossip-exporter\n    scrape_interval: 5s"},
		"../../../rules/alertmanager.yml":       {"group_wait: 1s", "group_interval: 5s"},
	} {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, w := range want {
			assert.Contains(t, hurried(string(b)), w, path)
			assert.NotContains(t, string(b), w, path)
		}
	}
}
