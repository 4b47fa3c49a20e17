package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// What comes while a write is under way goes into the next one, whole.
func TestQueueFolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches []int
		q := newQueue(t.Context(), 2, func(_ context.Context, _ identity, signals []signal.Signal) error {
			time.Sleep(time.Second)
			batches = append(batches, len(signals))
			return nil
		})
		var answered atomic.Int64
		var wg sync.WaitGroup
		send := func() {
			assert.NoError(t, q.accept(t.Context(), throttled(noon())))
			answered.Add(1)
		}
		wg.Go(send)
		synctest.Wait() // the first is being written
		for range 99 {
			wg.Go(send)
		}
		synctest.Wait()
		assert.Zero(t, answered.Load(), "nobody is answered before the write")
		wg.Wait()
		assert.Equal(t, []int{1, 99}, batches)
		synctest.Wait() // the writer leaves
		assert.Empty(t, q.waiting, "an object that is not written costs no memory")
		assert.Zero(t, q.length)
	})
}

func TestQueueWritesDifferentObjectsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		q := newQueue(t.Context(), 4, func(context.Context, identity, []signal.Signal) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		})
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() { assert.NoError(t, q.accept(t.Context(), about(fmt.Sprint("pod-", i)))) })
		}
		wg.Wait()
		assert.EqualValues(t, 4, most.Load())
		assert.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := newQueue(t.Context(), 1, func(context.Context, identity, []signal.Signal) error {
			<-release
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, q.accept(t.Context(), about("first"))) })
		synctest.Wait() // it is being written
		for i := range maxWaiting {
			wg.Go(func() { assert.NoError(t, q.accept(t.Context(), about(fmt.Sprint("pod-", i)))) })
		}
		synctest.Wait()
		require.ErrorContains(t, q.accept(t.Context(), about("more")), "10000 signals wait already")
		close(release)
		wg.Wait()
	})
}

// A sender that gave up sends again: what it left must not count twice.
func TestQueueForgetsWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var written []string
		q := newQueue(t.Context(), 1, func(_ context.Context, id identity, signals []signal.Signal) error {
			<-release
			written = append(written, fmt.Sprint(id.pod, " ", len(signals)))
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, q.accept(t.Context(), about("first"))) })
		synctest.Wait()
		wg.Go(func() { assert.NoError(t, q.accept(t.Context(), about("second"))) })
		ctx, cancel := context.WithCancelCause(t.Context())
		wg.Go(func() { assert.ErrorContains(t, q.accept(ctx, about("second")), "the sender is gone") })
		synctest.Wait()
		cancel(errors.New("the sender is gone"))
		synctest.Wait()
		close(release)
		wg.Wait()
		synctest.Wait()
		assert.ElementsMatch(t, []string{"first 1", "second 1"}, written)
	})
}

// A signal that can never be stored takes none of its neighbours with it.
func TestQueueSetsTheInvalidApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		invalid := &signal.InvalidError{Field: "node_name", Problem: "is not good"}
		q := newQueue(t.Context(), 1, func(_ context.Context, _ identity, signals []signal.Signal) error {
			time.Sleep(time.Second)
			for _, s := range signals {
				if s.Node == "bad" {
					return invalid
				}
			}
			return nil
		})
		var wg sync.WaitGroup
		for _, node := range []string{"good", "bad", "good", "good"} {
			wg.Go(func() {
				s := throttled(noon())
				s.Node = node
				err := q.accept(t.Context(), s)
				assert.Equal(t, node == "bad", errors.Is(err, invalid), "%s: %v", node, err)
			})
		}
		wg.Wait()
	})
}

// Namesakes never share a write: the object of one is deleted for the other.
func TestQueueKeepsNamesakesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t.Context(), 1, func(_ context.Context, _ identity, signals []signal.Signal) error {
			time.Sleep(time.Second)
			for _, s := range signals {
				assert.Equal(t, signals[0].PodUID, s.PodUID)
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				s := throttled(noon())
				s.PodUID = fmt.Sprint(i / 3 % 2)
				assert.NoError(t, q.accept(t.Context(), s))
			})
		}
		wg.Wait()
	})
}

func TestQueueEndsAWriteThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t.Context(), 1, func(ctx context.Context, _ identity, _ []signal.Signal) error {
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		require.ErrorIs(t, q.accept(t.Context(), throttled(noon())), context.DeadlineExceeded)
		assert.Equal(t, writeTimeout, time.Since(began))
	})
}
