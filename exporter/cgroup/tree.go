package cgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what to watch. The zero value is the host's tree with the defaults.
type Config struct {
	Log    *slog.Logger // default slog.Default()
	Root   string       // the directory that holds the hierarchies; default: as mountinfo has them
	ProcFS string       // default /proc
	SysFS  string       // default /sys

	WalkInterval         time.Duration // of the full walk, a net below inotify; default 60 s, ± 10 %
	FallbackWalkInterval time.Duration // while inotify can't see everything; default 5 s, ± 10 %
	Grace                time.Duration // how long a removed group stays listed; default 60 s
	MaxOpenFiles         int           // kept open for reading; default half of RLIMIT_NOFILE, at most 16384
}

func (c Config) withDefaults() Config {
	c.Log = cmp.Or(c.Log, slog.Default())
	c.ProcFS = cmp.Or(c.ProcFS, "/proc")
	c.SysFS = cmp.Or(c.SysFS, "/sys")
	c.WalkInterval = cmp.Or(c.WalkInterval, time.Minute)
	c.FallbackWalkInterval = cmp.Or(c.FallbackWalkInterval, 5*time.Second)
	c.Grace = cmp.Or(c.Grace, time.Minute)
	if c.MaxOpenFiles == 0 {
		c.MaxOpenFiles = 512
		var l unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
			c.MaxOpenFiles = int(min(l.Cur/2, 16384)) //nolint:gosec // bounded
		}
	}
	return c
}

// notifier tells of changes in watched directories.
type notifier interface {
	// add watches dir, for changes to its files too if modify; again: changes that.
	add(dir string, modify bool) (wd int, err error)
	remove(wd int)
	wait() ([]event, error) // blocks until there is something or it is closed
	close() error
}

type event struct {
	wd   int
	name string
	what change
}

type change int

const (
	created change = iota
	deleted
	modified
	unwatched // the watch is no more
	overflow  // events were lost
)

// Tree is the cgroups of a machine, kept up to date by Run. Its methods other than
// Run are safe for concurrent use. The Reader's are its own.
type Tree struct {
	*Reader
	log      *slog.Logger
	cfg      Config
	mounts   Mounts
	notifier notifier // nil where there is none

	// Only Open and then Run touch these.
	root    *node
	watches map[int]*node
	dead    []Group      // tombstones
	ghosts  map[ID]ghost // ids of removed cgroups
	dirty   bool         // the published account is behind
	limited bool         // some directory has no watch
	deaf    bool         // the notifier failed, or there is none
	stats   Stats        // published after each change

	recheck chan string // paths that a read found gone
	listing listing
}

type node struct {
	parent   *node
	children map[string]*node
	name     string
	path     string
	id       ID
	wd       int // 0: none
	identity Identity
	owner    *node  // the cgroup it counts as part of: itself, an ancestor, or nil
	group    *Group // once it is of interest, until it is removed
}

type ghost struct {
	owner ID
	gone  time.Time
}

// Open finds the hierarchies and every group in them. Run then keeps up with the
// changes since; Close releases the files. The error wraps ErrNoHierarchy where no
// usable hierarchy is visible.
func Open(cfg Config) (*Tree, error) {
	n, err := newNotifier()
	cfg = cfg.withDefaults()
	if err != nil {
		cfg.Log.Warn("cgroups are not watched: new ones are seen at the next walk", "interval", cfg.FallbackWalkInterval, "err", err)
		n = nil
	}
	t, err := open(cfg, n)
	if err != nil && n != nil {
		_ = n.close()
	}
	return t, err
}

