package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kernel-gossip/kernel-gossip/exporter/collector"
)

// docs prints the Markdown table of the metrics or of the flags, from the code
// that makes them.
func docs(app *kingpin.Application, what string, out io.Writer) error {
	var table strings.Builder
	if what == "metrics" {
		metricsTable(&table)
	} else {
		flagsTable(&table, app.Model())
	}
	_, err := io.WriteString(out, table.String())
	return err
}

func metricsTable(w *strings.Builder) {
	w.WriteString("| metric | type | labels | what it tells | collector |\n|---|---|---|---|---|\n")
	for _, m := range collector.Describe() {
		labels := "–"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s |\n", m.Name, m.Type, labels, cell(m.Help), m.Collector)
	}
}

func flagsTable(w *strings.Builder, app *kingpin.ApplicationModel) {
	w.WriteString("| flag | default | what it does |\n|---|---|---|\n")
	write := func(command string, flags []*kingpin.FlagModel) {
		for _, f := range flags {
			if f.Hidden || f.Name == "help" || f.Name == "version" {
				continue
			}
			def := "–"
			if len(f.Default) > 0 && f.Default[0] != "" {
				def = "`" + strings.Join(f.Default, ",") + "`"
			}
			fmt.Fprintf(w, "| `%s--%s` | %s | %s |\n", command, f.Name, def, cell(f.Help))
		}
	}
	write("", app.Flags)
	for _, c := range app.Commands {
		if !c.Hidden {
			write(c.Name+" ", c.Flags)
		}
	}
}

// cell keeps text from breaking out of a Markdown table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}
