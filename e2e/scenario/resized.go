package scenario

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// Resized does, word for word, what its whisper recommends: the kubelet changes the limit
// in the running container, step by step, until it is throttled no more.
var Resized = Scenario{Name: "limit raised by the command of the whisper", Run: resizedPod}

func resizedPod(ctx context.Context, e *Env, seen *Seen) error {
	// A thread that works 0.3 s of each: a core is enough for it.
	const begin, mostSteps = "200m", 6
	p := pod("resized", load("app", begin, "-threads=1", "-busy=300ms", "-idle=700ms"))
	if err := e.start(ctx, p); err != nil {
		return err
	}
	limit, steps := resource.MustParse(begin), []string{begin}
	for {
		var advice *v1alpha1.Recommendation
		_, _, err := e.whisper(ctx, 2*time.Minute, p.Name, "app", "of its limit of "+limit.String()+", with a command", func(w *v1alpha1.KernelWhisper) error {
			advice = nil
			if len(steps) > 1 && resolved(w) == nil {
				return nil
			}
			if err := isActive(w); err != nil {
				return err
			}
			if got := w.Spec.Evidence.CPULimitCores; got == nil || int64(math.Round(1000**got)) != limit.MilliValue() {
				return fmt.Errorf("it tells of a limit of %v cores", deref(got))
			}
			i := slices.IndexFunc(w.Status.Recommendations, func(r v1alpha1.Recommendation) bool { return r.Command != "" })
			if i < 0 {
				return fmt.Errorf("none of its %d recommendations has a command", len(w.Status.Recommendations))
			}
			advice = &w.Status.Recommendations[i]
			return nil
		})
		if err != nil {
			return err
		}
		if advice == nil {
			break
		}
		if len(steps) > mostSteps {
			return fmt.Errorf("it is still throttled after %s", strings.Join(steps, ", "))
		}
		if limit, err = e.resize(ctx, client.ObjectKeyFromObject(p), advice); err != nil {
			return err
		}
		steps = append(steps, limit.String())
	}
	if err := e.API.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
		return err
	}
	if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
		return fmt.Errorf("a change in place restarted the container %d times", n)
	}
	seen.Add("limit %s, each by the command of the whisper, and then Resolved; no restart", strings.Join(steps, ", "))
	return e.end(ctx, p, seen)
}

// resize runs a recommendation's command and waits until the kubelet has done it.
func (e *Env) resize(ctx context.Context, pod client.ObjectKey, advice *v1alpha1.Recommendation) (resource.Quantity, error) {
	to, err := resource.ParseQuantity(advice.SuggestedValue)
	if err != nil {
		return to, fmt.Errorf("reading the suggested value %q: %w", advice.SuggestedValue, err)
	}
	args, ok := strings.CutPrefix(strings.ReplaceAll(advice.Command, "'", ""), "kubectl ")
	if !ok {
		return to, fmt.Errorf("the command of %s is %q", advice.Action, advice.Command)
	}
	if _, err := e.Kubectl(ctx, "", strings.Fields(args)...); err != nil {
		return to, err
	}
	_, err = e.until(ctx, 2*time.Minute, fmt.Sprintf("%s at %s", pod.Name, to.String()), func() error {
		got, err := e.Set.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		c := got.Status.ContainerStatuses
		if len(c) != 1 || c[0].Resources == nil {
			return errors.New("the kubelet tells of no resources")
		}
		if is := c[0].Resources.Limits.Cpu(); is.Cmp(to) != 0 {
			return fmt.Errorf("its limit is %s: %v", is, got.Status.Conditions)
		}
		return nil
	})
	return to, err
}
