package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// keepGone is how long a container ID or pod UID stays known after the API
	// server forgot it: its cgroup outlives the object, and its last sample comes late.
	keepGone = 5 * time.Minute
	// sweepEvery is how often the forgotten are dropped.
	sweepEvery = time.Minute
	// repeatError is how often the same watch error is logged again.
	repeatError = 5 * time.Minute
)

// Informer is the Index of the pods bound to one node, fed by a watch on the API
// server restricted to that node.
type Informer struct {
	node     string
	log      *slog.Logger
	now      func() time.Time
	informer cache.SharedIndexInformer
	synced   cache.InformerSynced

	mu         sync.RWMutex
	containers map[string]entry // by container ID
	pods       map[string]entry // by UID of the API object
	static     map[string]entry // by config hash

	errMu    sync.Mutex
	lastErr  string
	loggedAt time.Time
}

type entry struct {
	Container
	birth Birth     // of a pod's entry
	gone  time.Time // zero while the API server has it
}

var _ Index = (*Informer)(nil)

// Client lists and watches pods.
type Client interface {
	List(ctx context.Context, o metav1.ListOptions) (*corev1.PodList, error)
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// New returns an Informer of the pods on nodeName. It does nothing before Run.
// The service account needs the verbs list and watch on pods.
func New(client Client, nodeName string, log *slog.Logger) (*Informer, error) {
	if nodeName == "" {
		return nil, errors.New("node name is empty: pass --node-name, or set NODE_NAME from the pod's spec.nodeName")
	}
	if problems := validation.IsDNS1123Subdomain(nodeName); len(problems) > 0 {
		return nil, fmt.Errorf("node name %q is not a name that Kubernetes accepts (%s): pass --node-name as `kubectl get nodes` prints it",
			nodeName, strings.Join(problems, "; "))
	}
	i := &Informer{
		node:       nodeName,
		log:        log.With("component", "pods", "node", nodeName),
		now:        time.Now,
		containers: map[string]entry{},
		pods:       map[string]entry{},
		static:     map[string]entry{},
	}
	selector := fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
	i.informer = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return client.Watch(ctx, o)
		},
	}, client), &corev1.Pod{}, 0, cache.Indexers{})
	if err := i.informer.SetTransform(trim); err != nil {
		return nil, fmt.Errorf("setting the pod informer's transform: %w", err)
	}
	if err := i.informer.SetWatchErrorHandlerWithContext(i.watchFailed); err != nil {
		return nil, fmt.Errorf("setting the pod informer's error handler: %w", err)
	}
	reg, err := i.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { i.changed(nil, obj) },
		UpdateFunc: func(old, obj any) { i.changed(old, obj) },
		DeleteFunc: i.deleted,
	})
	if err != nil {
		return nil, fmt.Errorf("adding the pod informer's handler: %w", err)
	}
	i.synced = reg.HasSynced
	return i, nil
}

// HasSynced tells that every pod of the first list can be looked up.
func (i *Informer) HasSynced() bool { return i.synced() }

// Run watches until ctx ends; a failing API server is logged and retried. It
// returns nil then, and may be called once.
func (i *Informer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { i.informer.RunWithContext(ctx) })
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			i.sweep()
		}
	}
}

// ByContainerID returns the container that runs, or within the last minutes ran, as id.
func (i *Informer) ByContainerID(id string) (Container, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	e, ok := i.containers[id]
	return e.Container, ok
}

// ByPodUID returns the pod whose cgroup path carries uid.
func (i *Informer) ByPodUID(uid string) (Container, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	// The real UID first: anyone may write the annotations of a pod of his own,
	// only the API server gives UIDs.
	if e, ok := i.pods[uid]; ok {
		return e.Container, true
	}
	e, ok := i.static[uid]
	return e.Container, ok
}

// Namespaces returns, in no order, the namespaces that have a pod on the node.
func (i *Informer) Namespaces() []string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	seen := map[string]struct{}{}
	var out []string
	for _, e := range i.pods {
		if _, dup := seen[e.Namespace]; dup || !e.gone.IsZero() {
			continue
		}
		seen[e.Namespace] = struct{}{}
		out = append(out, e.Namespace)
	}
	return out
}

func (i *Informer) changed(old, obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName != i.node {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	// A pod recreated between two watches arrives as an update with another UID.
	if was, ok := old.(*corev1.Pod); ok && was.UID != pod.UID {
		i.forget(string(was.UID))
	}
	self := describePod(pod)
	known := entry{Container: self, birth: describeBirth(pod)}
	i.pods[self.PodUID] = known
	if hash := staticHash(pod); hash != "" {
		i.static[hash] = known
	}
	current := map[string]struct{}{}
	for _, c := range describeContainers(pod, self) {
		current[c.ContainerID] = struct{}{}
		i.containers[c.ContainerID] = entry{Container: c}
	}
	now := i.now()
	for id, e := range i.containers {
		if _, is := current[id]; !is && e.PodUID == self.PodUID && e.gone.IsZero() {
			e.gone = now
			i.containers[id] = e
		}
	}
}

func (i *Informer) deleted(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(string(pod.UID))
}

// forget starts the grace period of all that belongs to the pod uid.
func (i *Informer) forget(uid string) {
	now := i.now()
	for _, m := range []map[string]entry{i.containers, i.pods, i.static} {
		for key, e := range m {
			if e.PodUID == uid && e.gone.IsZero() {
				e.gone = now
				m[key] = e
			}
		}
	}
}

func (i *Informer) sweep() {
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.now().Add(-keepGone)
	for _, m := range []map[string]entry{i.containers, i.pods, i.static} {
		for key, e := range m {
			if !e.gone.IsZero() && e.gone.Before(before) {
				delete(m, key)
			}
		}
	}
}

// watchFailed tells a person what to do, once per kind of failure; the informer
// itself retries with backoff.
func (i *Informer) watchFailed(_ context.Context, _ *cache.Reflector, err error) {
	if err == nil || errors.Is(err, context.Canceled) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return
	}
	what := "cannot watch this node's pods: namespace, pod and container names of new containers are missing until this works; retrying"
	kind := string(apierrors.ReasonForError(err))
	switch {
	case apierrors.IsForbidden(err):
		what = `not allowed to list and watch pods: grant the service account the verbs "list" and "watch" on resource "pods" (API group "") in a ClusterRole; retrying`
	case apierrors.IsUnauthorized(err):
		what = "the API server does not accept the service account's token: check that it is mounted and not expired; retrying"
	}
	i.errMu.Lock()
	defer i.errMu.Unlock()
	now := i.now()
	if kind == i.lastErr && now.Sub(i.loggedAt) < repeatError {
		return
	}
	i.lastErr, i.loggedAt = kind, now
	i.log.Error(what, "err", err)
}
