package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// kubeletRestart is the first of the faults.
const kubeletRestart = "kubelet restarted"

// Faults break things one after the other, around a pod that is throttled all the time.
func Faults() []Scenario {
	patient, fickle := pod("patient", load("app", "50m")), pod("falls", load("app", "50m"))
	all := []Scenario{
		{Name: kubeletRestart, Run: func(ctx context.Context, e *Env, seen *Seen) error {
			if err := e.ensure(ctx, fickle); err != nil { // for the outage, which needs it told of
				return err
			}
			return kubeletRestarted(ctx, e, seen, patient)
		}},
		{Name: "operator killed", Run: operatorKilled},
		// What was on its way about a pod that ends meanwhile would be written after it.
		{Name: "API server down for a minute", After: []string{Crowd.Name, Containers.Name, Static.Name, Recreated.Name, Figures.Name}, Run: func(ctx context.Context, e *Env, seen *Seen) error {
			return apiDown(ctx, e, seen, patient, fickle)
		}},
		// At the end: what happens while no exporter runs, as another scenario's pod that is
		// killed, born or well again, is nobody's to tell.
		{Name: "exporter restarted", After: []string{Lie.Name, Memory.Name, Network.Name, Security.Name}, Run: func(ctx context.Context, e *Env, seen *Seen) error {
			return exporterRestarted(ctx, e, seen, patient)
		}},
	}
	for i := range all[1:] {
		all[i+1].After = append(all[i+1].After, all[i].Name)
	}
	return all
}

func exporterRestarted(ctx context.Context, e *Env, seen *Seen, patient *corev1.Pod) error {
	if err := e.ensure(ctx, patient); err != nil {
		return err
	}
	w, _, err := e.whisper(ctx, 2*time.Minute, patient.Name, "app", "Active with both figures", active)
	if err != nil {
		return err
	}
	before, _, err := e.counts(ctx, patient.Name, "app")
	if err != nil {
		return err
	}
	old, err := e.exporter(ctx, "")
	if err != nil {
		return err
	}
	// That of this node alone: others are on other scenarios' nodes.
	began := time.Now()
	if _, err := e.Kubectl(ctx, "", "-n", Nodes, "delete", "pod", old.Name); err != nil {
		return err
	}
	if _, err := e.exporter(ctx, old.UID); err != nil {
		return err
	}
	seen.Add("a new exporter ready after %.0f s", time.Since(began).Seconds())
	after, _, err := e.counts(ctx, patient.Name, "app")
	if err != nil {
		return err
	}
	if after < before {
		return fmt.Errorf("the counter of periods fell from %g to %g: it is the kernel's and survives the exporter", before, after)
	}
	seen.Add("periods %g before, %g after: the kernel's count goes on", before, after)
	again, took, err := e.whisper(ctx, 90*time.Second, patient.Name, "app", "told again by the new exporter", func(now *v1alpha1.KernelWhisper) error {
		if now.Status.Occurrences <= w.Status.Occurrences {
			return fmt.Errorf("%d occurrences, as before", now.Status.Occurrences)
		}
		return active(now)
	})
	if err != nil {
		return err
	}
	if again.UID != w.UID {
		return errors.New("the new exporter made another object")
	}
	seen.Add("the same object, told again %.0f s later", took.Seconds())
	return e.end(ctx, patient, nil)
}

func kubeletRestarted(ctx context.Context, e *Env, seen *Seen, patient *corev1.Pod) error {
	if err := e.ensure(ctx, patient); err != nil {
		return err
	}
	w, _, err := e.whisper(ctx, 2*time.Minute, patient.Name, "app", "Active", isActive)
	if err != nil {
		return err
	}
	if err := e.Node.RestartKubelet(ctx); err != nil {
		return err
	}
	began := time.Now()
	fresh := pod("after-kubelet", load("app", "50m"))
	if err := e.start(ctx, fresh); err != nil {
		return err
	}
	seen.Add("a pod runs %.0f s after the restart", time.Since(began).Seconds())
	// Both halves of its evidence: names from the API server, figures from the new kubelet.
	_, took, err := e.whisper(ctx, 2*time.Minute, fresh.Name, "app", "Active with both figures", active)
	if err != nil {
		return err
	}
	seen.Add("its whisper tells what the new kubelet reports after %.0f s", took.Seconds())
	now, _, err := e.whisper(ctx, time.Minute, patient.Name, "app", "Active with both figures", active)
	if err != nil {
		return err
	}
	if now.UID != w.UID {
		return errors.New("the restart of the kubelet made another object")
	}
	seen.Add("the other whisper stays Active")
	return e.end(ctx, fresh, nil)
}

