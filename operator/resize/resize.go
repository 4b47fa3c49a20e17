// Package resize decides whether a container's CPU limit is raised in place as its
// whisper recommends (KEP-1287), and whether that is taken back. It is pure: what it
// is told is what it knows.
//
// Guard rails: nobody's limit is touched who did not ask for it; limits are raised,
// never lowered, but to take a raise back; no further than the bounds; one step, then
// a look at what it did, and none before the cool-down is over. A step after which
// the share of throttled periods did not fall is taken back, and is the last one.
package resize

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Annotations of a pod or of its namespace; the pod's word counts first.
const (
	// Annotation asks for it: "true", or "false" to except a pod of a namespace.
	Annotation = "kernel-gossip.dev/resize-cpu-limit"
	// MaxAnnotation is the highest limit, in cores, e.g. "1.5".
	MaxAnnotation = "kernel-gossip.dev/max-cpu-limit"
)

const (
	// fresh is how old evidence may be; the exporter repeats it each five minutes.
	fresh = 10 * time.Minute
	// fell is the share of the ratio before that is left at most when it has fallen.
	fell = 0.9
	// look is how often a pod is looked at while a step is under way.
	look = time.Minute
)

// Config is the operator's bounds.
type Config struct {
	MaxMilli  int64         // highest limit, in thousandths of a core
	MaxFactor float64       // of one step
	CoolDown  time.Duration // between two steps
	Verify    time.Duration // to wait for what a step did
}

// Validate names what is wrong.
func (c Config) Validate() error {
	switch {
	case c.MaxMilli <= 0:
		return fmt.Errorf("the highest limit must be above 0, got %dm", c.MaxMilli)
	case !(c.MaxFactor > 1) || math.IsInf(c.MaxFactor, 1):
		return fmt.Errorf("a step must be allowed a factor above 1, got %g", c.MaxFactor)
	case c.CoolDown <= 0 || c.Verify <= 0:
		return fmt.Errorf("the cool-down %s and the time to verify %s must be above 0", c.CoolDown, c.Verify)
	}
	return nil
}

// Phase is how far a step came; its values are those of status.resize.phase.
type Phase string

// The phases.
const (
	Applying    Phase = "Applying"    // decided; the pod may have it
	Applied     Phase = "Applied"     // the pod's spec has it
	Kept        Phase = "Kept"        // the ratio fell
	RollingBack Phase = "RollingBack" // decided; the pod may have it
	RolledBack  Phase = "RolledBack"  // the ratio did not fall
	Unverified  Phase = "Unverified"  // nobody told what it did
	Superseded  Phase = "Superseded"  // somebody else set another limit
	Refused     Phase = "Refused"     // the API server does not take it
)

// State is the last step.
type State struct {
	Phase    Phase
	At       time.Time
	From, To int64   // limits, thousandths of a core
	Before   float64 // ratio that it was taken for
}

// Container is what the pod's spec has. Limits in thousandths of a core; 0 is none.
type Container struct {
	Milli    int64
	Restarts bool // its resizePolicy asks for a restart
}

// Pending is what the kubelet says of a resize under way.
type Pending string

// What it says.
const (
	Nothing    Pending = ""
	UnderWay   Pending = "UnderWay"
	Infeasible Pending = "Infeasible" // the node can't ever
)

// Change is what a changed limit did.
type Change struct {
	At       time.Time
	Cores    float64
	Measured float64
}

// Input is what is known.
type Input struct {
	Now            time.Time
	Pod, Namespace map[string]string // annotations
	Mirror         bool              // a static pod's image in the API server
	Container      *Container        // nil: the pod has none of that name
	Pending        Pending

	// The whisper's.
	Active     bool
	Detected   time.Time
	LimitCores float64 // observed in the kernel; 0: not known
	Modelled   bool    // the what-if model gave Target
	Sure       bool    // with more than low confidence
	Target     int64   // recommended limit; 0: none
	Ratio      float64 // of throttled periods, that Target is recommended for
	Changes    []Change

	Last *State // nil: nothing was done yet
}

