// Package scenario is what kernel-gossip promises on a cluster, tried as a person
// would: pods are made, kubectl is asked, and what the API server, Prometheus and
// Alertmanager then say is judged. No scenario reads our own logs.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const (
	// System holds the operator, Nodes the exporters.
	System = "kernel-gossip"
	Nodes  = "kernel-gossip-node"

	poll = 500 * time.Millisecond

	throttle v1alpha1.SignalType = "cpu_throttle"
)

// Kubectl runs kubectl against the cluster, with stdin (which may be empty), and
// returns what it printed.
type Kubectl func(ctx context.Context, stdin string, args ...string) (string, error)

// Monitoring is a Prometheus with our rules and an Alertmanager with our fragment.
type Monitoring struct {
	Prometheus   promv1.API
	Alertmanager string // its URL
}

// Node lets a scenario break things around the product.
type Node interface {
	// RestartKubelet kills the kubelet and starts it again.
	RestartKubelet(ctx context.Context) error
	// StopAPI ends kube-apiserver alone; StartAPI returns when it is ready again.
	StopAPI() error
	StartAPI(ctx context.Context) error
	// StaticPods is the directory that the kubelet reads static pods from.
	StaticPods() string
	// Traces is the directory in which strace -f -ttt writes what runc does for pods of
	// the runtime class "traced", a file for each call of runc.
	Traces() string
	// Kill sends SIGKILL to the processes of the pod that run the named program.
	Kill(podUID, program string) error
}

// Env is a node of a cluster with kernel-gossip on it; see Install.
type Env struct {
	NodeName  string
	Taint     string // of the node, which the scenarios' pods tolerate; or ""
	Namespace string // of the scenarios' pods
	Kubectl   Kubectl
	API       client.Client
	Set       kubernetes.Interface
	// Monitoring is nil where there is none: then alerts are not looked at.
	Monitoring *Monitoring
	// Top tells that metrics.k8s.io is served.
	Top bool
	// Node is nil where nothing may be broken.
	Node Node
	// Load is further arguments of the lying workload, for a node on which its usual
	// bursts come out otherwise.
	Load []string
	// Patience multiplies every time limit, for a slow node; 0 is 1.
	Patience float64
}

// NewEnv makes the clients.
func NewEnv(config *rest.Config, nodeName, namespace string, kubectl Kubectl) (*Env, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	// Each try of a poll is to end while the API server is away.
	config = rest.CopyConfig(config)
	config.Timeout = 10 * time.Second
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &Env{NodeName: nodeName, Namespace: namespace, Kubectl: kubectl, API: api, Set: set}, nil
}

// Seen is what a scenario found, in the order found.
type Seen struct {
	mu    sync.Mutex
	lines []string
}

// Add takes a finding.
func (s *Seen) Add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// Lines are the findings.
func (s *Seen) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// Scenario is one promise. It begins when the scenarios whose names are After have ended,
// or at once.
type Scenario struct {
	Name  string
	After []string
	Run   func(ctx context.Context, e *Env, seen *Seen) error
}

// until polls try until it is nil, at most for limit times the patience, and returns
// how long that took. The error says what was waited for and what try said last.
func (e *Env) until(ctx context.Context, limit time.Duration, what string, try func() error) (time.Duration, error) {
	began := time.Now()
	if e.Patience > 0 {
		limit = time.Duration(float64(limit) * e.Patience)
	}
	for {
		err := try()
		took := time.Since(began)
		switch {
		case err == nil:
			return took, nil
		case took > limit:
			return took, fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		select {
		case <-ctx.Done():
			return took, fmt.Errorf("%s: %w: %w", what, ctx.Err(), err)
		case <-time.After(poll):
		}
	}
}

// asked calls try until the API server answers it: one scenario has it away for a minute,
// in the middle of the others.
func (e *Env) asked(ctx context.Context, what string, try func() error) error {
	_, err := e.until(ctx, time.Minute, what, try)
	return err
}

// holds calls try for all of the time and returns its first error.
func (e *Env) holds(ctx context.Context, span time.Duration, what string, try func() error) error {
	for end := time.Now().Add(span); time.Now().Before(end); {
		if err := try(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
	return nil
}

// load is a container of the workload with a CPU limit. One that is to be throttled requests
// that much: on a node with no time to spare it would else wait for a CPU, and not use up its
// quota.
func load(name, limit string, args ...string) corev1.Container {
	request := resource.MustParse("5m")
	if most := resource.MustParse(limit); most.MilliValue() <= 200 && !slices.Contains(args, "-calm") {
		request = most
	}
	return corev1.Container{
		Name: name, Image: LoadImage, ImagePullPolicy: corev1.PullNever, Args: args,
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: request, corev1.ResourceMemory: resource.MustParse("8Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(limit), corev1.ResourceMemory: resource.MustParse("64Mi")},
		},
	}
}

// pod is on no node and in no namespace yet; see Env.start.
func pod(name string, containers ...corev1.Container) *corev1.Pod {
	grace := int64(1)
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: containers, TerminationGracePeriodSeconds: &grace},
	}
}

// place has the pod be in the namespace and run on the node.
func (e *Env) place(p *corev1.Pod) *corev1.Pod {
	p.Namespace = e.Namespace
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: e.NodeName}
	if e.Taint != "" {
		p.Spec.Tolerations = []corev1.Toleration{{Key: e.Taint, Operator: corev1.TolerationOpExists}}
	}
	return p
}