func open(cfg Config, n notifier) (*Tree, error) {
	m, err := FindMounts(cfg.Root, cfg.ProcFS)
	if err != nil {
		return nil, err
	}
	log := cfg.Log.With("component", "cgroup")
	log.Info("cgroup hierarchies found", "layout", m.Layout(), "cpu", m.CPU, "cpuacct", m.CPUAcct, "cpuset", m.CPUSet)
	if m.Partial != "" {
		log.Warn("not the host's whole cgroup tree", "reason", m.Partial)
	}
	t := &Tree{
		Reader: NewReader(m, cfg.SysFS, cfg.MaxOpenFiles),
		log:    log, cfg: cfg, mounts: m, notifier: n,
		watches: map[int]*node{}, ghosts: map[ID]ghost{},
		recheck: make(chan string, 64), listing: listing{owners: map[ID]ID{}},
		deaf: n == nil,
	}
	t.onGone = func(path string) {
		select {
		case t.recheck <- path:
		default: // inotify or the walk will tell
		}
	}
	st, err := stat(m.CPU)
	if err != nil {
		return nil, fmt.Errorf("cgroup root: %w", err)
	}
	t.root = &node{path: "/", id: st, children: map[string]*node{}}
	t.walk()
	t.publish()
	return t, nil
}

// Mounts says where the hierarchies are.
func (t *Tree) Mounts() Mounts { return t.mounts }

// Groups are the cgroups of interest, by path, tombstones included. An ID occurs
// once. The slice is shared: not to be changed.
func (t *Tree) Groups() []Group { return t.listing.all() }

// Owner resolves the id of any cgroup, nested ones included, to the Group that it
// counts as part of; for a removed one during the grace period, too. False when it
// belongs to none.
func (t *Tree) Owner(id ID) (ID, bool) { return t.listing.owner(id) }

// Stats is the tree's account of itself at the last change.
func (t *Tree) Stats() Stats {
	s := t.listing.account()
	s.OpenFiles = t.OpenFiles()
	return s
}

// Close releases files and watches; Run returns.
func (t *Tree) Close() error {
	err := t.Reader.Close()
	if t.notifier != nil {
		err = errors.Join(err, t.notifier.close())
	}
	return err
}

// Run keeps the tree up to date until ctx ends or the tree is closed, and then
// returns nil. It is to be called once.
func (t *Tree) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var events chan []event
	if t.notifier != nil {
		events = make(chan []event)
		go t.listen(ctx, events)
	}
	next := time.NewTimer(t.walkInterval())
	defer next.Stop()
	sweep := time.NewTicker(max(min(t.cfg.Grace/4, time.Second), time.Millisecond))
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-events:
			if !ok {
				if t.isClosed() {
					return nil
				}
				events, t.deaf = nil, true // listen has said why
				next.Reset(0)
				continue
			}
			if lost := t.apply(batch); lost {
				t.stats.Overflows++
				t.dirty = true
				t.log.Warn("inotify queue overflowed: walking the tree instead", "overflows", t.stats.Overflows)
				next.Reset(0)
			}
		case path := <-t.recheck:
			t.check(path)
		case <-next.C:
			t.walk()
			next.Reset(t.walkInterval())
		case <-sweep.C:
			t.sweep(time.Now())
		}
		if t.dirty {
			t.publish()
		}
	}
}

// listen passes events on until the notifier fails, then closes the channel.
func (t *Tree) listen(ctx context.Context, events chan<- []event) {
	defer close(events)
	for {
		batch, err := t.notifier.wait()
		if err != nil {
			if !errors.Is(err, fs.ErrClosed) {
				t.log.Error("cgroups are no longer watched: walking instead", "interval", t.cfg.FallbackWalkInterval, "err", err)
			}
			return
		}
		select {
		case events <- batch:
		case <-ctx.Done():
			return
		}
	}
}

