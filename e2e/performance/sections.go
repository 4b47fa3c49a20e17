package performance

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The sections of docs/performance.md that commands other than make bench write.
const (
	Beside   = "The exporter beside cAdvisor and node_exporter"
	Latency  = "From the crossing to the object"
	Operator = "The operator and its API server"
)

// Sections are those, in the document's order.
func Sections() []string { return []string{Beside, Latency, Operator} }

// Replace writes a section of a document anew, at its end when it is not there yet.
func Replace(file, heading, body string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	doc := string(content)
	section := "## " + heading + "\n\n" + strings.TrimSpace(body) + "\n"
	if from, to, ok := find(doc, heading); ok {
		if to < len(doc) {
			section += "\n"
		}
		doc = doc[:from] + section + doc[to:]
	} else {
		doc = strings.TrimRight(doc, "\n") + "\n\n" + section
	}
	if err := os.WriteFile(file, []byte(doc), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}

// Section is a section with its heading; empty when it is not there.
func Section(doc, heading string) string {
	from, to, _ := find(doc, heading)
	return doc[from:to]
}

func find(doc, heading string) (from, to int, ok bool) {
	from = strings.Index("\n"+doc, "\n## "+heading+"\n")
	if from < 0 {
		return 0, 0, false
	}
	to = len(doc)
	if next := strings.Index(doc[from+1:], "\n## "); next >= 0 {
		to = from + 1 + next + 1
	}
	return from, to, true
}

// Machine is the processor, its number, the kernel and the date.
func Machine() string {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release := "unknown"
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		release, _, _ = strings.Cut(unix.ByteSliceToString(uts.Release[:]), "-") // who built it is of no matter
	}
	return fmt.Sprintf("%d CPUs (%s), Linux %s, %s", runtime.NumCPU(), model, release, time.Now().UTC().Format(time.DateOnly))
}