// start makes a pod on the node and waits until it runs.
func (e *Env) start(ctx context.Context, p *corev1.Pod) error {
	e.place(p)
	if _, err := e.until(ctx, 30*time.Second, "making pod "+p.Name, func() error { return e.API.Create(ctx, p) }); err != nil {
		return err
	}
	return e.running(ctx, p)
}

// ensure starts a pod unless it is there.
func (e *Env) ensure(ctx context.Context, p *corev1.Pod) error {
	err := e.API.Get(ctx, client.ObjectKeyFromObject(e.place(p)), p)
	if apierrors.IsNotFound(err) {
		return e.start(ctx, p)
	}
	return err
}

func (e *Env) running(ctx context.Context, p *corev1.Pod) error {
	_, err := e.until(ctx, 3*time.Minute, "pod "+p.Name+" running", func() error {
		if err := e.API.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("its phase is %s: %s", p.Status.Phase, states(p))
		}
		return nil
	})
	return err
}

func states(p *corev1.Pod) string {
	var out []string
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			out = append(out, c.Name+": "+w.Reason+" "+w.Message)
		}
	}
	return strings.Join(out, "; ")
}

// calm has the workload of a pod be calm.
func (e *Env) calm(ctx context.Context, podName string) error {
	return e.tell(ctx, e.Namespace, podName, "calm")
}

// tell tells the workload of a pod, its container app, what to do. A kubelet that is
// started again refuses at first.
func (e *Env) tell(ctx context.Context, namespace, podName, what string) error {
	_, err := e.until(ctx, 30*time.Second, "telling "+podName+" to "+what, func() error {
		_, err := e.Kubectl(ctx, "", "-n", namespace, "exec", podName, "-c", "app", "--", "/load", "-tell", what)
		return err
	})
	return err
}

// signalsOf lists the whispers of a type about a pod.
func (e *Env) signalsOf(ctx context.Context, podName string, signal v1alpha1.SignalType) ([]v1alpha1.KernelWhisper, error) {
	var list v1alpha1.KernelWhisperList
	if err := e.API.List(ctx, &list, client.InNamespace(e.Namespace)); err != nil {
		return nil, fmt.Errorf("listing whispers: %w", err)
	}
	return slices.DeleteFunc(list.Items, func(w v1alpha1.KernelWhisper) bool { return w.Spec.PodName != podName || w.Spec.SignalType != signal }), nil
}

// signal waits for the one whisper of a type about a pod to satisfy check.
func (e *Env) signal(ctx context.Context, p *corev1.Pod, signal v1alpha1.SignalType, what string, check func(*v1alpha1.KernelWhisper) error) (*v1alpha1.KernelWhisper, error) {
	var found *v1alpha1.KernelWhisper
	_, err := e.until(ctx, 4*time.Minute, fmt.Sprintf("whisper of %s, %s: %s", p.Name, signal, what), func() error {
		all, err := e.signalsOf(ctx, p.Name, signal)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("there are %d", len(all))
		}
		found = &all[0]
		if err := owned(found, p); err != nil {
			return err
		}
		return check(found)
	})
	return found, err
}

// alsoAlerted waits for an alert about a pod, and for its whisper to tell that it came.
func (e *Env) alsoAlerted(ctx context.Context, p *corev1.Pod, signal v1alpha1.SignalType, alert string, seen *Seen) error {
	if err := e.alertFires(ctx, alert, p); err != nil {
		return err
	}
	_, err := e.signal(ctx, p, signal, "told by the alert, too", func(w *v1alpha1.KernelWhisper) error {
		if !slices.ContainsFunc(w.Status.Sources, func(s v1alpha1.SourceStatus) bool { return s.Name == alertmanager }) {
			return errors.New("its sources do not have Alertmanager")
		}
		return nil
	})
	if err == nil {
		seen.Add("%s fires and is delivered", alert)
	}
	return err
}

// alertFires waits for an alert about a pod.
func (e *Env) alertFires(ctx context.Context, alert string, p *corev1.Pod) error {
	_, err := e.until(ctx, 3*time.Minute, alert+" of "+p.Name, func() error {
		alerts, err := e.Monitoring.Prometheus.Alerts(ctx)
		if err != nil {
			return err
		}
		for _, a := range alerts.Alerts {
			if string(a.Labels["alertname"]) == alert && string(a.Labels["namespace"]) == p.Namespace && string(a.Labels["pod"]) == p.Name && string(a.State) == "firing" {
				return nil
			}
		}
		return fmt.Errorf("it is not among %d alerts", len(alerts.Alerts))
	})
	return err
}