func (e *Env) lease(ctx context.Context) (*coordinationv1.Lease, error) {
	l := &coordinationv1.Lease{}
	if err := e.API.Get(ctx, client.ObjectKey{Namespace: System, Name: "kernel-gossip-operator"}, l); err != nil {
		return nil, err
	}
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" {
		return nil, errors.New("nobody holds the lease")
	}
	return l, nil
}

// held waits until another than the given holder holds the lease, and holds it now.
func (e *Env) held(ctx context.Context, not string) (string, time.Duration, error) {
	var holder string
	took, err := e.until(ctx, 90*time.Second, "the lease held by a living replica", func() error {
		l, err := e.lease(ctx)
		if err != nil {
			return err
		}
		holder = *l.Spec.HolderIdentity
		if holder == not {
			return fmt.Errorf("%s still holds it", holder)
		}
		if l.Spec.RenewTime == nil || time.Since(l.Spec.RenewTime.Time) > 10*time.Second {
			return fmt.Errorf("%s has not renewed it since %v", holder, l.Spec.RenewTime)
		}
		return nil
	})
	return holder, took, err
}

func operatorKilled(ctx context.Context, e *Env, seen *Seen) error {
	holder, _, err := e.held(ctx, "")
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(holder, "_")
	leader, err := e.Set.CoreV1().Pods(System).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("finding the leader: %w", err)
	}
	// It crosses the threshold while the leader is dead.
	p := pod("after-operator", load("app", "50m"))
	if err := e.start(ctx, p); err != nil {
		return err
	}
	if err := e.Node.Kill(string(leader.UID), "kernel-gossip-operator"); err != nil {
		return err
	}
	killed := time.Now()
	_, took, err := e.whisper(ctx, time.Minute, p.Name, "app", "there", there)
	if err != nil {
		return err
	}
	seen.Add("leader %s killed; a whisper came %.1f s later", name, took.Seconds())
	next, _, err := e.held(ctx, holder)
	if err != nil {
		return err
	}
	nextName, _, _ := strings.Cut(next, "_")
	seen.Add("lease taken over by %s %.0f s after the kill", nextName, time.Since(killed).Seconds())
	return e.end(ctx, p, nil)
}

// apiDown wants two pods that are throttled: one goes on, the other's load ends during
// the outage.
func apiDown(ctx context.Context, e *Env, seen *Seen, patient, falls *corev1.Pod) error {
	const outage = time.Minute
	for _, p := range []*corev1.Pod{patient, falls} {
		if err := e.ensure(ctx, p); err != nil {
			return err
		}
	}
	holder, _, err := e.held(ctx, "")
	if err != nil {
		return err
	}
	w, _, err := e.whisper(ctx, 2*time.Minute, patient.Name, "app", "Active", active)
	if err != nil {
		return err
	}
	if _, _, err := e.whisper(ctx, time.Minute, falls.Name, "app", "there", there); err != nil {
		return err
	}
	// Throttled for the first time while the API server is away.
	rises := pod("rises", load("app", "50m", fmt.Sprintf("-from=%d", time.Now().Add(20*time.Second).Unix())))
	if err := e.start(ctx, rises); err != nil {
		return err
	}
	if err := e.calm(ctx, falls.Name); err != nil {
		return err
	}
	if err := e.silent(ctx, rises.Name); err != nil {
		return fmt.Errorf("%s was to be calm until the API server is away: %w", rises.Name, err)
	}
	if err := e.Node.StopAPI(); err != nil {
		return err
	}
	select {
	case <-time.After(outage):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := e.Node.StartAPI(ctx); err != nil {
		return err
	}
	back := time.Now()
	risen, _, err := e.whisper(ctx, 90*time.Second, rises.Name, "app", "there after the outage", there)
	if err != nil {
		return err
	}
	seen.Add("a pod throttled during the outage: whisper %.1f s after it", time.Since(back).Seconds())
	if seenAt := risen.Spec.DetectedAt; seenAt == nil || seenAt.After(back) {
		seen.Add("(observed after the outage)")
	} else {
		seen.Add("observed %.0f s before its end", back.Sub(seenAt.Time).Seconds())
	}
	if _, _, err := e.whisper(ctx, 2*time.Minute, falls.Name, "app", "Resolved after the outage", resolved); err != nil {
		return err
	}
	seen.Add("one whose load ended during it: Resolved %.1f s after it", time.Since(back).Seconds())
	now, _, err := e.whisper(ctx, time.Minute, patient.Name, "app", "Active", active)
	if err != nil {
		return err
	}
	if now.UID != w.UID {
		return errors.New("the outage made another object")
	}
	next, took, err := e.held(ctx, "")
	if err != nil {
		return err
	}
	same := "another replica"
	if next == holder {
		same = "the same replica"
	}
	seen.Add("the lease is renewed by %s after %.0f s", same, took.Seconds())
	return e.endAll(ctx, falls, rises)
}
