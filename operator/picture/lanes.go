package picture

import (
	"cmp"
	"slices"
	"time"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// mark is one thing on a lane: a bar, a moment, an entrypoint, a failure.
type mark struct {
	from, to  time.Duration
	kind      string // actor's class, "entry" or "failed"
	label     string
	whole     string // for a pointer
	row       int
	left      bool // the label stands left of it
	inside    bool
	milestone bool
	action    string // of a stage
}

type lane struct {
	name, note string
	marks      []mark
	rows       int
	hidden     int // marks that found no row
}

// laneOf orders the lanes of the pod.
func laneOf(actor string) int {
	return slices.Index([]string{"kubelet", "cni", "runtime", "kernel"}, actor)
}

// class keeps a sender's word out of the style sheet.
func class(actor string) string {
	if actor == "scheduler" || laneOf(actor) >= 0 {
		return actor
	}
	return "other"
}

// lanes sorts what was measured in the kernel by who did it, and a container's own
// by container; told is what the API server says, whose clock is too coarse to be drawn.
func lanes(spec *v1alpha1.PodBirthCertificateSpec) (all []lane, told []v1alpha1.Stage) {
	byActor, byContainer := map[string]*lane{}, map[string]*lane{}
	var actors, containers []*lane
	for _, c := range spec.Containers {
		if len(containers) == maxLanes {
			break
		}
		l := &lane{name: c.Name, marks: milestones(c)}
		switch {
		case c.Init:
			l.note = "init container"
		default:
			l.note = "container"
		}
		if c.Syscalls != nil {
			l.note += ", " + number(*c.Syscalls) + " syscalls"
		}
		byContainer[c.Name] = l
		containers = append(containers, l)
	}
	for _, s := range spec.Stages {
		if s.Precision != nil || s.Offset.Duration < 0 || s.Actor == "scheduler" {
			told = append(told, s)
			continue
		}
		l := byContainer[s.Container]
		if l == nil {
			l = byActor[s.Actor]
		}
		if l == nil && len(actors) < maxLanes {
			l = &lane{name: s.Actor}
			byActor[s.Actor] = l
			actors = append(actors, l)
		}
		if l == nil {
			continue
		}
		l.marks = append(l.marks, stage(s, byContainer[s.Container] != nil))
	}
	slices.SortStableFunc(actors, func(a, b *lane) int {
		return cmp.Compare(uint(laneOf(a.name)), uint(laneOf(b.name))) // unknown ones last
	})
	for _, l := range append(actors, containers...) {
		l.settle()
		all = append(all, *l)
	}
	return all, told
}

// settle leaves out what is there twice, a milestone that a stage begins with or the stage
// that is the entrypoint, and puts a failure where the last stage ends.
func (l *lane) settle() {
	var end time.Duration
	for _, m := range l.marks {
		end = max(end, m.to)
	}
	all := slices.Clone(l.marks)
	l.marks = slices.DeleteFunc(l.marks, func(m mark) bool {
		if m.action == "entrypoint" {
			return slices.ContainsFunc(all, func(e mark) bool { return e.kind == "entry" && (e.from-m.from).Abs() <= time.Millisecond })
		}
		return m.milestone && slices.ContainsFunc(all, func(s mark) bool { return !s.milestone && s.to > s.from && (s.from-m.from).Abs() <= time.Millisecond })
	})
	for i := range l.marks {
		if m := &l.marks[i]; m.kind == "failed" {
			m.from, m.to = end, end
		}
	}
}

func stage(s v1alpha1.Stage, ofContainer bool) mark {
	m := mark{from: s.Offset.Duration, to: s.Offset.Duration, kind: class(s.Actor), action: s.Action, label: s.Action}
	m.whole = span(m.from) + " " + s.Actor + ": " + s.Action
	if s.Container != "" && !ofContainer {
		m.label += " " + s.Container
		m.whole += " " + s.Container
	}
	if s.Duration != nil && s.Duration.Duration > 0 {
		m.to += s.Duration.Duration
		m.label += " " + span(s.Duration.Duration)
		m.whole += ", " + span(s.Duration.Duration)
	}
	if s.Details != "" {
		m.whole += " – " + s.Details
	}
	return m
}

// milestones are when a container was created, started and came to its entrypoint.
func milestones(c v1alpha1.BirthContainer) []mark {
	var marks []mark
	for _, m := range []struct {
		what string
		at   *time.Duration
	}{{"create", offset(c.CreatedOffset)}, {"start", offset(c.StartedOffset)}} {
		if m.at != nil {
			marks = append(marks, mark{from: *m.at, to: *m.at, kind: "runtime", label: m.what, whole: span(*m.at) + " " + m.what, milestone: true})
		}
	}
	switch at := offset(c.EntrypointOffset); {
	case at != nil:
		label := c.Entrypoint
		if label == "" {
			label = "entrypoint"
		}
		marks = append(marks, mark{from: *at, to: *at, kind: "entry", label: label + " " + span(*at), whole: span(*at) + " entrypoint " + c.Entrypoint})
	case c.Failure != "":
		marks = append(marks, mark{kind: "failed", label: "never reached its entrypoint", whole: c.Failure})
	}
	return marks
}

// pack gives each mark the first row where it and its label fit, in the pixels that
// at says.
func (l *lane) pack(at func(time.Duration) float64, x0, x1 float64) {
	slices.SortStableFunc(l.marks, func(a, b mark) int { return cmp.Compare(a.from, b.from) })
	var ends []float64 // of each row
	kept := l.marks[:0]
	for _, m := range l.marks {
		m.label = cut(m.label, 64)
		from, to, text := at(m.from), max(at(m.to), at(m.from)+2), width(m.label, small)
		m.inside = to-from >= text+10
		low, high := from-6, to+6
		if !m.inside {
			if m.left = to+8+text > x1; m.left && from-8-text < x0 {
				m.left = false
				m.label = cut(m.label, int((x1-to-8)/(0.58*small)))
			}
			if text = width(m.label, small); m.left {
				low -= text + 4
			} else {
				high += text + 4
			}
		}
		m.row = slices.IndexFunc(ends, func(end float64) bool { return end <= low })
		if m.row < 0 {
			if len(ends) == maxRows && m.kind != "entry" && m.kind != "failed" {
				l.hidden++
				continue
			}
			m.row = len(ends)
			ends = append(ends, 0)
		}
		ends[m.row] = high
		kept = append(kept, m)
	}
	l.marks, l.rows = kept, max(1, len(ends))
}
