package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// Neighbour has a limit, works in every period, is not throttled, and gets no whisper.
var Neighbour = Scenario{Name: "unthrottled neighbour", Run: neighbour}

func neighbour(ctx context.Context, e *Env, seen *Seen) error {
	p := pod("neighbour", load("app", "200m", "-calm"))
	if err := e.start(ctx, p); err != nil {
		return err
	}
	const long = 2 * time.Minute
	if err := e.holds(ctx, long, "no whisper of the neighbour", func() error { return e.silent(ctx, p.Name) }); err != nil {
		return err
	}
	periods, throttled, err := e.counts(ctx, p.Name, "app")
	if err != nil {
		return err
	}
	if periods < 100 {
		return fmt.Errorf("the neighbour was to work: the exporter counts %g periods", periods)
	}
	seen.Add("no whisper in %s: %g of %g periods throttled", long, throttled, periods)
	return e.endAll(ctx, p)
}

// silent tells that a pod has no whisper. An API server that is away says nothing.
func (e *Env) silent(ctx context.Context, podName string) error {
	all, err := e.whispersOf(ctx, podName)
	if err == nil && len(all) > 0 {
		return fmt.Errorf("there is %s: %q", all[0].Name, all[0].Spec.Insights)
	}
	return nil
}

// counts are a container's nr_periods and nr_throttled as the exporter tells them.
func (e *Env) counts(ctx context.Context, podName, container string) (periods, throttled float64, err error) {
	_, err = e.until(ctx, 2*time.Minute, "the exporter's counters of "+podName, func() error {
		s, err := e.scrape(ctx)
		if err != nil {
			return err
		}
		key := labels{e.Namespace, podName, container}
		p, ok := s.value("kernel_gossip_cpu_periods_total", key)
		t, also := s.value("kernel_gossip_cpu_throttled_periods_total", key)
		if !ok || !also {
			return errors.New("there are none")
		}
		periods, throttled = p, t
		return nil
	})
	return periods, throttled, err
}

// Containers is a pod with two throttled containers and a calm one: each of the two
// has a whisper of its own, the third none.
var Containers = Scenario{Name: "several containers in a pod", Run: containers}

func containers(ctx context.Context, e *Env, seen *Seen) error {
	p := pod("trio", load("api", "50m"), load("worker", "75m"), load("sidecar", "100m", "-calm"))
	if err := e.start(ctx, p); err != nil {
		return err
	}
	limits := map[string]float64{"api": 0.05, "worker": 0.075}
	names := map[string]bool{}
	for _, c := range []string{"api", "worker"} {
		w, _, err := e.whisper(ctx, 2*time.Minute, p.Name, c, "Active with both figures", active)
		if err != nil {
			return err
		}
		if err := owned(w, p); err != nil {
			return err
		}
		if got := w.Spec.Evidence.CPULimitCores; got == nil || *got != limits[c] {
			return fmt.Errorf("whisper %s of container %s tells of a limit of %v cores, not %v", w.Name, c, deref(got), limits[c])
		}
		names[w.Name] = true
		seen.Add("%s: %s", c, w.Name)
	}
	if !names["trio-kw"] || !names["trio-api-kw"] && !names["trio-worker-kw"] {
		return fmt.Errorf("the names are %v: not trio-kw and one with the container's name", names)
	}
	var all []v1alpha1.KernelWhisper
	if err := e.asked(ctx, "the whispers of "+p.Name, func() (err error) { all, err = e.whispersOf(ctx, p.Name); return err }); err != nil {
		return err
	}
	if len(all) != 2 {
		return fmt.Errorf("pod %s has %d whispers, not two: the sidecar is calm", p.Name, len(all))
	}
	seen.Add("sidecar: none")
	return e.end(ctx, p, seen)
}

// Static is a static pod: its cgroup carries the manifest's hash, not the UID of its
// mirror in the API server.
var Static = Scenario{Name: "static pod", Run: static}

