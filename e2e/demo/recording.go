package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// replayName is the recorded cgroup's name in a replay, so that no metric, alert or
// whisper of it can be taken for this machine's.
const replayName = "replay-of-" + groupName

// frameInterval is short against the exporter's second between samples.
const frameInterval = 200 * time.Millisecond

// recording is a run of the workload as the cgroup's files told it: a line of JSON
// with the first state, then a line for each change.
type recording struct {
	Platform string    `json:"platform"`
	Made     time.Time `json:"made"`
	// Files are the contents at the start, by path below the cgroup mount.
	Files map[string]string `json:"files"`

	frames []frame
}

// frame is what changed by a time.
type frame struct {
	At    time.Duration     `json:"at"` // since the start, in ns
	Files map[string]string `json:"files,omitempty"`
	// Syscalls is the workload's getppid calls as the exporter had counted them; 0
	// where it could not.
	Syscalls float64 `json:"syscalls,omitempty"`
}

//go:embed testdata/recording.jsonl
var shippedRecording []byte

func shipped() (*recording, error) {
	r, err := readRecording(bytes.NewReader(shippedRecording))
	if err != nil {
		return nil, fmt.Errorf("read the recording that ships with the demo: %w", err)
	}
	return r, nil
}

func readRecording(in io.Reader) (*recording, error) {
	dec := json.NewDecoder(in)
	r := &recording{}
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("its head: %w", err)
	}
	for n := 2; ; n++ {
		var f frame
		if err := dec.Decode(&f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(r.frames) > 0 && f.At < r.frames[len(r.frames)-1].At {
			return nil, fmt.Errorf("line %d: is earlier than the one before it", n)
		}
		r.frames = append(r.frames, f)
	}
	if len(r.Files) == 0 || len(r.frames) == 0 {
		return nil, errors.New("it is empty")
	}
	for name := range r.Files {
		if !filepath.IsLocal(name) {
			return nil, fmt.Errorf("the path %q leads out of the tree", name)
		}
	}
	for n, f := range r.frames {
		for name := range f.Files {
			if _, ok := r.Files[name]; !ok {
				return nil, fmt.Errorf("line %d: %s was not there at the start", n+2, name)
			}
		}
	}
	return r, nil
}

// length is when the last frame is.
func (r *recording) length() time.Duration { return r.frames[len(r.frames)-1].At }

// syscallsAt is the count that was recorded last by then.
func (r *recording) syscallsAt(at time.Duration) (n float64) {
	for _, f := range r.frames {
		if f.At > at {
			break
		}
		n = max(n, f.Syscalls)
	}
	return n
}

// recorder records a workload until it is saved.
type recorder struct {
	w     *workload
	began time.Time
	quit  chan struct{}
	done  chan struct{}

	mu       sync.Mutex
	syscalls float64
	tape     recording
	last     map[string]string
}

// The files that the exporter reads of a cgroup, and of the root of its hierarchy.
var (
	groupFiles = []string{
		"cgroup.procs", "cpu.stat", "cpu.stat.local", "cpu.max", "cpu.max.burst", "cpuset.cpus.effective",
		"cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.shares", "cpuacct.usage", "cpuset.effective_cpus",
	}
	rootFiles = []string{"cgroup.procs", "cgroup.controllers", "cpuset.cpus.effective", "cpuset.effective_cpus"}
)

func (w *workload) record() *recorder {
	r := &recorder{w: w, began: time.Now(), quit: make(chan struct{}), done: make(chan struct{})}
	r.tape = recording{Platform: platform(w.version), Made: r.began.UTC().Truncate(time.Second), Files: r.read()}
	r.last = r.tape.Files
	go func() {
		defer close(r.done)
		ticker := time.NewTicker(frameInterval)
		defer ticker.Stop()
		for {
			select {
			case <-r.quit:
				return
			case <-ticker.C:
				r.frame()
			}
		}
	}()
	return r
}

