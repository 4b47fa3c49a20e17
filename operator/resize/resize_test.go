package resize

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func config() Config {
	return Config{MaxMilli: 4000, MaxFactor: 4, CoolDown: 10 * time.Minute, Verify: 5 * time.Minute}
}

// throttled is a container at 200m of a pod that asks for it; 750m would do.
func throttled() Input {
	return Input{
		Now: noon(), Pod: map[string]string{Annotation: "true"}, Container: &Container{Milli: 200},
		Active: true, Detected: noon().Add(-time.Minute), LimitCores: 0.2, Modelled: true, Sure: true, Target: 750, Ratio: 0.92,
	}
}

func after(phase Phase, ago time.Duration) *State {
	return &State{Phase: phase, At: noon().Add(-ago), From: 200, To: 750, Before: 0.92}
}

func TestStep(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		do     Do
		milli  int64
		reason string
		again  time.Duration
	}{
		"as recommended":                    {func(*Input) {}, Raise, 750, "Applying", 0},
		"nobody asked":                      {func(in *Input) { in.Pod = nil }, Wait, 0, "", 0},
		"another word than true":            {func(in *Input) { in.Pod[Annotation] = "yes" }, Wait, 0, "", 0},
		"the namespace asks":                {func(in *Input) { in.Namespace, in.Pod = in.Pod, nil }, Raise, 750, "Applying", 0},
		"the pod excepts itself":            {func(in *Input) { in.Namespace, in.Pod = in.Pod, map[string]string{Annotation: "false"} }, Wait, 0, "", 0},
		"it is over":                        {func(in *Input) { in.Active = false }, Wait, 0, "", 0},
		"old evidence":                      {func(in *Input) { in.Detected = noon().Add(-time.Hour) }, Wait, 0, "StaleEvidence", 0},
		"a guess":                           {func(in *Input) { in.Modelled = false }, Wait, 0, "NoPrediction", 0},
		"no higher limit recommended":       {func(in *Input) { in.Target = 0 }, Wait, 0, "NoPrediction", 0},
		"low confidence":                    {func(in *Input) { in.Sure = false }, Wait, 0, "LowConfidence", 0},
		"a static pod":                      {func(in *Input) { in.Mirror = true }, Wait, 0, "StaticPod", 0},
		"it would restart":                  {func(in *Input) { in.Container.Restarts = true }, Wait, 0, "NeedsRestart", 0},
		"no limit of its own":               {func(in *Input) { in.Container.Milli = 0 }, Wait, 0, "NoLimit", 0},
		"the container is not there":        {func(in *Input) { in.Container = nil }, Wait, 0, "NoSuchContainer", 0},
		"evidence of another limit":         {func(in *Input) { in.LimitCores = 0.1 }, Wait, 0, "LimitChanging", 0},
		"the limit is not known":            {func(in *Input) { in.LimitCores = 0 }, Wait, 0, "LimitChanging", 0},
		"somebody is resizing":              {func(in *Input) { in.Pending = UnderWay }, Wait, 0, "LimitChanging", 0},
		"further than a step":               {func(in *Input) { in.Target = 3000 }, Raise, 800, "Applying", 0},
		"further than the pod allows":       {func(in *Input) { in.Pod[MaxAnnotation] = "0.5" }, Raise, 500, "Applying", 0},
		"further than the namespace allows": {func(in *Input) { in.Namespace = map[string]string{MaxAnnotation: "0.5"} }, Raise, 500, "Applying", 0},
		"the pod may not exceed the operator's bound": {func(in *Input) {
			in.Pod[MaxAnnotation], in.Target, in.Container.Milli, in.LimitCores = "64", 9000, 3000, 3
		}, Raise, 4000, "Applying", 0},
		"at the bound":    {func(in *Input) { in.Pod[MaxAnnotation] = "0.2" }, Wait, 0, "AtBound", 0},
		"a bad bound":     {func(in *Input) { in.Pod[MaxAnnotation] = "much" }, Wait, 0, "BadAnnotation", 0},
		"a bound of none": {func(in *Input) { in.Pod[MaxAnnotation] = "-1" }, Wait, 0, "BadAnnotation", 0},
		"NaN":             {func(in *Input) { in.Pod[MaxAnnotation] = "NaN" }, Wait, 0, "BadAnnotation", 0},
		"too soon after the last": {func(in *Input) { in.Last = &State{Phase: Kept, At: noon().Add(-4 * time.Minute), From: 100, To: 200} },
			Wait, 0, "CoolingDown", 6 * time.Minute},
		"later": {func(in *Input) { in.Last = &State{Phase: Kept, At: noon().Add(-11 * time.Minute), From: 100, To: 200} }, Raise, 750, "Applying", 0},
		"after a refusal, too": {func(in *Input) {
			in.Last = &State{Phase: Refused, At: noon().Add(-4 * time.Minute), From: 100, To: 200}
		},
			Wait, 0, "", 6 * time.Minute},
		"never after one that did not help": {func(in *Input) { in.Last = &State{Phase: RolledBack, At: noon().Add(-time.Hour), From: 200, To: 300} },
			Wait, 0, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			in := throttled()
			c.change(&in)
			d := Decide(config(), in)
			assert.Equal(t, c.do, d.Do, d.Message)
			assert.Equal(t, c.milli, d.Milli, d.Message)
			assert.Equal(t, c.reason, d.Reason)
			assert.Equal(t, c.again, d.Again)
			assert.Equal(t, d.Reason == "", d.Message == "")
		})
	}
	in := throttled()
	in.Target = 3000
	assert.Equal(t, "from 200m to 800m, for 92.0% of periods are throttled; 3000m is recommended, more than a step or the bounds allow", Decide(config(), in).Message)
}

