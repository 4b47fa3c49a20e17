package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

const (
	// maxWaiting signals wait for a write; more are to be sent again.
	maxWaiting = 10_000
	// writeTimeout bounds one write with its retries. It is longer than any sender waits:
	// a new object takes a slow API server several answers, and a write that ended with
	// its sender would begin anew for ever. The sender's next try finds it done.
	writeTimeout = 30 * time.Second
)

// queue folds signals about one object that arrive while it is being written
// into the next write.
type queue struct {
	ctx   context.Context // ends every write
	write func(ctx context.Context, id identity, signals []signal.Signal) error
	slots chan struct{} // writes at once

	mu      sync.Mutex
	waiting map[identity][]*waiter // an entry, even an empty one, has a writer
	length  int
}

type waiter struct {
	ctx    context.Context
	signal signal.Signal
	done   chan error
}

func newQueue(ctx context.Context, writers int, write func(context.Context, identity, []signal.Signal) error) *queue {
	return &queue{ctx: ctx, write: write, slots: make(chan struct{}, writers), waiting: map[identity][]*waiter{}}
}

// accept returns when a write that counts s has landed or failed, or ctx ends;
// then s may have been written nevertheless.
func (q *queue) accept(ctx context.Context, s signal.Signal) error {
	id, w := identify(s), &waiter{ctx: ctx, signal: s, done: make(chan error, 1)}
	q.mu.Lock()
	if q.length >= maxWaiting {
		q.mu.Unlock()
		return fmt.Errorf("storing the signal: %d signals wait already", maxWaiting)
	}
	line, running := q.waiting[id]
	q.waiting[id] = append(line, w)
	q.length++
	q.mu.Unlock()
	if !running {
		go q.run(id)
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("storing the signal: %w", context.Cause(ctx))
	}
}

func (q *queue) run(id identity) {
	for {
		q.slots <- struct{}{}
		batch := q.take(id)
		if len(batch) > 0 {
			q.flush(id, batch)
		}
		<-q.slots
		if len(batch) == 0 {
			return
		}
	}
}

func (q *queue) take(id identity) []*waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.waiting[id]
	if len(batch) == 0 {
		delete(q.waiting, id)
		return nil
	}
	q.waiting[id] = nil
	q.length -= len(batch)
	return batch
}

func (q *queue) flush(id identity, batch []*waiter) {
	ctx, cancel := context.WithTimeout(q.ctx, writeTimeout)
	defer cancel()
	var live []*waiter
	for _, w := range batch {
		// Who gave up sends again, and must not count twice.
		if w.ctx.Err() == nil {
			live = append(live, w)
		}
	}
	for len(live) > 0 {
		// Namesakes of one pod do not share an object.
		n := 1
		for n < len(live) && live[n].signal.PodUID == live[0].signal.PodUID {
			n++
		}
		q.flushRun(ctx, id, live[:n])
		live = live[n:]
	}
}

func (q *queue) flushRun(ctx context.Context, id identity, run []*waiter) {
	signals := make([]signal.Signal, len(run))
	for i, w := range run {
		signals[i] = w.signal
	}
	err := q.write(ctx, id, signals)
	if _, invalid := errors.AsType[*signal.InvalidError](err); invalid && len(run) > 1 {
		// One bad signal must not take the others with it.
		for i := range run {
			q.flushRun(ctx, id, run[i:i+1])
		}
		return
	}
	for _, w := range run {
		w.done <- err
	}
}
