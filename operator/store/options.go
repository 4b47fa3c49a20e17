package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Limits are how many objects of one kind there may be. 0 is no limit. One whisper
// more is refused; a birth certificate more makes the oldest go.
type Limits struct {
	PerNamespace int
	Total        int
}

// The scopes of a cap.
const (
	scopeNamespace = "namespace"
	scopeAll       = "all"
)

// Options of a store; the zero value works.
type Options struct {
	Limits Limits
	// HostNamespace holds what is told of cgroups that belong to no pod.
	HostNamespace string
	Announcer     Announcer
	Metrics       *Metrics
	Logger        *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if o.Announcer == nil {
		o.Announcer = silent{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

type silent struct{}

func (silent) Announce(context.Context, Outcome)                  {}
func (silent) Capped(context.Context, signal.Signal, string, int) {}
func (silent) Resized(context.Context, *v1alpha1.KernelWhisper, resize.Phase, string) {
}

// errIgnored tells that a signal is accepted, and that there is nothing to store.
var errIgnored = errors.New("nothing to store")

// saysNothing tells that signals about an object that does not exist leave nothing to say.
func saysNothing(signals []signal.Signal) bool {
	for _, s := range signals {
		if !s.Resolved && s.Type != signal.CPUReported {
			return false
		}
	}
	return true
}

// latestBirth is the newest of a batch, nil when none tells of a birth.
func latestBirth(signals []signal.Signal) *signal.Signal {
	var latest *signal.Signal
	for i := range signals {
		if s := &signals[i]; s.Creation != nil && (latest == nil || !s.Observed.Before(latest.Observed)) {
			latest = s
		}
	}
	return latest
}

// admit counts the objects there are and refuses one more than a limit allows.
func (o Options) admit(ctx context.Context, s signal.Signal, count func(ctx context.Context, namespace string) (int, error)) error {
	for _, c := range []struct {
		scope, namespace string
		limit            int
	}{{scopeNamespace, s.Namespace, o.Limits.PerNamespace}, {scopeAll, "", o.Limits.Total}} {
		if c.limit <= 0 {
			continue
		}
		n, err := count(ctx, c.namespace)
		if err != nil {
			return fmt.Errorf("counting the objects there are: %w", err)
		}
		if n < c.limit {
			continue
		}
		o.Metrics.capped.WithLabelValues(c.scope).Inc()
		o.Announcer.Capped(ctx, s, c.scope, c.limit)
		if c.scope == scopeNamespace {
			return fmt.Errorf("%w: namespace %s has %d of at most %d; raise --whisper.max-per-namespace or delete some", signal.ErrCapacity, s.Namespace, n, c.limit)
		}
		return fmt.Errorf("%w: there are %d of at most %d; raise --whisper.max or delete some", signal.ErrCapacity, n, c.limit)
	}
	return nil
}

// makeRoom keeps a rolling record: where a limit is reached it evicts the oldest, a
// twentieth of the limit at once, for finding them takes a list of all.
func (o Options) makeRoom(ctx context.Context, s signal.Signal, count func(ctx context.Context, namespace string) (int, error),
	evict func(ctx context.Context, namespace string, n int) error,
) error {
	for _, c := range []struct {
		namespace string
		limit     int
	}{{s.Namespace, o.Limits.PerNamespace}, {"", o.Limits.Total}} {
		if c.limit <= 0 {
			continue
		}
		n, err := count(ctx, c.namespace)
		if err != nil {
			return fmt.Errorf("counting the objects there are: %w", err)
		}
		if n < c.limit {
			continue
		}
		most := n - c.limit + max(1, c.limit/20)
		if err := evict(ctx, c.namespace, most); err != nil {
			return fmt.Errorf("making room, %d of at most %d are there: %w", n, c.limit, err)
		}
		o.Logger.InfoContext(ctx, "deleted the oldest birth certificates to make room", "namespace", c.namespace, "limit", c.limit, "deleted", most)
	}
	return nil
}