func static(ctx context.Context, e *Env, seen *Seen) error {
	p := pod("static", load("app", "50m"))
	p.Namespace = e.Namespace // the kubelet itself places it
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	path := filepath.Join(e.Node.StaticPods(), "static.json")
	if err := os.WriteFile(path, body, 0o644); err != nil {
		return fmt.Errorf("writing the static pod: %w", err)
	}
	mirror := pod("static-" + e.NodeName)
	mirror.Namespace = e.Namespace
	if err := e.running(ctx, mirror); err != nil {
		return err
	}
	w, _, err := e.whisper(ctx, 2*time.Minute, mirror.Name, "app", "Active with both figures", active)
	if err != nil {
		return err
	}
	if err := owned(w, mirror); err != nil {
		return err
	}
	hash := mirror.Annotations["kubernetes.io/config.hash"]
	if hash == "" || hash == string(mirror.UID) {
		return fmt.Errorf("mirror pod %s has the UID %s and the hash %q: not a static pod's", mirror.Name, mirror.UID, hash)
	}
	seen.Add("whisper %s is the mirror pod's (%.8s…), the cgroup's UID is %.8s…", w.Name, mirror.UID, hash)
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the static pod: %w", err)
	}
	_, err = e.until(ctx, time.Minute, "whisper of the removed static pod gone", func() error {
		all, err := e.whispersOf(ctx, mirror.Name)
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("there are %d", len(all))
		}
		return err
	})
	if err == nil {
		seen.Add("gone with its manifest")
	}
	return err
}

// Recreated is a pod that is deleted and made again at once under its name.
var Recreated = Scenario{Name: "recreated under the same name", Run: recreated}

func recreated(ctx context.Context, e *Env, seen *Seen) error {
	first := pod("again", load("app", "50m"))
	if err := e.start(ctx, first); err != nil {
		return err
	}
	old, _, err := e.whisper(ctx, 2*time.Minute, first.Name, "app", "Active with both figures", active)
	if err != nil {
		return err
	}
	if err := e.asked(ctx, "deleting pod "+first.Name, func() error { return client.IgnoreNotFound(e.API.Delete(ctx, first)) }); err != nil {
		return err
	}
	second := e.place(pod("again", load("app", "50m")))
	if _, err := e.until(ctx, time.Minute, "making pod again under its name", func() error {
		return e.API.Create(ctx, second) // refused while the first is ending
	}); err != nil {
		return err
	}
	if err := e.running(ctx, second); err != nil {
		return err
	}
	w, _, err := e.whisper(ctx, 2*time.Minute, second.Name, "app", "of the second pod", func(w *v1alpha1.KernelWhisper) error {
		if err := active(w); err != nil {
			return err
		}
		return owned(w, second)
	})
	if err != nil {
		return err
	}
	if w.UID == old.UID {
		return fmt.Errorf("whisper %s lived on: it is the first pod's", w.Name)
	}
	// What was still on its way about the first pod must not come back.
	if err := e.holds(ctx, 15*time.Second, "the second pod's whisper stays", func() error {
		all, err := e.whispersOf(ctx, second.Name)
		if err != nil {
			return nil // the API server is away
		}
		if len(all) != 1 {
			return fmt.Errorf("there are %d", len(all))
		}
		return owned(&all[0], second)
	}); err != nil {
		return err
	}
	seen.Add("a new %s, owned by the new pod; the first pod's is gone", w.Name)
	return e.end(ctx, second, nil)
}

// cost tells what kubectl top shows for our own pods.
func (e *Env) cost(ctx context.Context, seen *Seen) error {
	var lines []string
	_, err := e.until(ctx, 90*time.Second, "kubectl top of our own pods", func() error {
		out, err := e.Kubectl(ctx, "", "top", "pod", "-A", "-l", "app.kubernetes.io/part-of=kernel-gossip", "--no-headers")
		if err != nil {
			return err
		}
		lines = lines[:0]
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) == 4 {
				lines = append(lines, strings.Join(f[1:], " "))
			}
		}
		if len(lines) < 3 {
			return fmt.Errorf("it printed %q", out)
		}
		return nil
	})
	if err == nil {
		seen.Add("kubectl top: %s", strings.Join(lines, ", "))
	}
	return err
}

// crowdSize is how many pods the crowd has.
const crowdSize = 60

