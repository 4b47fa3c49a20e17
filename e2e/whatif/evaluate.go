package whatif

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
)

// Traces are runs and the machine that they ran on.
type Traces struct {
	Machine string
	CPUs    int
	Runs    []Run
}

// ReadFiles reads files that Begin and Write wrote, gzipped or not, as one.
func ReadFiles(paths ...string) (Traces, error) {
	var all Traces
	for _, path := range paths {
		one, err := readFile(path)
		if err != nil {
			return Traces{}, fmt.Errorf("%s: %w", path, err)
		}
		all.Machine, all.CPUs, all.Runs = one.Machine, one.CPUs, append(all.Runs, one.Runs...)
	}
	return all, nil
}

func readFile(path string) (_ Traces, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Traces{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if filepath.Ext(path) != ".gz" {
		return Read(f)
	}
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return Traces{}, err
	}
	return Read(unzipped)
}

// Read reads what Begin and Write wrote.
func Read(in io.Reader) (Traces, error) {
	var all Traces
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		if machine, ok := strings.CutPrefix(lines.Text(), "# "); ok {
			if _, err := fmt.Sscanf(machine, "%d CPUs", &all.CPUs); err != nil {
				return Traces{}, fmt.Errorf("reading the traces, line %d: how many CPUs is %q? %w", n, machine, err)
			}
			all.Machine = machine
			continue
		}
		r, err := parse(strings.Fields(lines.Text()))
		if err != nil {
			return Traces{}, fmt.Errorf("reading the traces, line %d: %w", n, err)
		}
		all.Runs = append(all.Runs, r)
	}
	if err := lines.Err(); err != nil {
		return Traces{}, fmt.Errorf("reading the traces: %w", err)
	}
	return all, nil
}

func parse(fields []string) (Run, error) {
	if len(fields) < 5 {
		return Run{}, errors.New("want shape, seed, limit, nr_periods, nr_throttled and periods")
	}
	var head [4]uint64
	for i := range head {
		n, err := strconv.ParseUint(fields[i+1], 10, 63)
		if err != nil {
			return Run{}, err
		}
		head[i] = n
	}
	r := Run{Shape: fields[0], Seed: head[0], Limit: time.Duration(head[1]) * ms, Periods: head[2], Throttled: head[3]} //nolint:gosec // below 2^63
	for _, text := range fields[5:] {
		p := bpf.Period{Quota: r.Limit, Length: length}
		text, p.Throttled = strings.CutSuffix(text, "!")
		var slot, used, denied int64
		if _, err := fmt.Sscanf(text, "%d:%d:%d", &slot, &used, &denied); err != nil {
			return Run{}, fmt.Errorf("period %q: %w", text, err)
		}
		p.Start, p.Used, p.Denied = time.Duration(slot)*length, time.Duration(used)*time.Microsecond, time.Duration(denied)*time.Microsecond
		r.Trace = append(r.Trace, p)
	}
	return r, nil
}

// Ratio is the share of throttled periods, by cpu.stat.
func (r *Run) Ratio() float64 {
	if r.Periods == 0 {
		return 0
	}
	return float64(r.Throttled) / float64(r.Periods)
}

// Observed is the trace as the estimator takes it.
func (r *Run) Observed() []whatif.Period {
	out := make([]whatif.Period, len(r.Trace))
	for i, p := range r.Trace {
		out[i] = whatif.Period{Start: p.Start, Used: p.Used, Denied: p.Denied, Throttled: p.Throttled, Quota: p.Quota, Length: p.Length}
	}
	return out
}

// Pair is a prediction from one run for the limit of another of the same work.
type Pair struct {
	From, To *Run
	Mean     float64 // cores used at From's limit
	Told     bool    // neither saturated nor on the edge
	Predicted, Low,
	High float64 // also where it is not told: what would have been said
}

// Off is the error in points.
func (p *Pair) Off() float64 { return 100 * math.Abs(p.Predicted-p.To.Ratio()) }

// Up tells whether the other limit is the higher one.
func (p *Pair) Up() bool { return p.To.Limit > p.From.Limit }

// Pairs predicts from each run for each other limit of its shape and seed. A run is
// as short as it is: gates of time are for what goes on.
func Pairs(t Traces) []Pair {
	runs, bounds := t.Runs, whatif.Bounds{CPUs: t.CPUs}
	var out []Pair
	for i := range runs {
		for j := range runs {
			a, b := &runs[i], &runs[j]
			if a.Shape != b.Shape || a.Seed != b.Seed || a.Limit == b.Limit {
				continue
			}
			cfg := whatif.DefaultConfig()
			cfg.MinWindow, cfg.MinPeriods = time.Second, 1
			cfg.Multiples = []float64{b.Limit.Seconds() / a.Limit.Seconds()}
			told := whatif.Estimate(cfg, a.Observed(), bounds)
			cfg.MinClear, cfg.Edge = 0, 0
			all := whatif.Estimate(cfg, a.Observed(), bounds)
			if len(all.At) == 0 {
				continue
			}
			at := all.At[0]
			out = append(out, Pair{
				From: a, To: b, Mean: all.Mean, Predicted: at.Ratio, Low: at.Low, High: at.High,
				Told: told.Outcome == whatif.Predicted && told.At[0].Outcome == whatif.Predicted,
			})
		}
	}
	return out
}

