// Command recommenders follows what recommends CPU limits, step by step, on recorded
// traces (cmd/whatif): from a limit that throttles over half of the periods, each step
// goes to the recorded limit at or above the recommended one, where what the kernel
// then did was recorded, too. The Vertical Pod Autoscaler is its own recommender.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"time"

	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/logic"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/model"

	"github.com/kernel-gossip/kernel-gossip/e2e/whatif"
	estimator "github.com/kernel-gossip/kernel-gossip/exporter/whatif"
	"github.com/kernel-gossip/kernel-gossip/operator/markdown"
)

const (
	enough   = 0.02 // of periods throttled
	maxSteps = 8
)

// policy recommends cores from the runs so far, the newest last.
type policy struct {
	name string
	next func(seen []*whatif.Run) float64
	// lowers is the multiple of what is recommended from which a limit that is enough
	// is lowered; 0: it never is.
	lowers float64
	ours   bool
}

func policies(cpus int) []policy {
	return []policy{
		{name: "kernel-gossip's what-if", next: gossip(cpus), lowers: 1.5, ours: true},
		{name: "VPA's recommender (p90 of use + 15 %)", next: vpa},
		{name: "p95 of use", next: p95},
		{name: "limit + 50 %", next: func(seen []*whatif.Run) float64 { return 1.5 * cores(last(seen)) }},
		{name: "Autothrottle's rule", next: captain},
	}
}

func last(seen []*whatif.Run) *whatif.Run { return seen[len(seen)-1] }

func cores(r *whatif.Run) float64 { return r.Limit.Seconds() / whatif.PeriodLength.Seconds() }

func gossip(cpus int) func(seen []*whatif.Run) float64 {
	cfg := estimator.DefaultConfig()
	cfg.MinWindow, cfg.MinPeriods = time.Second, 1 // a run is as long as it is
	return func(seen []*whatif.Run) float64 {
		r := estimator.Estimate(cfg, last(seen).Observed(), estimator.Bounds{CPUs: cpus})
		if r.Outcome == estimator.Saturated {
			return r.Next
		}
		return r.Recommended
	}
}

// vpa is asked as the VPA is when its limit follows its request: one sample of use for
// each run, which is about what metrics-server averages over, with the VPA's defaults.
func vpa(seen []*whatif.Run) float64 {
	state := model.NewAggregateContainerState()
	for i, r := range seen {
		state.AddSample(&model.ContainerUsageSample{
			MeasureStart: time.Unix(1_800_000_000, 0).Add(time.Duration(i) * time.Minute),
			Usage:        model.CPUAmountFromCores(mean(r)), Resource: model.ResourceCPU,
		})
	}
	recommender := logic.CreatePodResourceRecommender(logic.RecommendationConfig{
		SafetyMarginFraction: 0.15, PodMinCPUMillicores: 25, PodMinMemoryMb: 250,
		TargetCPUPercentile: 0.9, LowerBoundCPUPercentile: 0.5, UpperBoundCPUPercentile: 0.95, ConfidenceIntervalCPU: 24 * time.Hour,
		TargetMemoryPercentile: 0.9, LowerBoundMemoryPercentile: 0.5, UpperBoundMemoryPercentile: 0.95, ConfidenceIntervalMemory: 24 * time.Hour,
	})
	got := recommender.GetRecommendedPodResources(model.ContainerNameToAggregateStateMap{"app": state})
	return model.CoresFromCPUAmount(got["app"].Target[model.ResourceCPU])
}

func mean(r *whatif.Run) float64 {
	ps := r.Observed()
	var used time.Duration
	for _, p := range ps {
		used += p.Used
	}
	return used.Seconds() / (ps[len(ps)-1].Start + ps[len(ps)-1].Length - ps[0].Start).Seconds()
}

// p95 is of the use of each second.
func p95(seen []*whatif.Run) float64 {
	var seconds []float64
	for _, p := range last(seen).Observed() {
		i := int(p.Start / time.Second)
		for len(seconds) <= i {
			seconds = append(seconds, 0)
		}
		seconds[i] += p.Used.Seconds()
	}
	slices.Sort(seconds)
	return seconds[int(math.Ceil(0.95*float64(len(seconds))))-1]
}

// captain is the published rule of Autothrottle (NSDI '24, section 3.2) with its
// constants, for a target of 2 %: after a look with more than α times the target
// throttled, the limit grows by the excess. A look of it is a second; here a run.
func captain(seen []*whatif.Run) float64 {
	const alpha = 3
	r := last(seen)
	if over := r.Ratio() - alpha*enough; over > 0 {
		return cores(r) * (1 + over)
	}
	return cores(r)
}