// Do is what to do.
type Do string

// What can be done.
const (
	Wait     Do = ""         // nothing now
	Raise    Do = "Raise"    // set the limit to Milli
	RollBack Do = "RollBack" // likewise
	Settle   Do = "Settle"   // the last step has come to Phase
)

// Decision is what to do, and why.
type Decision struct {
	Do    Do
	Milli int64
	Phase Phase // with Settle
	// Reason and Message become the whisper's condition; empty leaves it as it is.
	Reason, Message string
	// Again is when to look again at the latest; 0: when the whisper changes.
	Again time.Duration
}

// Wanted tells whether the annotations ask for it, the pod's first.
func Wanted(pod, namespace map[string]string) bool {
	word, said := pod[Annotation]
	if !said {
		word = namespace[Annotation]
	}
	return word == "true"
}

// Decide never fails: what is not understood is not done.
func Decide(cfg Config, in Input) Decision {
	if in.Container == nil {
		if in.Last == nil && !Wanted(in.Pod, in.Namespace) {
			return Decision{}
		}
		return wait("NoSuchContainer", "the pod has no container of that name that can be resized")
	}
	if s := in.Last; s != nil {
		switch s.Phase {
		case Applying:
			if in.Container.Milli == s.To {
				return Decision{Do: Settle, Phase: Applied, Reason: string(Applied), Message: applied(*s)}
			}
			if in.Container.Milli == s.From {
				if !Wanted(in.Pod, in.Namespace) {
					return Decision{Do: Settle, Phase: Superseded, Reason: string(Superseded), Message: "it is asked for no more"}
				}
				return Decision{Do: Raise, Milli: s.To, Reason: string(Applying), Message: applying(*s)}
			}
			return superseded(in)
		case RollingBack:
			switch in.Container.Milli {
			case s.From:
				return Decision{Do: Settle, Phase: RolledBack}
			case s.To:
				return Decision{Do: RollBack, Milli: s.From}
			}
			return superseded(in)
		case Applied:
			return verify(cfg, in)
		case RolledBack:
			return Decision{} // what the condition says stays true
		case Kept, Unverified, Superseded, Refused:
		}
	}
	return step(cfg, in)
}

// verify looks at what a step did.
func verify(cfg Config, in Input) Decision {
	s := *in.Last
	if in.Container.Milli != s.To {
		return superseded(in)
	}
	if in.Pending == Infeasible {
		return Decision{Do: RollBack, Milli: s.From, Reason: string(RolledBack), Message: fmt.Sprintf("the node can't give %dm: back to %dm", s.To, s.From)}
	}
	for _, c := range in.Changes {
		if !c.At.After(s.At) || !near(c.Cores, s.To) {
			continue
		}
		if c.Measured <= fell*s.Before {
			return Decision{Do: Settle, Phase: Kept, Reason: string(Kept), Message: fmt.Sprintf("at %dm %.1f%% of periods are throttled, at %dm it was %.1f%%",
				s.To, 100*c.Measured, s.From, 100*s.Before)}
		}
		return Decision{Do: RollBack, Milli: s.From, Reason: string(RolledBack), Message: fmt.Sprintf("at %dm still %.1f%% of periods are throttled, at %dm it was %.1f%%: back to %dm, and no other step is made while this whisper exists",
			s.To, 100*c.Measured, s.From, 100*s.Before, s.From)}
	}
	left := cfg.Verify - in.Now.Sub(s.At)
	if left > 0 {
		return Decision{Again: min(left, look)}
	}
	if in.Pending != Nothing {
		return Decision{Do: RollBack, Milli: s.From, Reason: string(RolledBack), Message: fmt.Sprintf("the node did not give %dm in %s: back to %dm", s.To, cfg.Verify, s.From)}
	}
	return Decision{Do: Settle, Phase: Unverified, Reason: string(Unverified), Message: fmt.Sprintf("nobody told within %s what %dm did; the limit stays", cfg.Verify, s.To)}
}

