package kernels

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Probe is what the tests said of a probe, in a line as
//
//	RESULT probe=throttle attached=true mode=fentry agreement=100.00% reason="" check="sum of durations, cpu.stat"
type Probe struct {
	Name      string
	Attached  bool
	Mode      string
	Agreement string // with the kernel's own figures, in percent; "" where not measured
	Reason    string // why it is not attached
	Check     string // what was compared
}

// Console gathers what a guest's serial console says.
type Console struct {
	Release  string        // uname -r
	UserTime time.Duration // guest's uptime when user space began
	Probes   []Probe
	Failed   []string // names of tests that failed
	Skipped  []string // and those that did not run
	Passed   int
	Crash    string // the kernel's first line about an oops or panic
	Exited   bool   // the test binary ended, with Code
	Code     int
}

var (
	crashLine = regexp.MustCompile(`(?:Oops|int3|general protection fault|kernel BUG at|BUG: (?:unable|kernel|stack guard|scheduling|soft lockup)|Kernel panic).*`)
	testLine  = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	field     = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S*)`)
	timestamp = regexp.MustCompile(`^\[\s*\d+\.\d+\] ?`)
)

// Line takes a line of the console, and says whether a person who watches would
// want to see it.
func (c *Console) Line(line string) bool {
	line = strings.TrimRight(line, "\r\n")
	// The firmware leaves its escape sequences before the first of our lines.
	if _, up, ok := strings.Cut(line, "KG-UP "); ok {
		c.UserTime, c.Release = mark(up)
		return true
	}
	if rest, ok := strings.CutPrefix(line, "KG-EXIT "); ok {
		code, _, _ := strings.Cut(rest, " ")
		if n, err := strconv.Atoi(code); err == nil {
			c.Exited, c.Code = true, n
		}
		return false
	}
	if _, result, ok := strings.Cut(line, "RESULT "); ok {
		if probe, err := parseProbe(result); err == nil {
			c.Probes = append(c.Probes, probe)
			return true
		}
	}
	if m := testLine.FindStringSubmatch(line); m != nil {
		switch m[1] {
		case "FAIL":
			c.Failed = append(c.Failed, m[2])
			return true
		case "SKIP":
			c.Skipped = append(c.Skipped, m[2])
			return true
		}
		c.Passed++
		return false
	}
	if bare := timestamp.ReplaceAllString(line, ""); bare != line && c.Crash == "" && crashLine.MatchString(bare) {
		c.Crash = crashLine.FindString(bare)
		return true
	}
	return false
}

// mark reads "<seconds> <text>".
func mark(s string) (time.Duration, string) {
	uptime, text, _ := strings.Cut(s, " ")
	seconds, err := strconv.ParseFloat(uptime, 64)
	if err != nil {
		return 0, text
	}
	return time.Duration(seconds * float64(time.Second)), text
}

func parseProbe(s string) (Probe, error) {
	var p Probe
	for _, m := range field.FindAllStringSubmatch(s, -1) {
		value := m[2]
		if strings.HasPrefix(value, `"`) {
			var err error
			if value, err = strconv.Unquote(value); err != nil {
				return Probe{}, fmt.Errorf("reading field %s of %q: %w", m[1], s, err)
			}
		}
		switch m[1] {
		case "probe":
			p.Name = value
		case "attached":
			attached, err := strconv.ParseBool(value)
			if err != nil {
				return Probe{}, fmt.Errorf("reading field attached of %q: %w", s, err)
			}
			p.Attached = attached
		case "mode":
			p.Mode = value
		case "agreement":
			p.Agreement = value
		case "reason":
			p.Reason = value
		case "check":
			p.Check = value
		}
	}
	if p.Name == "" {
		return Probe{}, fmt.Errorf("%q names no probe", s)
	}
	return p, nil
}
