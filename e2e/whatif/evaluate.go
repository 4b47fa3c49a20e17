package whatif

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/whatif"
)

// Read reads what Write wrote.
func Read(in io.Reader) ([]Run, error) {
	var runs []Run
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		r, err := parse(strings.Fields(lines.Text()))
		if err != nil {
			return nil, fmt.Errorf("reading the traces, line %d: %w", n, err)
		}
		runs = append(runs, r)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the traces: %w", err)
	}
	return runs, nil
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
func Pairs(runs []Run, cpus int) []Pair {
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
			told := whatif.Estimate(cfg, a.Observed(), whatif.Bounds{CPUs: cpus})
			cfg.MinClear, cfg.Edge = 0, 0
			all := whatif.Estimate(cfg, a.Observed(), whatif.Bounds{CPUs: cpus})
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

// Accuracy writes a table of the errors in points.
func Accuracy(out io.Writer, pairs []Pair) error {
	var b strings.Builder
	fmt.Fprintln(&b, "| predictions told | pairs | mean error, points | worst | measured within low and high |")
	fmt.Fprintln(&b, "|---|---|---|---|---|")
	for _, g := range []struct {
		name string
		in   func(p *Pair) bool
	}{
		{"to a higher limit", func(p *Pair) bool { return p.Up() }},
		{"… where more than 1 % was measured", func(p *Pair) bool { return p.Up() && p.To.Ratio() > 0.01 }},
		{"to a lower limit, at least 1.1 times the mean use", func(p *Pair) bool { return !p.Up() && p.To.Limit.Seconds()/length.Seconds() >= 1.1*p.Mean }},
	} {
		var n, within int
		var sum, worst float64
		which := ""
		for i := range pairs {
			p := &pairs[i]
			if !p.Told || !g.in(p) {
				continue
			}
			n++
			sum += p.Off()
			if p.Off() > worst {
				worst, which = p.Off(), fmt.Sprintf(" (%s, %s to %s)", p.From.Shape, p.From.Limit, p.To.Limit)
			}
			if m := p.To.Ratio(); m >= p.Low && m <= p.High {
				within++
			}
		}
		if n > 0 {
			fmt.Fprintf(&b, "| %s | %d | %.2f | %.1f%s | %.0f %% |\n", g.name, n, sum/float64(n), worst, which, 100*float64(within)/float64(n))
		}
	}
	var off, declined, all int
	for i := range pairs {
		if pairs[i].Off() > far {
			off++
			if !pairs[i].Told {
				declined++
			}
		}
		if !pairs[i].Told {
			all++
		}
	}
	fmt.Fprintf(&b, "\nDeclined: %d of %d pairs; of the %d that would be off by more than %d points, %d.\n", all, len(pairs), off, far, declined)
	_, err := io.WriteString(out, b.String())
	return err
}
