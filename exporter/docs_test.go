package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/collector"
	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
)

//go:generate go test -run ^TestReadme$ . -update-readme

var updateReadme = flag.Bool("update-readme", false, "write the tables into README.md")

const readme = "../README.md"

// The README's tables are those of the code.
func TestReadme(t *testing.T) {
	app, _ := newApp()
	for name, table := range map[string]string{
		"metrics":        metricsTable(),
		"exporter flags": markdown.Flags(app.Model()),
	} {
		if *updateReadme {
			require.NoError(t, markdown.Update(readme, name, table))
		}
		b, err := os.ReadFile(readme)
		require.NoError(t, err)
		section, err := markdown.Section(string(b), name)
		require.NoError(t, err)
		assert.Equal(t, table, section, "README.md is stale: run make generate")
	}
}

func metricsTable() string {
	var rows [][]string
	for _, m := range collector.Describe() {
		var labels []string
		for _, l := range m.Labels {
			if l != "namespace" && l != "pod" && l != "container" {
				labels = append(labels, "`"+l+"`")
			}
		}
		rows = append(rows, []string{
			"`" + strings.TrimPrefix(m.Name, "kernel_gossip_") + "`", m.Type, strings.Join(labels, ", "), markdown.Cell(m.Help), m.Collector,
		})
	}
	return markdown.Table([]string{"`kernel_gossip_` +", "type", "labels", "what it tells", "collector"}, rows)
}
