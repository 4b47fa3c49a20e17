package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startsAtOnce is how many pods start at once when starts are measured.
const startsAtOnce = 20

// Starts measures how long pods take to start with the births followed and without, in
// rounds that change the order: in each alone pods one at a time, and startsAtOnce at once.
// It judges nothing: a ratio is a matter of the machine.
func Starts(rounds, alone int) Scenario {
	return Scenario{Name: "starts of pods with births followed and without", Run: func(ctx context.Context, e *Env, seen *Seen) error {
		return measureStarts(ctx, e, seen, rounds, alone)
	}}
}

// started is how long the pods of one round took, by whether births were followed.
type started map[bool][]time.Duration

func measureStarts(ctx context.Context, e *Env, seen *Seen, rounds, alone int) error {
	ways := []struct {
		name    string
		n, size int
		rounds  []started
	}{{name: "alone", n: alone, size: 1}, {name: fmt.Sprintf("%d at once", startsAtOnce), n: 1, size: startsAtOnce}}
	if _, err := e.started(ctx, "warm", 1); err != nil {
		return err
	}
	for round := range rounds {
		for w := range ways {
			ways[w].rounds = append(ways[w].rounds, started{})
		}
		for _, follow := range []bool{round%2 == 0, round%2 != 0} {
			if err := e.follow(ctx, follow); err != nil {
				return err
			}
			for w := range ways {
				for i := range ways[w].n {
					took, err := e.started(ctx, fmt.Sprintf("start-%d-%t-%d-%d", round, follow, w, i), ways[w].size)
					if err != nil {
						return err
					}
					ways[w].rounds[round][follow] = append(ways[w].rounds[round][follow], took...)
				}
			}
		}
	}
	for _, w := range ways {
		all := started{}
		var ratios []string
		for _, r := range w.rounds {
			for follow, took := range r {
				all[follow] = append(all[follow], took...)
			}
			ratios = append(ratios, fmt.Sprintf("%+.1f", more(r)))
		}
		with, without := all[true], all[false]
		seen.Add("%s: %d starts each, in the middle %s with births followed, %s without: %+.1f %% (by round %s); quartiles %s and %s, %s and %s",
			w.name, len(with), ms(quantile(with, 0.5)), ms(quantile(without, 0.5)), more(all), strings.Join(ratios, ", "),
			ms(quantile(with, 0.25)), ms(quantile(with, 0.75)), ms(quantile(without, 0.25)), ms(quantile(without, 0.75)))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		seen.Add("load of this machine at the end: %s", strings.Join(strings.Fields(string(load))[:3], " "))
	}
	return e.follow(ctx, true)
}

// more is how much longer a start takes in the middle with births followed, in percent.
func more(s started) float64 {
	return 100 * (float64(quantile(s[true], 0.5))/float64(quantile(s[false], 0.5)) - 1)
}

// quantile is by nearest rank, in the middle the mean of the two where there are two.
func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	at := q * float64(len(sorted)-1)
	low, high := sorted[int(math.Floor(at))], sorted[int(math.Ceil(at))]
	return (low + high) / 2
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// started starts so many pods at once, and tells how long after it was asked for each had
// its program write its first line, by the runtime's clock. They are gone afterwards.
func (e *Env) started(ctx context.Context, name string, n int) ([]time.Duration, error) {
	pods := make([]*corev1.Pod, n)
	asked := make([]time.Time, n)
	for i := range pods {
		p := e.place(pod(strings.ReplaceAll(fmt.Sprintf("%s-%d", name, i), "_", "-"), load("app", "500m", "-h")))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		asked[i] = time.Now()
		if err := e.API.Create(ctx, p); err != nil {
			return nil, fmt.Errorf("making pod %s: %w", p.Name, err)
		}
		pods[i] = p
	}
	took := make([]time.Duration, n)
	for i, p := range pods {
		_, err := e.until(ctx, 3*time.Minute, "the first line of "+p.Name, func() error {
			raw, err := e.Set.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: "app", Timestamps: true}).DoRaw(ctx)
			if err != nil {
				return err
			}
			stamp, _, ok := strings.Cut(string(raw), " ")
			if !ok {
				return errors.New("there is none")
			}
			at, err := time.Parse(time.RFC3339Nano, stamp)
			took[i] = at.Sub(asked[i])
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return took, e.endAll(ctx, pods...)
}

// follow has the exporter follow births, or not, by its flag.
func (e *Env) follow(ctx context.Context, on bool) error {
	const off = "--no-collector.birth"
	set, err := e.Set.AppsV1().DaemonSets(Nodes).Get(ctx, "kernel-gossip-exporter", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("finding the exporter: %w", err)
	}
	args := set.Spec.Template.Spec.Containers[0].Args
	if slices.Contains(args, off) != on {
		return nil
	}
	if args = slices.DeleteFunc(args, func(s string) bool { return s == off }); !on {
		args = append(args, off)
	}
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}})
	if err != nil {
		return err
	}
	if _, err := e.Kubectl(ctx, "", "-n", Nodes, "patch", "daemonset", set.Name, "--type=json", "-p", string(patch)); err != nil {
		return err
	}
	if _, err := e.Kubectl(ctx, "", "-n", Nodes, "rollout", "status", "daemonset/"+set.Name, "--timeout=4m"); err != nil {
		return err
	}
	return e.WaitExporter(ctx)
}
