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
	"math"
	"os"
	"runtime"
	"slices"
	"time"

	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/logic"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/model"

	"github.com/kernel-gossip/kernel-gossip/e2e/whatif"
	estimator "github.com/kernel-gossip/kernel-gossip/exporter/whatif"
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
}

func policies() []policy {
	return []policy{
		{"kernel-gossip's what-if", gossip, 1.5},
		{"VPA's recommender (p90 of use + 15 %)", vpa, 0},
		{"p95 of use", p95, 0},
		{"limit + 50 %", func(seen []*whatif.Run) float64 { return 1.5 * cores(last(seen)) }, 0},
		{"Autothrottle's Captain", captain, 0},
	}
}

func last(seen []*whatif.Run) *whatif.Run { return seen[len(seen)-1] }

func cores(r *whatif.Run) float64 { return r.Limit.Seconds() / whatif.PeriodLength.Seconds() }

func gossip(seen []*whatif.Run) float64 {
	cfg := estimator.DefaultConfig()
	cfg.MinWindow, cfg.MinPeriods = time.Second, 1 // a run is as long as it is
	r := estimator.Estimate(cfg, last(seen).Observed(), estimator.Bounds{CPUs: runtime.NumCPU()})
	if r.Outcome == estimator.Saturated {
		return r.Next
	}
	return r.Recommended
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
	each := flag.Bool("each", false, "tell of each shape, too")
	flag.Parse()
	if err := run(flag.Args(), *each); err != nil {
		fmt.Fprintln(os.Stderr, "recommenders:", err)
		os.Exit(1)
	}
}

func run(files []string, each bool) error {
	var all []whatif.Run
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		runs, err := whatif.Read(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		all = append(all, runs...)
	}
	type work struct {
		shape string
		seed  uint64
	}
	byWork := map[work][]*whatif.Run{}
	for i := range all {
		w := work{all[i].Shape, all[i].Seed}
		byWork[w] = append(byWork[w], &all[i])
	}
	var works []work
	for w, runs := range byWork {
		slices.SortFunc(runs, func(a, b *whatif.Run) int { return cmp.Compare(a.Limit, b.Limit) })
		works = append(works, w)
	}
	slices.SortFunc(works, func(a, b work) int {
		return cmp.Or(cmp.Compare(a.shape, b.shape), cmp.Compare(a.seed, b.seed))
	})
	fmt.Println("| follow | enough in the end | steps, mean | throttled in the end, mean | limit in the end, of the smallest that is enough |")
	fmt.Println("|---|---|---|---|---|")
	var details []string
	for _, p := range policies() {
		var n, reached, sized int
		var steps, ratio, size float64
		for _, w := range works {
			got, ok := follow(p, byWork[w])
			if !ok || got.smallest == 0 {
				continue
			}
			n++
			steps += float64(got.steps)
			ratio += got.ratio
			if got.ratio <= enough {
				reached++
				sized++
				size += got.cores / got.smallest
			}
			details = append(details, fmt.Sprintf("%s, %s, seed %d: %d steps, %.1f %% throttled at %.2f cores; %.2f is enough",
				p.name, w.shape, w.seed, got.steps, 100*got.ratio, got.cores, got.smallest))
		}
		if n == 0 {
			return errors.New("no shape is throttled in over half of its periods at one recorded limit and enough at another")
		}
		relative := "–"
		if sized > 0 {
			relative = fmt.Sprintf("%.2f", size/float64(sized))
		}
		fmt.Printf("| %s | %d of %d | %.1f | %.1f %% | %s |\n", p.name, reached, n, steps/float64(n), 100*ratio/float64(n), relative)
	}
	if each {
		fmt.Println()
		for _, d := range details {
			fmt.Println(d)
		}
	}
	return nil
}
