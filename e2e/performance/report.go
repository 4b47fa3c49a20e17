// Package performance makes a document of benchmark runs: what is attached to a hook
// costs so much more than nothing, and so many times what its rivals cost.
package performance

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Unit is the figure that is compared: CPU time charged to the benchmark's cgroup.
const Unit = "cpu-ns/op"

// Run is the figures of one round, by the benchmark's name without its GOMAXPROCS.
type Run map[string]map[string]float64 // name, unit

// Parse reads what go test -bench prints. Lines of other forms are passed over; a
// line that begins as a result and is none is an error.
func Parse(r io.Reader) (Run, error) {
	run := Run{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil || len(fields)%2 != 0 {
			return nil, fmt.Errorf("%q is no result of a benchmark", lines.Text())
		}
		name := fields[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		values := map[string]float64{}
		for i := 2; i < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q is no result of a benchmark: %w", lines.Text(), err)
			}
			values[fields[i+1]] = v
		}
		run[name] = values
	}
	return run, lines.Err()
}

// Added is what a way costs more than nothing, over all rounds that have both: the
// median, and the least and most.
type Added struct {
	Median, Least, Most float64
	Quartile            float64 // the lower
}

func added(runs []Run, prefix, way string) (Added, bool) {
	var all []float64
	for _, run := range runs {
		with, ok := run[prefix+way][Unit]
		without, also := run[prefix+"none"][Unit]
		if ok && also {
			all = append(all, with-without)
		}
	}
	if len(all) == 0 {
		return Added{}, false
	}
	slices.Sort(all)
	return Added{Median: median(all), Least: all[0], Most: all[len(all)-1], Quartile: all[len(all)/4]}, true
}

func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// Way is one row: what is attached, in words, and the way whose cost is its floor.
type Way struct{ Attached, Words, Floor string }

// Table compares ways below a benchmark's prefix, as "BenchmarkSwitch/attached=". The
// last columns are times the way's floor, and ours as a share of it.
func Table(runs []Run, prefix string, ways []Way) string {
	var out strings.Builder
	out.WriteString("| attached | adds, ns | from – to | times its floor | ours to it | ns a run |\n|---|---|---|---|---|---|\n")
	ours, known := added(runs, prefix, "ours")
	for _, w := range ways {
		a, ok := added(runs, prefix, w.Attached)
		if !ok {
			fmt.Fprintf(&out, "| %s | not on this kernel | | | | |\n", w.Words)
			continue
		}
		floor, share := "", ""
		if f, ok := added(runs, prefix, w.Floor); ok && w.Floor != "" {
			floor = ratio(a, f)
		}
		if known && w.Attached != "ours" {
			share = ratio(ours, a)
		}
		var each []float64
		for _, run := range runs {
			if ns, ok := run[prefix+w.Attached]["sys_enter-ns/run"]; ok {
				each = append(each, ns)
			}
		}
		account := ""
		if len(each) > 0 {
			slices.Sort(each)
			account = fmt.Sprintf("%.0f", median(each))
		}
		fmt.Fprintf(&out, "| %s | %.0f | %.0f – %.0f | %s | %s | %s |\n", w.Words, a.Median, a.Least, a.Most, floor, share, account)
	}
	return out.String()
}

// Hooks are some whose programs are looked at together.
type Hooks struct {
	Words string
	Names []string
}

// Programs compares what the programs of each group of hooks take of a switch, by the
// kernel's account of their run times. A way without a program there has no row.
func Programs(runs []Run, prefix string, ways []Way, groups []Hooks) string {
	var out strings.Builder
	out.WriteString("| hooks | attached | runs a switch | ns a run | ns a switch | from – to | times the floor | ours to it |\n|---|---|---|---|---|---|---|---|\n")
	for _, hooks := range groups {
		sum := func(way, unit string) (all []float64) {
			for _, run := range runs {
				total, known := 0.0, false
				for _, hook := range hooks.Names {
					if v, ok := run[prefix+way][hook+unit]; ok {
						total, known = total+v, true
					}
				}
				if known {
					all = append(all, total)
				}
			}
			slices.Sort(all)
			return all
		}
		ours := sum("ours", "-ns/switch")
		for _, w := range ways {
			ns, times := sum(w.Attached, "-ns/switch"), sum(w.Attached, "-runs/switch")
			if len(ns) == 0 {
				continue
			}
			floor, share := "", ""
			if f := sum(w.Floor, "-ns/switch"); len(f) > 0 {
				floor = fmt.Sprintf("%.2f", median(ns)/median(f))
			}
			if len(ours) > 0 && w.Attached != "ours" {
				share = fmt.Sprintf("%.2f", median(ours)/median(ns))
			}
			fmt.Fprintf(&out, "| %s | %s | %.2f | %.0f | %.0f | %.0f – %.0f | %s | %s |\n", hooks.Words, w.Words,
				median(times), median(ns)/median(times), median(ns), ns[0], ns[len(ns)-1], floor, share)
		}
	}
	return out.String()
}

// ratio is a dash where more than a quarter of the rounds have either cost below
// nothing: then the machine's noise is larger than what is compared.
func ratio(a, b Added) string {
	if a.Quartile <= 0 || b.Quartile <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a.Median/b.Median)
}