// whispersOf lists the whispers that tell of a pod's throttling. A machine with other
// work may starve the pod's threads besides; that is another signal.
func (e *Env) whispersOf(ctx context.Context, podName string) ([]v1alpha1.KernelWhisper, error) {
	return e.signalsOf(ctx, podName, throttle)
}

// whisper waits for the one whisper about a container to satisfy check, and returns it.
func (e *Env) whisper(ctx context.Context, limit time.Duration, podName, container, what string, check func(*v1alpha1.KernelWhisper) error) (*v1alpha1.KernelWhisper, time.Duration, error) {
	var found *v1alpha1.KernelWhisper
	took, err := e.until(ctx, limit, fmt.Sprintf("whisper of %s/%s: %s", podName, container, what), func() error {
		all, err := e.whispersOf(ctx, podName)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(w v1alpha1.KernelWhisper) bool { return w.Spec.ContainerName != container })
		if len(all) != 1 {
			return fmt.Errorf("there are %d", len(all))
		}
		found = &all[0]
		return check(found)
	})
	return found, took, err
}

// active tells that the whisper is Active and complete: what the kernel says and what is reported.
func active(w *v1alpha1.KernelWhisper) error {
	ev := w.Spec.Evidence
	switch {
	case w.Status.Phase != v1alpha1.Active:
		return fmt.Errorf("its phase is %q", w.Status.Phase)
	case ev.ThrottlePercentage == nil:
		return fmt.Errorf("it has no throttle percentage")
	case ev.ReportedPercentOfLimit == nil:
		return fmt.Errorf("it does not tell yet what is reported")
	}
	return nil
}

func isActive(w *v1alpha1.KernelWhisper) error {
	if w.Status.Phase != v1alpha1.Active {
		return fmt.Errorf("its phase is %q", w.Status.Phase)
	}
	return nil
}

func there(*v1alpha1.KernelWhisper) error { return nil }

func resolved(w *v1alpha1.KernelWhisper) error {
	if w.Status.Phase != v1alpha1.Resolved {
		var sources []string
		for _, s := range w.Status.Sources {
			if s.Active {
				sources = append(sources, string(s.Name))
			}
		}
		return fmt.Errorf("its phase is %q by %s", w.Status.Phase, strings.Join(sources, ", "))
	}
	return nil
}

// owned tells that the whisper goes with the pod of that UID and no other.
func owned(w *v1alpha1.KernelWhisper, p *corev1.Pod) error {
	if len(w.OwnerReferences) != 1 || w.OwnerReferences[0].Kind != "Pod" || w.OwnerReferences[0].UID != p.UID {
		return fmt.Errorf("whisper %s is owned by %v, not by pod %s (%s)", w.Name, w.OwnerReferences, p.Name, p.UID)
	}
	if w.Spec.PodUID != string(p.UID) {
		return fmt.Errorf("whisper %s tells of pod UID %s, not of %s", w.Name, w.Spec.PodUID, p.UID)
	}
	return nil
}

// endAll ends pods side by side.
func (e *Env) endAll(ctx context.Context, pods ...*corev1.Pod) error {
	errs := make([]error, len(pods))
	var all sync.WaitGroup
	for i, p := range pods {
		all.Go(func() { errs[i] = e.end(ctx, p, nil) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// startAll starts pods side by side.
func (e *Env) startAll(ctx context.Context, pods ...*corev1.Pod) error {
	errs := make([]error, len(pods))
	var all sync.WaitGroup
	for i, p := range pods {
		all.Go(func() { errs[i] = e.start(ctx, p) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// end deletes a pod and waits until its whispers are gone with it. After an outage of
// the API server the garbage collector takes a minute or more to watch again.
func (e *Env) end(ctx context.Context, p *corev1.Pod, seen *Seen) error {
	if _, err := e.until(ctx, 30*time.Second, "deleting pod "+p.Name, func() error {
		return client.IgnoreNotFound(e.API.Delete(ctx, p))
	}); err != nil {
		return err
	}
	var gone time.Time
	_, err := e.until(ctx, 3*time.Minute, "whispers of the deleted pod "+p.Name+" gone", func() error {
		var now corev1.Pod
		if err := e.API.Get(ctx, client.ObjectKeyFromObject(p), &now); err == nil && now.UID == p.UID {
			return fmt.Errorf("the pod is still there")
		} else if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if gone.IsZero() {
			gone = time.Now()
		}
		all, err := e.whispersOf(ctx, p.Name)
		if err != nil {
			return err
		}
		if n := len(all); n > 0 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	if err == nil && seen != nil {
		seen.Add("gone %.1f s after its pod, by owner reference", time.Since(gone).Seconds())
	}
	return err
}