// Crowd is 60 more pods on the node, born at once: not at first, for two processors have enough
// to do with the other scenarios' pods, nor after the outage, from which on the exporter takes
// up to a minute to hear of pods again.
var Crowd = Scenario{Name: fmt.Sprintf("%d more pods at once", crowdSize), After: []string{BirthTraced.Name}, Run: crowd}

func crowd(ctx context.Context, e *Env, seen *Seen) error {
	replicas, grace := int32(crowdSize), int64(0)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "crowd", Namespace: e.Namespace},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "crowd"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "crowd"}},
				Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{load("app", "100m", "-calm", "-rest=1s")}},
			},
		},
	}
	if err := e.asked(ctx, "making the crowd", func() error { return e.API.Create(ctx, d) }); err != nil {
		return err
	}
	var names []string
	took, err := e.until(ctx, 5*time.Minute, "the crowd running", func() error {
		var list corev1.PodList
		if err := e.API.List(ctx, &list, client.InNamespace(e.Namespace), client.MatchingLabels{"app": "crowd"}); err != nil {
			return err
		}
		names = names[:0]
		for _, p := range list.Items {
			if p.Status.Phase == corev1.PodRunning {
				names = append(names, p.Name)
			}
		}
		if len(names) != crowdSize {
			return fmt.Errorf("%d run", len(names))
		}
		return nil
	})
	if err != nil {
		return err
	}
	seen.Add("%d pods running after %.0f s", crowdSize, took.Seconds())
	var s *scrape
	var length time.Duration
	if _, err := e.until(ctx, time.Minute, "the exporter's series of the crowd", func() error {
		began := time.Now()
		if s, err = e.scrape(ctx); err != nil {
			return err
		}
		length = time.Since(began)
		for _, name := range names {
			if _, ok := s.value("kernel_gossip_cpu_periods_total", labels{e.Namespace, name, "app"}); !ok {
				return fmt.Errorf("none of %s", name)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if e.Top {
		if err := e.cost(ctx, seen); err != nil {
			return err
		}
	}
	var all v1alpha1.KernelWhisperList
	if err := e.asked(ctx, "listing whispers", func() error { return e.API.List(ctx, &all, client.InNamespace(e.Namespace)) }); err != nil {
		return err
	}
	if i := slices.IndexFunc(all.Items, func(w v1alpha1.KernelWhisper) bool {
		return w.Spec.SignalType == throttle && slices.Contains(names, w.Spec.PodName)
	}); i >= 0 {
		return fmt.Errorf("%s is about one of the crowd, which is calm: %q", all.Items[i].Name, all.Items[i].Spec.Insights)
	}
	seen.Add("each has its counters; no whisper; a sample takes %.0f ms, a scrape %.0f ms for %d series; exporter %.0f MiB resident",
		1000*s.single("kernel_gossip_exporter_sample_duration_seconds"), float64(length.Milliseconds()), s.series, s.single("process_resident_memory_bytes")/(1<<20))
	if err := e.certificates(ctx, names, seen); err != nil {
		return err
	}
	return e.asked(ctx, "ending the crowd", func() error {
		return client.IgnoreNotFound(e.API.Delete(ctx, d, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	})
}

// Orphans is tried when all else is done: what is left belongs to pods that are there.
// Alerts look back, and fire for a while after their pod is gone.
var Orphans = Scenario{Name: "no whisper outlives its pod", Run: orphans}

func orphans(ctx context.Context, e *Env, seen *Seen) error {
	var count int
	_, err := e.until(ctx, 2*time.Minute, "every whisper's pod is there", func() error {
		var list v1alpha1.KernelWhisperList
		if err := e.API.List(ctx, &list, client.InNamespace(e.Namespace)); err != nil {
			return err
		}
		count = len(list.Items)
		for _, w := range list.Items {
			var p corev1.Pod
			if err := e.API.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: w.Spec.PodName}, &p); err != nil {
				return fmt.Errorf("whisper %s (%s): %w", w.Name, w.Status.Phase, err)
			}
			if err := owned(&w, &p); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		seen.Add("%d whispers are left, each owned by a pod that is there", count)
	}
	return err
}
