// Package stages tells a person who watches how a long run goes on, and keeps how long
// each of its stages took.
package stages

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Stage is a part of a run and how long it took.
type Stage struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Log writes lines of progress, each with the seconds since the run began, and keeps
// stages in the order in which they began. They may overlap.
type Log struct {
	began time.Time
	w     io.Writer

	mu     sync.Mutex
	stages []*Stage
}

// New makes a log of a run that began at that time, maybe in another process, and that
// has those stages behind it.
func New(w io.Writer, began time.Time, behind ...Stage) *Log {
	l := &Log{began: began, w: w}
	for _, s := range behind {
		l.stages = append(l.stages, &s)
	}
	return l
}

// Say writes a line.
func (l *Log) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.w, "%7.1fs %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// Begin says that a stage begins and returns what ends it. One that has not ended by
// the time of Stages, as after a failure, is not among them.
func (l *Log) Begin(name string) (end func()) {
	l.Say("%s", name)
	s, began := &Stage{Name: name}, time.Now()
	l.mu.Lock()
	l.stages = append(l.stages, s)
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.Took = max(time.Since(began), 1)
	}
}

// Stages are those that have ended.
func (l *Log) Stages() []Stage {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ended []Stage
	for _, s := range l.stages {
		if s.Took > 0 {
			ended = append(ended, *s)
		}
	}
	return ended
}

// Took is how long the run has taken.
func (l *Log) Took() time.Duration { return time.Since(l.began) }

// Text writes the stages for a terminal, those that have not ended, too.
func (l *Log) Text(w io.Writer) error {
	l.mu.Lock()
	var b strings.Builder
	for _, s := range l.stages {
		if s.Took == 0 {
			fmt.Fprintf(&b, "    -     %s: not ended\n", s.Name)
			continue
		}
		fmt.Fprintf(&b, "%7.1fs  %s\n", s.Took.Seconds(), s.Name)
	}
	l.mu.Unlock()
	fmt.Fprintf(&b, "%7.1fs  all\n", l.Took().Seconds())
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("printing the stages: %w", err)
	}
	return nil
}

// Markdown writes a table of the stages and, below them, of the whole run.
func (l *Log) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| stage | seconds |\n|---|---|\n")
	for _, s := range append(l.Stages(), Stage{"all", l.Took()}) {
		fmt.Fprintf(&b, "| %s | %.0f |\n", strings.ReplaceAll(s.Name, "|", `\|`), s.Took.Seconds())
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the table of stages: %w", err)
	}
	return nil
}