// read returns the files by their path below the cgroup mount, without processes:
// those in the root are this machine's.
func (r *recorder) read() map[string]string {
	files := map[string]string{}
	take := func(dir string, names []string) {
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue // of the other cgroup version, or of another kernel
			}
			if name == "cgroup.procs" && filepath.Base(dir) != r.w.name {
				b = nil
			}
			rel := strings.TrimPrefix(filepath.Join(dir, name), cgroupRoot+"/")
			files[strings.ReplaceAll(rel, r.w.name, groupName)] = string(b)
		}
	}
	hierarchies := []string{""}
	if r.w.version == 1 {
		hierarchies = []string{"cpu", "cpuacct", "cpuset"}
	}
	for _, h := range hierarchies {
		take(filepath.Join(cgroupRoot, h), rootFiles)
		take(filepath.Join(cgroupRoot, h, r.w.name), groupFiles)
	}
	return files
}

func (r *recorder) frame() {
	now := r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	f := frame{At: time.Since(r.began), Files: map[string]string{}, Syscalls: r.syscalls}
	for name, content := range now {
		if r.last[name] != content {
			f.Files[name] = content
		}
	}
	if len(f.Files) > 0 {
		r.tape.frames = append(r.tape.frames, f)
	}
	r.last = now
}

// count takes the syscalls that the exporter has counted.
func (r *recorder) count(n float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.syscalls = n
}

// save ends the recording and writes it.
func (r *recorder) save(path string) error {
	close(r.quit)
	<-r.done
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	enc := json.NewEncoder(w)
	err := enc.Encode(r.tape)
	for _, f := range r.tape.frames {
		err = errors.Join(err, enc.Encode(f))
	}
	if err := errors.Join(err, w.Flush()); err != nil {
		return fmt.Errorf("encode the recording: %w", err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("save the recording: %w", err)
	}
	return nil
}

// player keeps a copy of the recorded files as they were at the time since begin.
type player struct {
	tape *recording
	root string // of the copy
	quit chan struct{}
	done chan struct{}

	mu   sync.Mutex
	fail error
}

var _ source = (*player)(nil)

func newPlayer(tape *recording, dir string) (*player, error) {
	p := &player{tape: tape, root: filepath.Join(dir, "cgroup"), quit: make(chan struct{}), done: make(chan struct{})}
	for name, content := range tape.Files {
		file := p.path(name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, fmt.Errorf("copy the recorded cgroup: %w", err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return nil, fmt.Errorf("copy the recorded cgroup: %w", err)
		}
	}
	return p, nil
}

func (p *player) path(name string) string {
	return filepath.Join(p.root, strings.ReplaceAll(name, groupName, replayName))
}

func (p *player) container() string { return "/" + replayName }

// exporterArgs turn off what looks at this machine's kernel and not at the files.
func (p *player) exporterArgs() []string {
	return []string{"--cgroup.root=" + p.root, "--no-collector.throttle", "--no-collector.runqueue", "--no-collector.syscalls"}
}

func (p *player) begin() error {
	began := time.Now()
	go func() {
		defer close(p.done)
		for _, f := range p.tape.frames {
			select {
			case <-p.quit:
				return
			case <-time.After(time.Until(began.Add(f.At))):
			}
			for name, content := range f.Files {
				if err := overwrite(p.path(name), content); err != nil {
					p.mu.Lock()
					p.fail = fmt.Errorf("replay: %w", err)
					p.mu.Unlock()
					return
				}
			}
		}
	}()
	return nil
}

// overwrite changes a file in place and in one piece: the exporter keeps it open, as
// it does the kernel's. Counters only grow, so a reader never finds an older end.
func overwrite(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(content); err == nil {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Close())
}

func (p *player) stat(field string) (uint64, error) {
	for name := range p.tape.Files {
		if filepath.Base(name) == "cpu.stat" {
			b, err := os.ReadFile(p.path(name))
			if err != nil {
				return 0, err
			}
			return statField(b, field)
		}
	}
	return 0, errors.New("the recording has no cpu.stat")
}

// stop must follow begin, or nothing is to be stopped. The files go with the
// working directory.
func (p *player) stop() error {
	close(p.quit)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fail
}