// far is how many points a prediction must be off to be one that should be declined.
const far = 15

// category is some of the pairs.
type category struct {
	name string
	in   func(p *Pair) bool
}

func categories() []category {
	return []category{
		{"to a higher limit", (*Pair).Up},
		{"… where more than 1 % was measured", func(p *Pair) bool { return p.Up() && p.To.Ratio() > 0.01 }},
		{"to a lower limit, at least 1.1 times the mean use", (*Pair).downToEnough},
	}
}

// downToEnough is a lower limit that still lets the mean use through.
func (p *Pair) downToEnough() bool {
	return !p.Up() && p.To.Limit.Seconds()/length.Seconds() >= 1.1*p.Mean
}

// Errors are those of the predictions of a group that were told.
type Errors struct {
	Pairs, Within int // of which the measured ratio was within low and high
	Mean, Worst   float64
	Of            *Pair // the worst
}

func errorsOf(pairs []Pair, in func(p *Pair) bool) Errors {
	var e Errors
	for i := range pairs {
		p := &pairs[i]
		if !p.Told || !in(p) {
			continue
		}
		e.Pairs++
		e.Mean += p.Off()
		if e.Of == nil || p.Off() > e.Worst {
			e.Worst, e.Of = p.Off(), p
		}
		if m := p.To.Ratio(); m >= p.Low && m <= p.High {
			e.Within++
		}
	}
	if e.Pairs > 0 {
		e.Mean /= float64(e.Pairs)
	}
	return e
}

// Coverage is the share of pairs whose measured ratio was within low and high.
func (e Errors) Coverage() float64 { return float64(e.Within) / float64(e.Pairs) }

// Declined counts, of the pairs that were or would be off by more than far points, those
// that were declined rather than told.
func Declined(pairs []Pair) (declined, off int) {
	for i := range pairs {
		if pairs[i].Off() > far {
			off++
			if !pairs[i].Told {
				declined++
			}
		}
	}
	return declined, off
}

// Accuracy is a table of the errors in points, and one of them by shape.
func Accuracy(pairs []Pair) string {
	var rows, shapes [][]string
	for _, g := range categories() {
		e := errorsOf(pairs, g.in)
		if e.Pairs == 0 {
			continue
		}
		rows = append(rows, []string{
			g.name, strconv.Itoa(e.Pairs), fmt.Sprintf("%.2f", e.Mean),
			fmt.Sprintf("%.1f (%s)", e.Worst, e.Of), fmt.Sprintf("%.0f %%", 100*e.Coverage()),
		})
	}
	told := 0
	byShape := map[string][]Pair{}
	for _, p := range pairs {
		if p.Told {
			told++
		}
		byShape[p.From.Shape] = append(byShape[p.From.Shape], p)
	}
	for _, name := range slices.Sorted(maps.Keys(byShape)) {
		row := []string{name}
		for _, in := range []func(*Pair) bool{(*Pair).Up, (*Pair).downToEnough} {
			e := errorsOf(byShape[name], in)
			if e.Pairs == 0 {
				row = append(row, "–", "–")
				continue
			}
			row = append(row, strconv.Itoa(e.Pairs), fmt.Sprintf("%.1f, at most %.1f", e.Mean, e.Worst))
		}
		declined, off := Declined(byShape[name])
		shapes = append(shapes, append(row, fmt.Sprintf("%d of %d", declined, off)))
	}
	declined, off := Declined(pairs)
	return markdown.Table([]string{"predictions told", "pairs", "mean error, points", "worst", "measured within low and high"}, rows) +
		fmt.Sprintf("\nTold are %d of %d; of the %d that are or would be off by more than %d points, %d are declined.\n\n", told, len(pairs), off, far, declined) +
		markdown.Table([]string{"shape", "up, told", "error, points", "down, told", "error, points", fmt.Sprintf("off by more than %d: declined", far)}, shapes)
}

// String names the work and the two limits.
func (p *Pair) String() string {
	return fmt.Sprintf("%s, %s to %s: %.0f %% for %.0f %%", p.From.Shape, p.From.Limit, p.To.Limit, 100*p.Predicted, 100*p.To.Ratio())
}
