package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// Births are pods of every kind, of which each gets the certificate of its birth. Not while
// a kubelet or an exporter is started again, for what nobody watches has none; but while
// the operator is killed.
var Births = Scenario{Name: "birth certificates", After: []string{kubeletRestart}, Run: births}

// newborn is a pod, and what its certificate is to say.
type newborn struct {
	pod        *corev1.Pod
	containers []string // that come to life, init containers first
	network    bool     // it has a network of its own
	failed     bool
	pulled     bool // its image comes from a registry
}

// newborns are of every kind; image is one that is to be pulled.
func newborns(image string) []newborn {
	one := pod("born-one", load("app", "100m", "-calm"))
	three := pod("born-three", load("a", "100m", "-calm"), load("b", "100m", "-calm"), load("c", "100m", "-calm"))
	first := load("first", "100m", "-h") // prints its flags and ends well
	withInit := pod("born-init", load("app", "100m", "-calm"))
	withInit.Spec.InitContainers = []corev1.Container{first}
	host := pod("born-host", load("app", "100m", "-calm"))
	host.Spec.HostNetwork = true
	crash := pod("born-crash", load("app", "100m", "-no-such-flag"))
	never := pod("born-never", load("app", "100m"))
	never.Spec.Containers[0].Command = []string{"/no/such/program"}
	pulled := pod("born-pulled", corev1.Container{Name: "app", Image: image, ImagePullPolicy: corev1.PullAlways, Args: []string{"sleep", "3600"}})
	return []newborn{
		{pod: one, containers: []string{"app"}, network: true},
		{pod: three, containers: []string{"a", "b", "c"}, network: true},
		{pod: withInit, containers: []string{"first", "app"}, network: true},
		{pod: host, containers: []string{"app"}},
		{pod: crash, containers: []string{"app"}, network: true},
		{pod: never, network: true, failed: true},
		{pod: pulled, containers: []string{"app"}, network: true, pulled: true},
	}
}

func births(ctx context.Context, e *Env, seen *Seen) error {
	image, end, err := serveImage(ctx)
	if err != nil {
		return err
	}
	defer end()
	before := ahead("born-ahead")
	if err := e.start(ctx, before); err != nil {
		return err
	}
	all := newborns(image)
	for _, n := range all {
		e.place(n.pod)
		if err := e.asked(ctx, "making pod "+n.pod.Name, func() error { return e.API.Create(ctx, n.pod) }); err != nil {
			return err
		}
	}
	for _, n := range all {
		var c *v1alpha1.PodBirthCertificate
		_, err := e.until(ctx, 4*time.Minute, "the birth certificate of "+n.pod.Name, func() (err error) {
			if c, err = e.certificate(ctx, n.pod.Name); err != nil {
				return err
			}
			return n.judge(c)
		})
		if err != nil {
			return err
		}
		seen.Add("%s: %d system calls, %d mounts, %d execs in %s", n.pod.Name, c.Spec.TotalSyscalls, *c.Spec.Mounts, *c.Spec.Execs, c.Spec.Duration.Round(time.Millisecond))
		if pull := pullOf(c); pull != nil {
			seen.Add("its image: %s in %s, %s after the birth began", pull.Details, pull.Duration.Duration, pull.Offset.Duration)
		}
	}
	pods := []*corev1.Pod{before}
	for _, n := range all {
		pods = append(pods, n.pod)
	}
	return e.endAll(ctx, pods...)
}

// ahead is a pod that is born before those that are judged. From then on all system calls
// are counted for a while; for the first, which a busy exporter may be late for, its
// certificate would say so.
func ahead(name string) *corev1.Pod { return pod(name, load("app", "100m", "-calm", "-rest=1s")) }

func (e *Env) certificate(ctx context.Context, podName string) (*v1alpha1.PodBirthCertificate, error) {
	c := &v1alpha1.PodBirthCertificate{}
	err := e.API.Get(ctx, client.ObjectKey{Namespace: e.Namespace, Name: podName + "-birth"}, c)
	return c, err
}

