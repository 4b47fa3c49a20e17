package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	soon = 10 * time.Second // bounds a wait; nothing takes that long
	tick = time.Millisecond
)

// run runs the tree until the test ends.
func run(t testing.TB, tree *Tree) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tree.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.NoError(t, tree.Close())
	})
}

// plainTree is a v2 root on an ordinary file system.
func plainTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "cgroup.controllers"), "cpuset cpu\n")
	return root
}

func find(tree *Tree, path string) (alive, gone *Group) {
	for _, g := range tree.Groups() {
		if g.Path != path {
			continue
		}
		if g.Gone.IsZero() {
			alive = &g
		} else {
			gone = &g
		}
	}
	return alive, gone
}

func alive(tree *Tree, path string) func() bool {
	return func() bool { a, _ := find(tree, path); return a != nil }
}

func dead(tree *Tree, path string) func() bool {
	return func() bool { a, g := find(tree, path); return a == nil && g != nil }
}

// never keeps walks out of a test: what it sees, inotify told.
const never = time.Hour

func TestTreeFollowsInotify(t *testing.T) {
	root := plainTree(t)
	tree, err := Open(Config{Root: root, Log: quiet(), WalkInterval: never, Grace: 300 * time.Millisecond})
	require.NoError(t, err)
	run(t, tree)
	assert.Empty(t, tree.Groups())

	// A whole branch at once: the container, and a cgroup nested in it.
	path := "/docker/" + cid("app")
	require.NoError(t, os.MkdirAll(filepath.Join(root, path, "init"), 0o755))
	require.Eventually(t, alive(tree, path), soon, tick)
	g := group(t, tree, path)
	nested, err := stat(filepath.Join(root, path, "init"))
	require.NoError(t, err)
	owned := func() bool { owner, ok := tree.Owner(nested); return ok && owner == g.ID }
	require.Eventually(t, owned, soon, tick)

	require.NoError(t, os.Remove(filepath.Join(root, path, "init")))
	require.NoError(t, os.Remove(filepath.Join(root, path)))
	require.Eventually(t, dead(tree, path), soon, tick)
	_, tombstone := find(tree, path)
	assert.Equal(t, g.Identity, tombstone.Identity)
	assert.Equal(t, g.ID, tombstone.ID)
	assert.Equal(t, g.Seen, tombstone.Seen)
	assert.False(t, tombstone.Gone.Before(tombstone.Seen))
	assert.True(t, owned(), "the ids of the dead resolve during the grace period")
	assert.Equal(t, 1, tree.Stats().Tombstones)

	require.Eventually(t, func() bool { return len(tree.Groups()) == 0 }, soon, tick)
	assert.GreaterOrEqual(t, time.Since(tombstone.Gone), 300*time.Millisecond)
	_, ok := tree.Owner(nested)
	assert.False(t, ok)
	assert.EqualValues(t, 1, tree.Stats().Walks)
}

func TestTreeListsWithTheFirstProcessOrQuota(t *testing.T) {
	tests := []struct{ name, listed, dir, file, content string }{
		{"process in a service", "/system.slice/web.service", "/system.slice/web.service", "cgroup.procs", "42\n"},
		{"process below a service", "/system.slice/web.service", "/system.slice/web.service/worker", "cgroup.procs", "42\n"},
		{"process in a plain cgroup", "/batch", "/batch", "cgroup.procs", "42\n"},
		{"quota of a plain cgroup", "/batch", "/batch", "cpu.max", "20000 100000\n"},
		{"quota of a service", "/web.service", "/web.service", "cpu.max", "20000 100000\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := plainTree(t)
			dir := filepath.Join(root, test.dir)
			require.NoError(t, os.MkdirAll(dir, 0o755))
			write(t, filepath.Join(dir, "cgroup.procs"), "")
			write(t, filepath.Join(dir, "cpu.max"), "max 100000\n")
			tree, err := Open(Config{Root: root, Log: quiet(), WalkInterval: never})
			require.NoError(t, err)
			run(t, tree)
			assert.Empty(t, tree.Groups())

			write(t, filepath.Join(dir, test.file), test.content)
			require.Eventually(t, alive(tree, test.listed), soon, tick)
			assert.Len(t, tree.Groups(), 1)
			first := group(t, tree, test.listed)

			// It stays listed until it is removed: its series must not flap.
			write(t, filepath.Join(dir, test.file), "")
			tree2 := tree.Groups()
			assert.Equal(t, first, tree2[0])
		})
	}
}

func TestTreeWalksWithoutInotify(t *testing.T) {
	root := plainTree(t)
	tree, err := open(Config{Root: root, Log: quiet(), WalkInterval: never, FallbackWalkInterval: 20 * time.Millisecond}.withDefaults(), nil)
	require.NoError(t, err)
	run(t, tree)
	path := "/docker/" + cid("app")
	require.NoError(t, os.MkdirAll(filepath.Join(root, path), 0o755))
	require.Eventually(t, alive(tree, path), soon, tick)
	require.NoError(t, os.RemoveAll(filepath.Join(root, path)))
	require.Eventually(t, dead(tree, path), soon, tick)
	assert.True(t, tree.Stats().WatchLimited)
	assert.Zero(t, tree.Stats().Watches)
}