// walkInterval is jittered so that the exporters of a fleet don't walk in step.
func (t *Tree) walkInterval() time.Duration {
	d := t.cfg.WalkInterval
	if t.limited {
		d = min(d, t.cfg.FallbackWalkInterval)
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // no secret
}

// apply brings events into the tree and tells whether some were lost. Events are
// hints: the directory itself says what is there now.
func (t *Tree) apply(batch []event) (lost bool) {
	for _, e := range batch {
		if e.what == overflow {
			lost = true
			continue
		}
		n := t.watches[e.wd]
		if n == nil {
			continue // removed meanwhile
		}
		switch e.what {
		case created:
			t.refresh(n, e.name)
		case deleted:
			// Whatever has the name now is another directory, even with the same inode.
			if c := n.children[e.name]; c != nil {
				t.remove(c)
			}
			t.refresh(n, e.name)
		case modified:
			t.changed(n, e.name)
		case unwatched:
			delete(t.watches, e.wd)
			n.wd = 0
		}
	}
	return lost
}

// refresh makes n's child of that name what the file system says.
func (t *Tree) refresh(n *node, name string) {
	id, err := stat(t.dir(n) + "/" + name)
	c := n.children[name]
	if c != nil && (err != nil || c.id != id) {
		t.remove(c)
		c = nil
	}
	if err == nil && c == nil {
		t.add(n, name, id)
	}
}

// check looks again at a path that a read found gone.
func (t *Tree) check(path string) {
	n := t.root
	for rest := path; len(rest) > 1; {
		name := rest[1:]
		if i := strings.IndexByte(name, '/'); i >= 0 {
			name = name[:i]
		}
		rest = rest[1+len(name):]
		t.refresh(n, name)
		if n = n.children[name]; n == nil {
			return
		}
	}
}

// add takes a directory and all below it into the tree.
func (t *Tree) add(parent *node, name string, id ID) {
	path := parent.path + "/" + name
	if parent == t.root {
		path = "/" + name
	}
	n := &node{parent: parent, children: map[string]*node{}, name: name, path: path, id: id}
	identity, owner := Identify(path)
	n.identity = identity
	for o := n; o != nil && owner != ""; o = o.parent {
		if o.path == owner {
			n.owner = o
			break
		}
	}
	parent.children[name] = n
	t.dirty = true
	t.stats.Directories++
	t.exorcise(id)
	t.dropDead(func(g Group) bool { return g.ID == id })
	if n.owner != nil && n.owner.group != nil {
		t.listing.own(id, n.owner.id)
	}
	// Watched before it is looked into, so that nothing slips in between.
	t.visit(n)
}

// visit walks n's directory: watches it, sees whether it is of interest, compares its
// children with the known ones and visits those.
func (t *Tree) visit(n *node) {
	t.watch(n)
	t.judge(n)
	names, err := subdirectories(t.dir(n))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			names = nil
		} else {
			t.log.Warn("cgroup directory can't be read", "path", n.path, "err", err)
			return
		}
	}
	for name, c := range n.children {
		if !slices.Contains(names, name) {
			t.remove(c)
		}
	}
	for _, name := range names {
		before := n.children[name]
		t.refresh(n, name)
		if c := n.children[name]; c != nil && c == before {
			t.visit(c)
		}
	}
}

// walk compares the whole tree with the file system.
func (t *Tree) walk() {
	start := time.Now()
	was := t.limited
	t.limited = t.deaf
	t.visit(t.root)
	if was && !t.limited {
		t.log.Info("every cgroup is watched again")
	}
	t.stats.Walks++
	t.stats.LastWalk = time.Since(start)
	t.dirty = true
}

// watch asks for n's events; failing that the fast walk takes over.
func (t *Tree) watch(n *node) {
	if t.deaf || n.wd != 0 {
		return
	}
	wd, err := t.notifier.add(t.dir(n), n.undecided())
	switch {
	case err == nil:
		n.wd = wd
		t.watches[wd] = n
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
	default:
		if !t.limited && !t.stats.WatchLimited {
			t.log.Warn("not every cgroup can be watched: walking the tree instead; raise fs.inotify.max_user_watches",
				"watches", len(t.watches), "interval", t.cfg.FallbackWalkInterval, "err", err)
		}
		t.limited = true
	}
}

// undecided: its files may yet make its owner a group.
func (n *node) undecided() bool { return n.owner != nil && n.owner.group == nil }

// judge lists n's owner if n makes it one of interest. Containers and pods always
// are; a service or plain cgroup with its first process or a quota, and from then on.
func (t *Tree) judge(n *node) {
	o := n.owner
	if !n.undecided() {
		return
	}
	switch {
	case o.identity.Kind == KindContainer, o.identity.Kind == KindPod:
		if n != o {
			return
		}
	case hasProcesses(t.dir(n)):
	case n == o && t.hasQuota(n):
	default:
		return
	}
	o.group = &Group{ID: o.id, Path: o.path, Identity: o.identity, Seen: time.Now()}
	t.dirty = true
	t.stats.Groups++
	t.listing.put(*o.group)
	t.own(o, o)
	t.settle(o)
}

