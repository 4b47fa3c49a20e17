// Command generate writes rules/manifests, the PrometheusRule resources, docs/alerts.md
// and the README's table from the rule files. Run it in rules/.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
	"github.com/kernel-gossip/kernel-gossip/rules"
)

func main() {
	if err := run("manifests", "../docs/alerts.md", "../README.md"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(dir, docs, readme string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names, err := fs.Glob(rules.Files(), rules.Pattern)
	if err != nil {
		return err
	}
	for _, file := range names {
		text, err := fs.ReadFile(rules.Files(), file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(file, ".rules.yml")
		manifest, err := rules.PrometheusRule(name, text)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), manifest, 0o644); err != nil {
			return err
		}
	}
	page, err := rules.Markdown()
	if err != nil {
		return err
	}
	if err := os.WriteFile(docs, page, 0o644); err != nil {
		return err
	}
	table, err := rules.Table()
	if err != nil {
		return err
	}
	return markdown.Update(readme, "alerts", table)
}
