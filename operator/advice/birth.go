package advice

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// SlowBirth is from when on a birth is a warning. Kubernetes promises 5 s for a pod
// whose images are there (sig-scalability's pod startup SLO); pulls take their time.
const SlowBirth = 30 * time.Second

const (
	unseenShare   = 0.25 // of a birth that passes without a sign is worth a word
	wholeShare    = 0.9  // and more is nearly all of a birth
	unseenAtLeast = 200 * time.Millisecond
	waitAtLeast   = 2 * time.Second // the API's times are cut to the second
	mostFailures  = 8               // that are told one by one
)

// birth tells what a birth cost, what failed, and where the time went.
func birth(c *signal.Creation) Advice {
	a := Advice{Severity: Info}
	if c.Failed || c.Duration >= SlowBirth {
		a.Severity = Warning
	}
	calls := fmt.Sprintf("%d syscalls", c.TotalSyscalls)
	if c.SetupSyscalls != nil {
		calls += fmt.Sprintf(" (%d of them set-up)", *c.SetupSyscalls)
	}
	a.Insights = append(a.Insights, fmt.Sprintf("Pod birth took %s: %s, %d namespace operations, %d cgroup writes",
		short(c.Duration), calls, c.NamespaceOps, c.CgroupWrites))
	a.Insights = append(a.Insights, failures(c)...)
	a.Insights = append(a.Insights, whereTheTimeWent(c)...)
	if c.Complete != nil && !*c.Complete {
		line := "Not all of it was seen"
		if len(c.IncompleteReasons) > 0 {
			line += ": " + cut(strings.Join(c.IncompleteReasons, "; "))
		}
		a.Insights = append(a.Insights, line)
	}
	if c.SharedSyscalls != nil && *c.SharedSyscalls > 0 {
		line := fmt.Sprintf("Daemons made %d more syscalls meanwhile", *c.SharedSyscalls)
		if c.SharedBy != nil && *c.SharedBy > 1 {
			line += fmt.Sprintf(", for %d births at once", *c.SharedBy)
		}
		a.Insights = append(a.Insights, line)
	}
	return a
}

func failures(c *signal.Creation) []string {
	var lines []string
	for _, x := range c.Containers {
		if x.Failure == "" {
			continue
		}
		if len(lines) == mostFailures {
			return append(lines, "More containers never reached their entrypoints")
		}
		line := fmt.Sprintf("Container %s never reached its entrypoint", x.Name)
		if _, cause, ok := strings.Cut(x.Failure, "never reached its entrypoint"); !ok {
			line += ": " + cut(x.Failure)
		} else {
			line += cut(cause)
		}
		lines = append(lines, line)
	}
	switch {
	case len(lines) > 0 || !c.Failed:
	case c.Failure != "":
		lines = append(lines, "The birth failed: "+cut(c.Failure))
	default:
		lines = append(lines, "The birth failed: a container never reached its entrypoint")
	}
	return lines
}

func whereTheTimeWent(c *signal.Creation) []string {
	var lines []string
	for _, s := range c.Timeline {
		if s.Actor == "scheduler" && s.Duration != nil && *s.Duration >= waitAtLeast {
			lines = append(lines, fmt.Sprintf("Before that it waited about %s for a node", s.Duration.Round(time.Second)))
			break
		}
	}
	if c.Duration <= 0 {
		return lines
	}
	share := func(d time.Duration) string { return fmt.Sprintf("%.0f %%", 100*d.Seconds()/c.Duration.Seconds()) }
	if s, ok := longest(c); ok {
		what := s.Action
		if s.Container != "" {
			what += " of container " + s.Container
		}
		lines = append(lines, fmt.Sprintf("The longest stage: %s (%s), %s of %s, %s", what, s.Actor, short(*s.Duration), short(c.Duration), share(*s.Duration)))
	}
	if from, gap := unseen(c); gap >= unseenAtLeast && gap.Seconds() >= unseenShare*c.Duration.Seconds() {
		lines = append(lines, fmt.Sprintf("From %s on, nothing of it was seen in the kernel for %s, %s of the time: so look image pulls, volumes and the kubelet's own waits",
			short(from), short(gap), share(gap)))
	}
	return lines
}

// measured tells whether a stage is the kernel's word, inside of the birth.
func measured(s signal.Step) bool { return s.Precision == nil && s.Offset >= 0 }

// longest returns the longest stage that was measured in the kernel, as far as it is of
// the birth. One that is nearly all of it and made of others, as runc run is, says
// nothing where there is another.
func longest(c *signal.Creation) (signal.Step, bool) {
	var most, whole signal.Step
	for _, s := range c.Timeline {
		if !measured(s) || s.Duration == nil {
			continue
		}
		length := min(*s.Duration, c.Duration-s.Offset)
		best := &most
		if length.Seconds() >= wholeShare*c.Duration.Seconds() && slices.ContainsFunc(c.Timeline, func(x signal.Step) bool {
			return measured(x) && x.Container == s.Container && x.Offset > s.Offset && x.Offset < s.Offset+length
		}) {
			best = &whole
		}
		if s.Duration = &length; length > 0 && (best.Duration == nil || length > *best.Duration) {
			*best = s
		}
	}
	if most.Duration == nil {
		most = whole
	}
	return most, most.Duration != nil
}

// unseen returns the longest time between two stages of the birth in which none went on.
func unseen(c *signal.Creation) (from, gap time.Duration) {
	type span struct{ from, to time.Duration }
	var spans []span
	for _, s := range c.Timeline {
		if !measured(s) {
			continue
		}
		x := span{s.Offset, s.Offset}
		if s.Duration != nil {
			x.to += *s.Duration
		}
		spans = append(spans, x)
	}
	for _, x := range c.Containers {
		for _, at := range []*time.Duration{x.Created, x.Started, x.Entered} {
			if at != nil {
				spans = append(spans, span{*at, *at})
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var seen time.Duration
	for i, x := range spans {
		if x.from > c.Duration {
			break
		}
		if i > 0 && x.from-seen > gap {
			from, gap = seen, x.from-seen
		}
		seen = max(seen, x.to)
	}
	return from, gap
}

// short keeps what a person reads.
func short(d time.Duration) time.Duration {
	if d >= 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	if d < 100*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// cut keeps an insight's length within bounds, whatever was sent.
func cut(s string) string {
	const most = 512
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
