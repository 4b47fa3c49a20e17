// Package join brings what other observers report about a container's CPU, such
// as Pixie's average, together with what the kernel says of the same container.
//
// Figures stream in for every container of the cluster, whispers are few: so a
// figure stays in memory until the kernel has something to say of its container,
// and goes to the store only while that is so. Memory is of this replica; what it
// forgets comes again with the next figure and the next word of the kernel.
package join

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Bounds of the memory.
const (
	MaxContainers = 20_000
	// Fresh is how old a figure may be to say something of the same time.
	Fresh = 5 * time.Minute
	// Whispering is how long a container counts as whispering after its last word.
	Whispering = time.Hour
)

// Sink is a sink before another.
type Sink struct {
	next intake.Sink
	now  func() time.Time

	mu         sync.Mutex
	containers map[key]*list.Element
	recent     *list.List // of *container, the latest heard of first
}

type key struct{ namespace, pod, container string }

type container struct {
	key     key
	figures map[signal.Source]signal.Reported
	spoke   time.Time // the kernel's last word, by our clock; zero when it is over
}

// New makes a Sink before next.
func New(next intake.Sink, now func() time.Time) *Sink {
	return &Sink{next: next, now: now, containers: map[key]*list.Element{}, recent: list.New()}
}

// Accept remembers a CPUReported, and passes it on while its container whispers.
// A CPUThrottle takes with it what others reported in the last Fresh. Everything
// else passes through.
func (j *Sink) Accept(ctx context.Context, s signal.Signal) error {
	switch s.Type {
	case signal.CPUReported:
		if !j.remember(s) {
			return nil
		}
	case signal.CPUThrottle:
		s = j.attach(s)
	}
	return j.next.Accept(ctx, s)
}

// remember tells whether the container whispers.
func (j *Sink) remember(s signal.Signal) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.get(s)
	if old, known := c.figures[s.Source]; !known || !s.Reported.Observed.Before(old.Observed) {
		c.figures[s.Source] = *s.Reported
	}
	return !c.spoke.IsZero() && j.now().Sub(c.spoke) < Whispering
}

func (j *Sink) attach(s signal.Signal) signal.Signal {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.get(s)
	if s.Resolved {
		c.spoke = time.Time{}
		return s
	}
	c.spoke = j.now()
	if s.CPU == nil {
		return s
	}
	cpu := *s.CPU
	for _, source := range []signal.Source{signal.SourcePixie, signal.SourceAlertmanager, signal.SourceManual} {
		if f, known := c.figures[source]; known && j.now().Sub(f.Observed) < Fresh {
			cpu.Others = append(cpu.Others, f)
		}
	}
	s.CPU = &cpu
	return s
}

// get returns the container's memory, made where there is none; the one that was
// not heard of for longest makes room.
func (j *Sink) get(s signal.Signal) *container {
	k := key{s.Namespace, s.Pod, s.Container}
	if e, known := j.containers[k]; known {
		j.recent.MoveToFront(e)
		return e.Value.(*container)
	}
	if j.recent.Len() >= MaxContainers {
		last := j.recent.Back()
		delete(j.containers, last.Value.(*container).key)
		j.recent.Remove(last)
	}
	c := &container{key: k, figures: map[signal.Source]signal.Reported{}}
	j.containers[k] = j.recent.PushFront(c)
	return c
}
