// Package soak judges what a process holds over time: after it has warmed up, it is
// to hold no more at the end than at the beginning.
package soak

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Level is something that a process holds, by its metric, and how much more of it at
// the end is still flat: a share of the beginning, and a number beside.
type Level struct {
	Name   string
	Metric string
	Share  float64
	Beside float64
}

// Levels are what has to stay flat.
func Levels() []Level {
	return []Level{
		{"resident memory, bytes", "process_resident_memory_bytes", 0.1, 2 << 20},
		{"goroutines", "go_goroutines", 0.1, 5},
		{"file descriptors", "process_open_fds", 0.1, 20},
		{"entries in BPF maps", "kernel_gossip_exporter_map_entries", 0.1, 100},
		{"cgroups, living and gone", "kernel_gossip_exporter_cgroups", 0.1, 100},
	}
}

// Point is one scrape: sums over a metric's series.
type Point struct {
	At     time.Duration // since the start
	Values map[string]float64
}

// Read sums each metric of a page in the text format.
func Read(at time.Duration, page io.Reader) (Point, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return Point{}, fmt.Errorf("reading metrics: %w", err)
	}
	p := Point{At: at, Values: map[string]float64{}}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			p.Values[name] += value(m)
		}
	}
	return p, nil
}

func value(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
}

// Verdict is one level's judgement.
type Verdict struct {
	Level
	Begin, End float64 // medians of the first and the last third, after the warm-up
	Flat       bool
}

// Judge leaves the first quarter out.
func Judge(points []Point, levels []Level) ([]Verdict, error) {
	warm := points[len(points)/4:]
	third := len(warm) / 3
	if third == 0 {
		return nil, fmt.Errorf("%d scrapes are too few to judge: let it run longer", len(points))
	}
	var out []Verdict
	for _, l := range levels {
		if _, ok := warm[0].Values[l.Metric]; !ok {
			return nil, fmt.Errorf("no metric %s: is a collector off?", l.Metric)
		}
		v := Verdict{Level: l, Begin: median(warm[:third], l.Metric), End: median(warm[len(warm)-third:], l.Metric)}
		v.Flat = v.End <= v.Begin*(1+l.Share)+l.Beside
		out = append(out, v)
	}
	return out, nil
}

func median(points []Point, metric string) float64 {
	var all []float64
	for _, p := range points {
		all = append(all, p.Values[metric])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// Table shows verdicts.
func Table(verdicts []Verdict) string {
	var b strings.Builder
	b.WriteString("| | first third | last third | |\n|---|---|---|---|\n")
	for _, v := range verdicts {
		word := "flat"
		if !v.Flat {
			word = "**grows**"
		}
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %s |\n", v.Name, v.Begin, v.End, word)
	}
	return b.String()
}
