package main

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
)

//go:generate go test -run ^TestReadme$ . -update-readme

var updateReadme = flag.Bool("update-readme", false, "write the table into README.md")

// The README's table of flags is that of the code.
func TestReadme(t *testing.T) {
	const readme, name = "../README.md", "operator flags"
	app, _ := newApp()
	table := markdown.Flags(app.Model())
	if *updateReadme {
		require.NoError(t, markdown.Update(readme, name, table))
	}
	b, err := os.ReadFile(readme)
	require.NoError(t, err)
	section, err := markdown.Section(string(b), name)
	require.NoError(t, err)
	assert.Equal(t, table, section, "README.md is stale: run make generate")
}