func TestWhatAStepDid(t *testing.T) {
	seen := func(cores, measured float64) []Change {
		return []Change{{At: noon().Add(-time.Second), Cores: cores, Measured: measured}}
	}
	for name, c := range map[string]struct {
		last   *State
		change func(*Input)
		do     Do
		milli  int64
		phase  Phase
		again  time.Duration
	}{
		"nobody has told yet":                {after(Applied, 2*time.Minute), func(*Input) {}, Wait, 0, "", time.Minute},
		"nearly over":                        {after(Applied, 5*time.Minute-time.Second), func(*Input) {}, Wait, 0, "", time.Second},
		"the ratio fell":                     {after(Applied, 2*time.Minute), func(in *Input) { in.Changes = seen(0.75, 0.01) }, Settle, 0, Kept, 0},
		"it did, and the whisper is over":    {after(Applied, 2*time.Minute), func(in *Input) { in.Changes, in.Active = seen(0.75, 0), false }, Settle, 0, Kept, 0},
		"it did not":                         {after(Applied, 2*time.Minute), func(in *Input) { in.Changes = seen(0.75, 0.92) }, RollBack, 200, "", 0},
		"hardly":                             {after(Applied, 2*time.Minute), func(in *Input) { in.Changes = seen(0.75, 0.90) }, RollBack, 200, "", 0},
		"told of another limit":              {after(Applied, 2*time.Minute), func(in *Input) { in.Changes = seen(0.5, 0.92) }, Wait, 0, "", time.Minute},
		"told before it":                     {after(Applied, 0), func(in *Input) { in.Changes = seen(0.75, 0.92) }, Wait, 0, "", time.Minute},
		"the node can't":                     {after(Applied, time.Minute), func(in *Input) { in.Pending = Infeasible }, RollBack, 200, "", 0},
		"the node has not yet":               {after(Applied, time.Minute), func(in *Input) { in.Pending = UnderWay }, Wait, 0, "", time.Minute},
		"the node did not in time":           {after(Applied, 6*time.Minute), func(in *Input) { in.Pending = UnderWay }, RollBack, 200, "", 0},
		"nobody told in time":                {after(Applied, 6*time.Minute), func(*Input) {}, Settle, 0, Unverified, 0},
		"somebody set another limit":         {after(Applied, time.Minute), func(in *Input) { in.Container.Milli = 900 }, Settle, 0, Superseded, 0},
		"it is taken back even if opted out": {after(Applied, 2*time.Minute), func(in *Input) { in.Changes, in.Pod = seen(0.75, 0.92), nil }, RollBack, 200, "", 0},

		"cut off before the pod had it":     {after(Applying, 0), func(in *Input) { in.Container.Milli = 200 }, Raise, 750, "", 0},
		"cut off, then opted out":           {after(Applying, 0), func(in *Input) { in.Container.Milli, in.Pod = 200, nil }, Settle, 0, Superseded, 0},
		"cut off after the pod had it":      {after(Applying, 0), func(*Input) {}, Settle, 0, Applied, 0},
		"cut off, and another limit set":    {after(Applying, 0), func(in *Input) { in.Container.Milli = 300 }, Settle, 0, Superseded, 0},
		"the way back, cut off":             {after(RollingBack, 0), func(*Input) {}, RollBack, 200, "", 0},
		"the way back, cut off at its end":  {after(RollingBack, 0), func(in *Input) { in.Container.Milli = 200 }, Settle, 0, RolledBack, 0},
		"on the way back another limit set": {after(RollingBack, 0), func(in *Input) { in.Container.Milli = 300 }, Settle, 0, Superseded, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in := throttled()
			in.Container.Milli, in.Last = 750, c.last
			c.change(&in)
			d := Decide(config(), in)
			assert.Equal(t, c.do, d.Do, d.Message)
			assert.Equal(t, c.milli, d.Milli)
			assert.Equal(t, c.phase, d.Phase)
			assert.Equal(t, c.again, d.Again)
		})
	}
}

func TestConfigIsValidated(t *testing.T) {
	assert.NoError(t, config().Validate())
	for want, spoil := range map[string]func(*Config){
		"highest limit": func(c *Config) { c.MaxMilli = 0 },
		"factor":        func(c *Config) { c.MaxFactor = 1 },
		"cool-down":     func(c *Config) { c.CoolDown = 0 },
		"verify":        func(c *Config) { c.Verify = -1 },
	} {
		c := config()
		spoil(&c)
		err := c.Validate()
		if assert.Error(t, err, want) {
			assert.Contains(t, err.Error(), want)
		}
	}
}
