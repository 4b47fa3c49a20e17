// Package straced reads what strace saw of a birth, for tests to hold certificates to.
package straced

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strconv"
	"strings"
)

// Counts are of the same processes as a birth's, until the same moment.
type Counts struct {
	Calls     int
	Before    int            // of them before the entrypoint's execve, that one included; others go on meanwhile
	Named     map[string]int // calls by name, those that failed too
	Begun     map[string]int // of them in Before
	Succeeded map[string]int
	Created   map[string]int // namespaces by kind
	Entered   map[string]int
}

// Execs is how many programs were executed.
func (c *Counts) Execs() int { return c.Succeeded["execve"] + c.Succeeded["execveat"] }

// Mounts is how many mounts were made.
func (c *Counts) Mounts() int { return c.Succeeded["mount"] + c.Succeeded["move_mount"] }

var (
	begin   = regexp.MustCompile(`^(\d+) +[\d.]+ ([a-z_0-9]+)\((.*)$`)
	resumed = regexp.MustCompile(`^(\d+) +[\d.]+ <\.\.\. ([a-z_0-9]+) resumed>(.*)$`)
	kinds   = regexp.MustCompile(`CLONE_NEW([A-Z]+)`)
)

// Read counts the calls of a log of strace -f -ttt until the entrypoint's execve has
// succeeded, that one included; without an entrypoint to the log's end. It is an error
// that the entrypoint is not in the log.
func Read(log io.Reader, entrypoint string) (*Counts, error) {
	c := &Counts{Named: map[string]int{}, Succeeded: map[string]int{}, Created: map[string]int{}, Entered: map[string]int{}}
	open := map[string]string{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		over := false
		if m := begin.FindStringSubmatch(line); m != nil {
			c.Calls++
			c.Named[m[2]]++
			if entering(m[2], m[3], entrypoint) {
				c.Before, c.Begun = c.Calls, maps.Clone(c.Named)
			}
			if strings.HasSuffix(line, "<unfinished ...>") {
				open[m[1]] = m[3]
			} else {
				over = c.ended(m[2], m[3], m[3], entrypoint)
			}
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			over = c.ended(m[2], open[m[1]], m[3], entrypoint)
		}
		if over {
			return c, nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading strace's log: %w", err)
	}
	if entrypoint != "" {
		return nil, fmt.Errorf("execve of the entrypoint %s is not in strace's log", entrypoint)
	}
	return c, nil
}

// ended takes a call's result, and tells whether it was the entrypoint's execve.
func (c *Counts) ended(name, arguments, result, entrypoint string) bool {
	if i := strings.LastIndex(result, "= "); i < 0 || strings.HasPrefix(result[i+2:], "-") || strings.HasPrefix(result[i+2:], "?") {
		return false
	}
	c.Succeeded[name]++
	var into map[string]int
	switch name {
	case "clone", "clone3", "unshare":
		into = c.Created
	case "setns":
		into = c.Entered
	}
	if into != nil {
		for _, m := range kinds.FindAllStringSubmatch(arguments, -1) {
			kind := strings.ToLower(m[1])
			if kind == "ns" {
				kind = "mnt"
			}
			into[kind]++
		}
	}
	return entering(name, arguments, entrypoint)
}

func entering(name, arguments, entrypoint string) bool {
	return name == "execve" && entrypoint != "" && strings.HasPrefix(arguments, strconv.Quote(entrypoint))
}
