package whisper

import (
	"container/list"
	"sync"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// queue holds at most one event of a type for each container, in the order in which the
// containers came: a newer event takes the place of an older one, which it makes
// superfluous. It never blocks.
type queue struct {
	capacity int
	wake     chan struct{} // holds a token when there may be something new to take

	mu     sync.Mutex
	order  *list.List // of *item
	byName map[subject]*list.Element
}

// subject is what a newer event takes an older one's place of.
type subject struct {
	Target
	Type string
}

type item struct {
	target    subject
	event     wire.Event
	notBefore time.Time
}

func newQueue(capacity int) *queue {
	return &queue{
		capacity: capacity,
		wake:     make(chan struct{}, 1),
		order:    list.New(),
		byName:   map[subject]*list.Element{},
	}
}

func subjectOf(e wire.Event) subject {
	h := e.About()
	return subject{Target{Namespace: h.Namespace, Pod: h.PodName, Container: h.ContainerName, PodUID: h.PodUID}, h.Type}
}

// put takes new events and tells how many older ones they superseded, and how
// many of the oldest had to go because the queue was full.
func (q *queue) put(events []wire.Event) (superseded, overflowed int) {
	q.mu.Lock()
	for i := range events {
		it := &item{target: subjectOf(events[i]), event: events[i]}
		if el, ok := q.byName[it.target]; ok {
			el.Value = it
			superseded++
			continue
		}
		if q.order.Len() >= q.capacity {
			oldest := q.order.Front()
			delete(q.byName, q.order.Remove(oldest).(*item).target)
			overflowed++
		}
		q.byName[it.target] = q.order.PushBack(it)
	}
	q.mu.Unlock()
	q.signal()
	return superseded, overflowed
}

// putBack returns items that were taken and not delivered to the front, in their
// order. One for whose container a newer event came meanwhile is superseded.
func (q *queue) putBack(items []*item) (superseded, overflowed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := len(items) - 1; i >= 0; i-- {
		it := items[i]
		switch _, newer := q.byName[it.target]; {
		case newer:
			superseded++
		case q.order.Len() >= q.capacity:
			overflowed++
		default:
			q.byName[it.target] = q.order.PushFront(it)
		}
	}
	return superseded, overflowed
}

// take removes up to n items that are due. When none is, next is when the first
// will be, and zero if the queue is empty.
func (q *queue) take(now time.Time, n int) (items []*item, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for el := q.order.Front(); el != nil && len(items) < n; {
		it, following := el.Value.(*item), el.Next()
		if it.notBefore.After(now) {
			if next.IsZero() || it.notBefore.Before(next) {
				next = it.notBefore
			}
		} else {
			q.order.Remove(el)
			delete(q.byName, it.target)
			items = append(items, it)
		}
		el = following
	}
	if len(items) > 0 {
		return items, time.Time{}
	}
	return nil, next
}

// drain empties the queue and returns how many were in it.
func (q *queue) drain() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.order.Len()
	q.order.Init()
	clear(q.byName)
	return n
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.order.Len()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