// own notes whose part n is, and all below it, now that the owner is a group.
func (t *Tree) own(n, owner *node) {
	if n.owner == owner {
		t.listing.own(n.id, owner.id)
	}
	for _, c := range n.children {
		t.own(c, owner)
	}
}

// settle stops watching the files of a node that is decided.
func (t *Tree) settle(n *node) {
	if n.wd != 0 {
		_, _ = t.notifier.add(t.dir(n), false) // if it is gone, so is the watch
	}
}

// changed looks at a directory one of whose files was written to.
func (t *Tree) changed(n *node, file string) {
	switch file {
	case "cgroup.procs", "tasks", "cgroup.threads", "cgroup.events", "cpu.max", "cpu.cfs_quota_us":
	default:
		return
	}
	if n.undecided() {
		t.judge(n)
	} else {
		t.settle(n)
	}
}

// remove takes n and all below it out; groups leave a tombstone, ids a ghost.
func (t *Tree) remove(n *node) {
	for _, c := range n.children {
		t.remove(c)
	}
	delete(n.parent.children, n.name)
	if n.wd != 0 {
		delete(t.watches, n.wd)
		t.notifier.remove(n.wd)
	}
	t.forget(n.path)
	now := time.Now()
	if n.group != nil {
		t.listing.bury(*n.group, now)
		n.group.Gone = now
		t.dead = append(t.dead, *n.group)
		t.stats.Groups--
	}
	if n.owner != nil && n.owner.group != nil {
		t.ghosts[n.id] = ghost{owner: n.owner.id, gone: now}
	}
	t.stats.Directories--
	t.dirty = true
}

// sweep drops tombstones and ghosts whose grace is over.
func (t *Tree) sweep(now time.Time) {
	before := len(t.dead) + len(t.ghosts)
	over := func(gone time.Time) bool { return now.Sub(gone) >= t.cfg.Grace }
	t.dropDead(func(g Group) bool { return over(g.Gone) })
	for id, g := range t.ghosts {
		if over(g.gone) {
			t.exorcise(id)
		}
	}
	if len(t.dead)+len(t.ghosts) != before {
		t.dirty = true
	}
}

// dropDead drops the tombstones that are meant.
func (t *Tree) dropDead(meant func(Group) bool) {
	t.dead = slices.DeleteFunc(t.dead, func(g Group) bool {
		if !meant(g) {
			return false
		}
		t.listing.drop(g)
		return true
	})
}

// exorcise drops the ghost of an id, if there is one.
func (t *Tree) exorcise(id ID) {
	if _, ok := t.ghosts[id]; ok {
		delete(t.ghosts, id)
		t.listing.disown(id)
	}
}

// publish makes the present account what Stats returns.
func (t *Tree) publish() {
	t.stats.Tombstones = len(t.dead)
	t.stats.Watches = len(t.watches)
	t.stats.WatchLimited = t.limited
	t.listing.settle(t.stats)
	t.dirty = false
}

func (t *Tree) dir(n *node) string { return filepath.Join(t.mounts.CPU, n.path) }

func (t *Tree) hasQuota(n *node) bool {
	l, err := t.Limit(Group{ID: n.id, Path: n.path})
	if err != nil {
		if !errors.Is(err, ErrGone) {
			t.log.Warn("cgroup's limit can't be read", "path", n.path, "err", err)
		}
		return false
	}
	_, limited := l.Cores()
	return limited
}

// hasProcesses tells whether a process is in the cgroup itself.
func hasProcesses(dir string) bool {
	some, err := hasContent(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup
		some, _ = hasContent(filepath.Join(dir, "cgroup.threads"))
	}
	return some
}

func hasContent(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var b [1]byte
	n, err := f.Read(b[:])
	return n > 0, err
}

// stat gives the directory's ID; a file is fs.ErrNotExist.
func stat(dir string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, &fs.PathError{Op: "lstat", Path: dir, Err: unix.ENOENT}
	}
	return ID(st.Ino), nil
}

// subdirectories lists them. A directory with two links has none (kernfs counts
// them), which spares the listing of the control files of most cgroups.
func subdirectories(dir string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
