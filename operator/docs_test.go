package main

import (
	"flag"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
	"github.com/kernel-gossip/kernel-gossip/operator/otlp"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

//go:generate go test -run ^TestReadme$ . -update-readme

var updateReadme = flag.Bool("update-readme", false, "write the table into README.md")

// The README's tables are those of the code.
func TestReadme(t *testing.T) {
	const readme = "../README.md"
	app, _ := newApp()
	for name, table := range map[string]string{
		"operator flags":   markdown.Flags(app.Model()),
		"operator metrics": metricsTable(t),
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

// declared keeps what is registered.
type declared struct{ all []prometheus.Collector }

func (d *declared) Register(c prometheus.Collector) error {
	d.all = append(d.all, c)
	return nil
}
func (d *declared) MustRegister(cs ...prometheus.Collector) { d.all = append(d.all, cs...) }
func (*declared) Unregister(prometheus.Collector) bool      { return false }

func metricsTable(t *testing.T) string {
	t.Helper()
	var d declared
	store.NewMetrics(&d)
	door := intake.Options{Logger: slog.New(slog.DiscardHandler), Registerer: &d}
	intake.New(nil, door)
	otlp.New(nil, otlp.Options{Logger: door.Logger, Registerer: &d})
	// A collector tells what it has only in words.
	words := regexp.MustCompile(`^Desc{fqName: "(\w+)", help: (".*?"), unit: "\w*", constLabels: {}, variableLabels: {(.*)}}$`)
	var rows [][]string
	for _, c := range d.all {
		ch := make(chan *prometheus.Desc, 1)
		c.Describe(ch)
		desc := (<-ch).String()
		m := words.FindStringSubmatch(desc)
		require.NotNil(t, m, desc)
		help, err := strconv.Unquote(m[2])
		require.NoError(t, err, desc)
		var labels []string
		for l := range strings.SplitSeq(m[3], ",") {
			if l != "" {
				labels = append(labels, "`"+l+"`")
			}
		}
		kind := "gauge"
		switch c.(type) {
		case *prometheus.CounterVec, prometheus.Counter:
			kind = "counter"
		case *prometheus.HistogramVec, prometheus.Histogram:
			kind = "histogram"
		}
		name, ok := strings.CutPrefix(m[1], "kernel_gossip_operator_")
		require.True(t, ok, desc)
		rows = append(rows, []string{"`" + name + "`", kind, strings.Join(labels, ", "), markdown.Cell(help)})
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return markdown.Table([]string{"`kernel_gossip_operator_` +", "type", "labels", "what it tells"}, rows)
}