// scarce lends so many watches of the real notifier, then none, as the kernel does at
// fs.inotify.max_user_watches.
type scarce struct {
	notifier
	mu   sync.Mutex
	left int
	held map[int]bool
}

func (s *scarce) add(dir string, modify bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return 0, fmt.Errorf("inotify_add_watch: %w", unix.ENOSPC)
	}
	wd, err := s.notifier.add(dir, modify)
	if err == nil && !s.held[wd] {
		s.held[wd] = true
		s.left--
	}
	return wd, err
}

func (s *scarce) grant(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += n
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestTreeSurvivesTheWatchLimit(t *testing.T) {
	root := plainTree(t)
	for i := range 10 {
		require.NoError(t, os.MkdirAll(filepath.Join(root, "docker", cid(fmt.Sprint(i))), 0o755))
	}
	n, err := newNotifier()
	require.NoError(t, err)
	few := &scarce{notifier: n, left: 4, held: map[int]bool{}}
	var log lockedBuffer
	tree, err := open(Config{
		Root: root, Log: slog.New(slog.NewTextHandler(&log, nil)), WalkInterval: never, FallbackWalkInterval: 20 * time.Millisecond,
	}.withDefaults(), few)
	require.NoError(t, err)
	run(t, tree)
	assert.Len(t, tree.Groups(), 10, "all are found, watched or not")
	assert.Equal(t, 4, tree.Stats().Watches)
	assert.True(t, tree.Stats().WatchLimited)

	// Below a directory that has no watch, the fast walk finds it.
	for i := range 10 {
		require.NoError(t, os.Mkdir(filepath.Join(root, "docker", cid(fmt.Sprint(i)), "nested"), 0o755))
	}
	require.Eventually(t, func() bool { return tree.Stats().Directories == 21 }, soon, tick)
	require.Eventually(t, func() bool { return tree.Stats().Walks > 3 }, soon, tick)
	assert.Equal(t, 1, log.count("max_user_watches"), "one log line, however many walks")

	few.grant(100)
	require.Eventually(t, func() bool { return !tree.Stats().WatchLimited }, soon, tick)
	assert.Equal(t, 22, tree.Stats().Watches)
	assert.Equal(t, 1, log.count("every cgroup is watched again"))
}

// A real overflow of the kernel's queue: nobody reads while more happens than it holds.
func TestTreeWalksAfterOverflow(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	require.NoError(t, err)
	var limit int
	_, err = fmt.Sscan(string(b), &limit)
	require.NoError(t, err)
	require.LessOrEqual(t, limit, 1<<20, "a queue of that length takes too long to fill")

	root := plainTree(t)
	tree, err := Open(Config{Root: root, Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	churn := filepath.Join(root, "churn")
	for range limit/2 + 10 {
		require.NoError(t, os.Mkdir(churn, 0o755))
		require.NoError(t, os.Remove(churn))
	}
	path := "/docker/" + cid("late") // its event is lost
	require.NoError(t, os.MkdirAll(filepath.Join(root, path), 0o755))
	run(t, tree)
	require.Eventually(t, alive(tree, path), 60*time.Second, tick)
	assert.EqualValues(t, 1, tree.Stats().Overflows)
	assert.EqualValues(t, 2, tree.Stats().Walks)
}

// broken is a notifier that fails while it is in use.
type broken struct{ notifier }

func (broken) wait() ([]event, error) { return nil, errors.New("inotify: no more") }

func TestTreeWalksWhenInotifyFails(t *testing.T) {
	root := plainTree(t)
	n, err := newNotifier()
	require.NoError(t, err)
	var log lockedBuffer
	tree, err := open(Config{
		Root: root, Log: slog.New(slog.NewTextHandler(&log, nil)), WalkInterval: never, FallbackWalkInterval: 20 * time.Millisecond,
	}.withDefaults(), broken{n})
	require.NoError(t, err)
	run(t, tree)
	path := "/docker/" + cid("app")
	require.NoError(t, os.MkdirAll(filepath.Join(root, path), 0o755))
	require.Eventually(t, alive(tree, path), soon, tick)
	assert.Equal(t, 1, log.count("no longer watched"))
}

func TestRunEndsWhenTheTreeIsClosed(t *testing.T) {
	tree, err := Open(Config{Root: plainTree(t), Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- tree.Run(context.Background()) }()
	time.Sleep(10 * time.Millisecond)
	require.NoError(t, tree.Close())
	select {
	case err := <-done:
		assert.NoError(t, err)
	case <-time.After(soon):
		t.Fatal("Run goes on")
	}
}

func TestReplacedDirectories(t *testing.T) {
	path := "/docker/" + cid("app")
	replace := func(t *testing.T) (*Tree, Group, string) {
		tree, err := Open(Config{Root: plainTree(t), Log: quiet(), WalkInterval: never})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, tree.Close()) })
		dir := filepath.Join(tree.mounts.CPU, path)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		tree.walk()
		tree.publish()
		return tree, group(t, tree, path), dir
	}
	t.Run("another inode", func(t *testing.T) {
		tree, old, dir := replace(t)
		require.NoError(t, os.Rename(dir, filepath.Join(t.TempDir(), "old")))
		require.NoError(t, os.Mkdir(dir, 0o755))
		tree.walk()
		tree.publish()
		now, tombstone := find(tree, path)
		require.NotNil(t, now)
		require.NotNil(t, tombstone)
		assert.NotEqual(t, old.ID, now.ID)
		assert.Equal(t, old.ID, tombstone.ID)
		assert.True(t, now.Seen.After(old.Seen))
	})
	t.Run("the same inode", func(t *testing.T) {
		tree, old, _ := replace(t)
		// inotify tells that the directory went; one with its number is there.
		docker := tree.root.children["docker"]
		tree.apply([]event{{wd: docker.wd, name: cid("app"), what: deleted}})
		tree.publish()
		now, tombstone := find(tree, path)
		require.NotNil(t, now)
		assert.Equal(t, old.ID, now.ID)
		assert.True(t, now.Seen.After(old.Seen), "a new Group")
		assert.Nil(t, tombstone, "an ID is listed once")
		owner, ok := tree.Owner(now.ID)
		assert.True(t, ok)
		assert.Equal(t, now.ID, owner)
	})
	t.Run("found by a read", func(t *testing.T) {
		tree, old, dir := replace(t)
		require.NoError(t, os.Remove(dir))
		_, err := tree.CPU(old)
		require.ErrorIs(t, err, ErrGone)
		tree.check(<-tree.recheck)
		tree.publish()
		now, tombstone := find(tree, path)
		assert.Nil(t, now)
		assert.NotNil(t, tombstone)
	})
}

// churn makes and removes containers below dir, whose cgroup path is base, with
// readers at work, and then compares the tree with what is there. populate fills a
// new directory where the kernel does not.
func churn(t *testing.T, tree *Tree, dir, base string, populate func(dir string)) {
	var makers, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, g := range tree.Groups() {
					tree.Owner(g.ID)
					if !strings.HasPrefix(g.Path, base) {
						continue
					}
					// errAbsent: the fixture's directory is not yet filled.
					if _, err := tree.CPU(g); err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, errAbsent) {
						t.Error(err)
					}
					if _, err := tree.EffectiveLimit(g); err != nil && !errors.Is(err, ErrGone) {
						t.Error(err)
					}
				}
				tree.Stats()
			}
		})
	}
	for w := range 4 {
		makers.Go(func() {
			for i := range 60 {
				d := filepath.Join(dir, cid(fmt.Sprint(w, i)))
				for _, d := range []string{d, filepath.Join(d, "nested")} {
					if err := os.Mkdir(d, 0o755); err != nil {
						t.Error(err)
						return
					}
					populate(d)
				}
				if i%6 == 0 {
					continue // stays
				}
				for _, d := range []string{filepath.Join(d, "nested"), d} {
					if err := removeCgroup(d); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	makers.Wait()
	var expected []string
	for w := range 4 {
		for i := 0; i < 60; i += 6 {
			expected = append(expected, base+"/"+cid(fmt.Sprint(w, i)))
		}
	}
	slices.Sort(expected)
	living := func() []string {
		var all []string
		for _, g := range tree.Groups() {
			if g.Gone.IsZero() && strings.HasPrefix(g.Path, base+"/") {
				all = append(all, g.Path)
			}
		}
		return all
	}
	require.Eventually(t, func() bool { return slices.Equal(expected, living()) }, soon, tick)
	close(stop)
	readers.Wait()
	ids := map[ID]bool{}
	for _, g := range tree.Groups() {
		assert.False(t, ids[g.ID], "%s: its id is listed twice", g.Path)
		ids[g.ID] = true
	}
	// What is still there resolves, nested or not.
	for _, path := range expected {
		id, err := stat(filepath.Join(dir, filepath.Base(path), "nested"))
		require.NoError(t, err)
		owner, ok := tree.Owner(id)
		assert.True(t, ok)
		assert.Equal(t, group(t, tree, path).ID, owner)
	}
}

// removeCgroup removes a cgroup, or a fixture of one with its files.
func removeCgroup(dir string) error {
	if isCgroupFS(dir) {
		return os.Remove(dir)
	}
	return os.RemoveAll(dir)
}

func TestChurn(t *testing.T) {
	root := plainTree(t)
	require.NoError(t, os.Mkdir(filepath.Join(root, "docker"), 0o755))
	tree, err := Open(Config{Root: root, Log: quiet(), WalkInterval: never})
	require.NoError(t, err)
	run(t, tree)
	churn(t, tree, filepath.Join(root, "docker"), "/docker", func(dir string) {
		for name, content := range map[string]string{"cpu.max": "20000 100000\n", "cpu.stat": "usage_usec 1\n"} {
			file := filepath.Join(dir, name)
			err := os.WriteFile(file+".new", []byte(content), 0o644)
			if err == nil {
				err = os.Rename(file+".new", file) // a control file is never seen half written
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
}