// walk is what came of following a policy.
type walk struct {
	shape    string
	steps    int
	ratio    float64
	cores    float64
	smallest float64 // limit that is enough; 0: none of the recorded ones
}

// follow goes from the highest limit that throttles over half of the periods; false
// when there is none.
func follow(p policy, runs []*whatif.Run) (walk, bool) {
	from := -1
	w := walk{shape: runs[0].Shape}
	for i, r := range runs {
		if r.Ratio() > 0.5 {
			from = i
		}
		if w.smallest == 0 && r.Ratio() <= enough {
			w.smallest = cores(r)
		}
	}
	if from < 0 {
		return w, false
	}
	seen := []*whatif.Run{runs[from]}
	for lowered := false; w.steps < maxSteps; w.steps++ {
		want := p.next(seen)
		i := slices.IndexFunc(runs, func(r *whatif.Run) bool { return cores(r) >= want*0.999 })
		if i < 0 {
			i = len(runs) - 1
		}
		if last(seen).Ratio() <= enough {
			if lowered || p.lowers == 0 || cores(last(seen)) < p.lowers*want || runs[i].Limit >= last(seen).Limit {
				break
			}
			lowered = true
		} else if runs[i].Limit <= last(seen).Limit {
			break // it holds the limit for enough
		}
		seen = append(seen, runs[i])
	}
	w.ratio, w.cores = last(seen).Ratio(), cores(last(seen))
	return w, true
}

func main() {
	document := flag.String("markdown", "", "a document whose section about this is written anew, such as ../docs/limits.md")
	flag.Parse()
	if err := run(flag.Args(), *document); err != nil {
		fmt.Fprintln(os.Stderr, "recommenders:", err)
		os.Exit(1)
	}
}

func run(files []string, document string) error {
	traces, err := whatif.ReadFiles(files...)
	if err != nil {
		return err
	}
	text, err := compare(traces)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if document == "" {
		return nil
	}
	return markdown.Update(document, "recommenders", text)
}

// compare follows each policy on each work that any recorded limit satisfies.
func compare(traces whatif.Traces) (string, error) {
	type work struct {
		shape string
		seed  uint64
	}
	byWork := map[work][]*whatif.Run{}
	for i := range traces.Runs {
		r := &traces.Runs[i]
		w := work{r.Shape, r.Seed}
		byWork[w] = append(byWork[w], r)
	}
	works := slices.SortedFunc(maps.Keys(byWork), func(a, b work) int {
		return cmp.Or(cmp.Compare(a.shape, b.shape), cmp.Compare(a.seed, b.seed))
	})
	for _, runs := range byWork {
		slices.SortFunc(runs, func(a, b *whatif.Run) int { return cmp.Compare(a.Limit, b.Limit) })
	}
	var rows, misses [][]string
	for _, p := range policies(traces.CPUs) {
		var n, reached, most int
		var steps, ratio, size, largest float64
		for _, w := range works {
			got, ok := follow(p, byWork[w])
			if !ok || got.smallest == 0 {
				continue
			}
			n++
			steps += float64(got.steps)
			most = max(most, got.steps)
			ratio += got.ratio
			if got.ratio <= enough {
				reached++
				size += got.cores / got.smallest
				largest = max(largest, got.cores/got.smallest)
			}
			if p.ours && (got.ratio > enough || got.steps > 3 || got.cores > 1.301*got.smallest) {
				misses = append(misses, []string{
					fmt.Sprintf("%s, seed %d", w.shape, w.seed), fmt.Sprint(got.steps), fmt.Sprintf("%.1f %%", 100*got.ratio),
					fmt.Sprintf("%.2f", got.cores), fmt.Sprintf("%.2f", got.smallest),
				})
			}
		}
		if n == 0 {
			return "", errors.New("no shape is throttled in over half of its periods at one recorded limit and enough at another")
		}
		relative := "–"
		if reached > 0 {
			relative = fmt.Sprintf("%.2f, at most %.2f", size/float64(reached), largest)
		}
		rows = append(rows, []string{
			p.name, fmt.Sprintf("%d of %d", reached, n), fmt.Sprintf("%.1f, at most %d", steps/float64(n), most),
			fmt.Sprintf("%.1f %%", 100*ratio/float64(n)), relative,
		})
	}
	text := markdown.Table([]string{"follow", "enough in the end", "steps", "throttled in the end, mean", "limit in the end, of the smallest that is enough"}, rows)
	if len(misses) > 0 {
		text += "\nThe what-if model missed its goals (at most 2 % throttled, 3 steps, 1.3 times the smallest) with\n\n" +
			markdown.Table([]string{"work", "steps", "throttled in the end", "cores in the end", "enough"}, misses)
	}
	return text, nil
}