// step decides on a raise.
func step(cfg Config, in Input) Decision {
	if !Wanted(in.Pod, in.Namespace) || !in.Active {
		return Decision{}
	}
	have := in.Container.Milli
	switch {
	case in.Now.Sub(in.Detected) > fresh:
		return wait("StaleEvidence", "the evidence is older than "+fresh.String())
	case !in.Modelled || in.Target == 0:
		return wait("NoPrediction", "the what-if model does not recommend a higher limit, or can't tell yet; it needs --collector.whatif in the exporter, and a minute")
	case !in.Sure:
		return wait("LowConfidence", "the recommendation is of low confidence: it is left to a person")
	case in.Mirror:
		return wait("StaticPod", "a static pod is set by a file on its node")
	case in.Container.Restarts:
		return wait("NeedsRestart", "the container's resizePolicy asks for a restart: it is left to a person")
	case have == 0:
		return wait("NoLimit", "the container has no CPU limit of its own: what throttles it is the pod's")
	case in.Pending != Nothing || !near(in.LimitCores, have):
		return wait("LimitChanging", fmt.Sprintf("the evidence is not of the present limit of %dm", have))
	}
	if s := in.Last; s != nil {
		if left := s.At.Add(cfg.CoolDown).Sub(in.Now); left > 0 {
			if s.Phase == Refused {
				return Decision{Again: left} // the condition says why
			}
			d := wait("CoolingDown", fmt.Sprintf("the last step was at %s; the next may come after %s", s.At.UTC().Format(time.RFC3339), cfg.CoolDown))
			d.Again = left
			return d
		}
	}
	most, err := bound(cfg, in)
	if err != nil {
		return wait("BadAnnotation", err.Error())
	}
	to := min(in.Target, most, int64(float64(have)*cfg.MaxFactor))
	if to <= have {
		return wait("AtBound", fmt.Sprintf("%dm is recommended, and the highest limit that is allowed is %dm", in.Target, most))
	}
	d := Decision{Do: Raise, Milli: to, Reason: string(Applying)}
	d.Message = applying(State{From: have, To: to, Before: in.Ratio})
	if to < in.Target {
		d.Message += fmt.Sprintf("; %dm is recommended, more than a step or the bounds allow", in.Target)
	}
	return d
}

// bound is the highest limit.
func bound(cfg Config, in Input) (int64, error) {
	text, said := in.Pod[MaxAnnotation]
	if !said {
		text, said = in.Namespace[MaxAnnotation]
	}
	if !said {
		return cfg.MaxMilli, nil
	}
	cores, err := strconv.ParseFloat(text, 64)
	if err != nil || !(cores > 0) || math.IsInf(cores, 1) {
		return 0, fmt.Errorf("the annotation %s is %.40q: want cores, e.g. \"1.5\"", MaxAnnotation, text)
	}
	return int64(min(cores*1000, float64(cfg.MaxMilli))), nil
}

func wait(reason, message string) Decision { return Decision{Reason: reason, Message: message} }

func superseded(in Input) Decision {
	return Decision{Do: Settle, Phase: Superseded, Reason: string(Superseded), Message: fmt.Sprintf("somebody set the limit to %dm", in.Container.Milli)}
}

func applying(s State) string {
	return fmt.Sprintf("from %dm to %dm, for %.1f%% of periods are throttled", s.From, s.To, 100*s.Before)
}

func applied(s State) string { return applying(s) + "; what it does is looked at next" }

// near tells whether the kernel's limit is the spec's.
func near(cores float64, milli int64) bool {
	want := float64(milli) / 1000
	return math.Abs(cores-want) <= 0.02*want
}