// judge holds a certificate to what a pod of this kind takes at least, and to adding up.
func (n newborn) judge(c *v1alpha1.PodBirthCertificate) error {
	s := &c.Spec
	var problems []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	want(s.PodUID == string(n.pod.UID), "it is of %s, not %s", s.PodUID, n.pod.UID)
	want(s.Complete != nil && *s.Complete, "it lacks something: %v", s.IncompleteReasons)
	want(s.Failed == n.failed, "failed is %t: %s", s.Failed, s.Failure)
	want(s.TotalSyscalls > 1000, "%d system calls", s.TotalSyscalls)
	want(s.SetupSyscalls != nil && *s.SetupSyscalls > 0 && *s.SetupSyscalls < s.TotalSyscalls, "set-up system calls: %v of %d", s.SetupSyscalls, s.TotalSyscalls)
	want(s.Mounts != nil && *s.Mounts > 10, "mounts: %v", s.Mounts)
	want(s.CgroupWrites > 0, "no write to a cgroup's file")
	for _, kind := range []string{"mnt", "pid"} {
		want(slices.ContainsFunc(s.Namespaces, func(x v1alpha1.NamespaceCount) bool { return x.Kind == kind && x.Created > 0 }), "no namespace of kind %s", kind)
	}
	cni := slices.ContainsFunc(s.Stages, func(x v1alpha1.Stage) bool { return x.Actor == "cni" })
	want(cni == n.network, "CNI in its stages: %t", cni)
	pull := pullOf(c)
	want(n.pulled == (pull != nil), "a stage of its image's pull: %t", pull != nil)
	if pull != nil {
		want(pull.Duration != nil && pull.Duration.Duration > 0 && pull.Duration.Duration < s.Duration.Duration, "the pull took %v of %s", pull.Duration, s.Duration.Duration)
		want(pull.Container == "app" && strings.Contains(pull.Details, " MB"), "the pull is of %q: %s", pull.Container, pull.Details)
		want(pull.Offset.Duration > -time.Second && pull.Offset.Duration < s.Duration.Duration, "the pull began after %s", pull.Offset.Duration)
	}
	var entered []string
	for _, x := range s.Containers {
		if x.Entrypoint != "" && x.Name != "sandbox" {
			entered = append(entered, x.Name)
		}
	}
	want(slices.Equal(entered, n.containers) || n.failed, "containers that reached their entrypoints: %v, not %v", entered, n.containers)
	return errors.Join(problems...)
}

// pullOf is the stage of an image's pull; nil where nothing was pulled.
func pullOf(c *v1alpha1.PodBirthCertificate) *v1alpha1.Stage {
	i := slices.IndexFunc(c.Spec.Stages, func(x v1alpha1.Stage) bool { return x.Action == "pulled the image" })
	if i < 0 {
		return nil
	}
	return &c.Spec.Stages[i]
}

// certificates are those of many pods: all there, and what is missing in some is said.
func (e *Env) certificates(ctx context.Context, podNames []string, seen *Seen) error {
	var totals []int64
	complete := 0
	took, err := e.until(ctx, 3*time.Minute, "birth certificates", func() error {
		totals, complete = nil, 0
		for _, name := range podNames {
			c, err := e.certificate(ctx, name)
			if err != nil {
				return err
			}
			switch {
			case c.Spec.Failed:
				return fmt.Errorf("%s is said to have failed: %s", name, c.Spec.Failure)
			case c.Spec.Complete == nil || !*c.Spec.Complete && len(c.Spec.IncompleteReasons) == 0:
				return fmt.Errorf("%s does not say what it lacks", name)
			case *c.Spec.Complete:
				complete++
			}
			totals = append(totals, c.Spec.TotalSyscalls)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if 2*complete < len(podNames) {
		return fmt.Errorf("of %d birth certificates %d are complete: fewer than half", len(podNames), complete)
	}
	slices.Sort(totals)
	seen.Add("their birth certificates after %.0f s: %d complete, %d to %d system calls, %d in the middle",
		took.Seconds(), complete, totals[0], totals[len(totals)-1], totals[len(totals)/2])
	return nil
}
