package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

const (
	whisperFolder = "kernelwhispers"
	birthFolder   = "podbirthcertificates"
	extension     = ".yaml"
	// A name of ours never starts so: names of Kubernetes start with a letter or digit.
	temporaryPrefix = ".tmp-"

	// maxFile bounds what is read of a file that anyone may have put there.
	maxFile = 4 << 20
)

// Directory stores signals as YAML files that kubectl apply -f accepts:
//
//	DIR/<namespace>/kernelwhispers/<name>.yaml
//	DIR/<namespace>/podbirthcertificates/<name>.yaml
//
// A file is written beside its place, synced, renamed, and its folder synced:
// after a crash it is as it was before or as it is after. Nothing outside DIR
// can be reached, by a name or by a link. One process at a time holds DIR.
type Directory struct {
	root  *os.Root
	lock  *os.File
	opts  Options
	queue *queue

	mu     sync.Mutex         // one writer: the queue's, or the janitor
	counts map[string]*census // by kind, of what mu guards
}

// census is how many objects of a kind there are, by folder. Reading all folders for
// each new object would make a storm of n of them cost n².
type census struct {
	at      time.Time
	folders map[string]int
	total   int
}

// recount is how old a census may be when it says that there is no room: a person
// deletes files to make some.
const recount = time.Second

var _ Store = (*Directory)(nil)

// OpenDirectory makes DIR where it is missing, locks it, and removes what a crash
// left of unfinished files. Writes end with ctx; Close releases DIR.
func OpenDirectory(ctx context.Context, dir string, opts Options) (*Directory, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the store's directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store's directory: %w", err)
	}
	d := &Directory{root: root, opts: opts.withDefaults(), counts: map[string]*census{}}
	if d.lock, err = root.Open("."); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the store's directory: %w", err), root.Close())
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w: does another operator use it?", dir, err), d.Close())
	}
	if err := d.sweep(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.queue = newQueue(ctx, 1, d.write)
	return d, nil
}

// Close releases the directory.
func (d *Directory) Close() error { return errors.Join(d.lock.Close(), d.root.Close()) }

// Accept implements Store.
func (d *Directory) Accept(ctx context.Context, s signal.Signal) error { return d.queue.accept(ctx, s) }

// Ready writes a file and removes it.
func (d *Directory) Ready(context.Context) error {
	name := temporaryPrefix + rand.Text()
	if err := d.root.WriteFile(name, []byte("ready\n"), 0o600); err != nil {
		return errors.Join(fmt.Errorf("writing to the store's directory: %w", err), ignoreMissing(d.root.Remove(name)))
	}
	if err := d.root.Remove(name); err != nil {
		return fmt.Errorf("removing from the store's directory: %w", err)
	}
	return nil
}

func (d *Directory) write(ctx context.Context, id identity, signals []signal.Signal) error {
	began := time.Now()
	d.mu.Lock()
	out, err := d.try(ctx, id, signals)
	d.mu.Unlock()
	d.opts.Metrics.observe(len(signals), began, err)
	if errors.Is(err, errIgnored) {
		return nil
	}
	if err == nil {
		d.opts.Announcer.Announce(ctx, out)
	}
	return err
}

func (d *Directory) try(ctx context.Context, id identity, signals []signal.Signal) (Outcome, error) {
	if id.signal == signal.PodCreation {
		return d.tryBirth(ctx, id, signals)
	}
	return d.tryWhisper(ctx, id, signals)
}

func (d *Directory) tryWhisper(ctx context.Context, id identity, signals []signal.Signal) (Outcome, error) {
	p := pod{uid: signals[0].PodUID}
	folder := path.Join(id.namespace, whisperFolder)
	old, name, err := d.find(folder, id)
	if err != nil {
		return Outcome{}, err
	}
	if old != nil {
		switch judge(old.Spec.PodUID, old.Spec.DetectedAt, p, signals[len(signals)-1]) {
		case ignore:
			return Outcome{}, errIgnored
		case replace:
			old = nil
		}
	} else {
		if saysNothing(signals) {
			return Outcome{}, errIgnored
		}
		if err := d.opts.admit(ctx, signals[0], d.counter(whisperFolder)); err != nil {
			return Outcome{}, err
		}
	}
	now := d.opts.Now().UTC()
	next := fold(old, name, p, signals, now)
	if old != nil && unchanged(old, next) {
		return Outcome{Whisper: old}, nil
	}
	stamp(&next.ObjectMeta, now, old == nil || !sameSpec(old, next))
	settle(next, now)
	if err := d.save(folder, name, next); err != nil {
		return Outcome{}, err
	}
	return Outcome{Whisper: next, Created: old == nil, News: news(old, next)}, nil
}

func (d *Directory) tryBirth(ctx context.Context, id identity, signals []signal.Signal) (Outcome, error) {
	s := latestBirth(signals)
	if s == nil {
		return Outcome{}, errIgnored
	}
	folder, name, p := path.Join(id.namespace, birthFolder), id.birthName(), pod{uid: s.PodUID}
	old, err := load[v1alpha1.PodBirthCertificate](d, folder, name)
	if err != nil {
		return Outcome{}, err
	}
	if old != nil {
		switch judge(old.Spec.PodUID, old.Spec.DetectedAt, p, *s) {
		case ignore:
			return Outcome{}, errIgnored
		case replace:
			old = nil
		}
	} else if err := d.opts.makeRoom(ctx, *s, d.counter(birthFolder), d.evict); err != nil {
		return Outcome{}, err
	}
	next := birth(old, name, p, *s)
	if old != nil && !supersedes(old, next) {
		return Outcome{Birth: old}, nil
	}
	stamp(&next.ObjectMeta, d.opts.Now().UTC(), true)
	if err := d.save(folder, name, next); err != nil {
		return Outcome{}, err
	}
	return Outcome{Birth: next, Created: old == nil, News: true}, nil
}

// stamp does what an API server does to metadata.
func stamp(m *metav1.ObjectMeta, now time.Time, changed bool) {
	if m.CreationTimestamp.IsZero() {
		m.CreationTimestamp = metav1.NewTime(now)
	}
	if changed {
		m.Generation++
	}
}

func (d *Directory) find(folder string, id identity) (*v1alpha1.KernelWhisper, string, error) {
	free := ""
	for _, name := range id.whisperNames() {
		w, err := load[v1alpha1.KernelWhisper](d, folder, name)
		switch {
		case err != nil:
			return nil, "", err
		case w == nil && free == "":
			free = name
		case w != nil && id.is(w):
			return w, name, nil
		}
	}
	if free == "" {
		return nil, "", fmt.Errorf("naming the whisper of pod %s/%s: every name belongs to another: %s", id.namespace, id.pod, strings.Join(id.whisperNames(), ", "))
	}
	return nil, free, nil
}

// load reads a file; nil when there is none. One that is not YAML of the kind is
// moved aside, for it would stand in the way of its container for ever.
func load[T any](d *Directory, folder, name string) (*T, error) {
	file := path.Join(folder, name+extension)
	f, err := d.root.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	var object T
	if len(content) > maxFile {
		err = fmt.Errorf("is over %d bytes", maxFile)
	} else {
		err = yaml.UnmarshalStrict(content, &object)
	}
	if err == nil {
		return &object, nil
	}
	d.opts.Logger.Warn("a file of the store can't be read; moving it aside", "file", file, "to", file+".bad", "err", err)
	if err := d.root.Rename(file, file+".bad"); err != nil {
		return nil, fmt.Errorf("moving %s aside: %w", file, err)
	}
	d.changed(path.Base(folder), folder, -1)
	return nil, nil
}

// save makes the object last.
func (d *Directory) save(folder, name string, object any) (err error) {
	defer func() {
		if err != nil {
			clear(d.counts) // it may be there, or not
		}
	}()
	file := path.Join(folder, name+extension)
	content, err := yaml.Marshal(object)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", file, err)
	}
	if err := d.makeFolder(folder); err != nil {
		return err
	}
	temporary := path.Join(folder, temporaryPrefix+rand.Text())
	f, err := d.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("writing %s: %w", file, err), ignoreMissing(d.root.Remove(temporary)))
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(content))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, missing := d.root.Lstat(file)
	if err := d.root.Rename(temporary, file); err != nil {
		return err
	}
	if missing != nil {
		d.changed(path.Base(folder), folder, 1)
	}
	d.opts.Metrics.writes.WithLabelValues("file").Inc()
	return d.sync(folder)
}

// makeFolder makes <namespace>/<kind> and makes the making last.
func (d *Directory) makeFolder(folder string) error {
	if _, err := d.root.Stat(folder); err == nil {
		return nil
	}
	if err := d.root.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", folder, err)
	}
	return errors.Join(d.sync(path.Dir(folder)), d.sync("."))
}

func (d *Directory) sync(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", folder, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", folder, err)
	}
	return nil
}

// counter counts the objects of a kind, of a namespace or of all.
func (d *Directory) counter(kind string) func(context.Context, string) (int, error) {
	return func(_ context.Context, namespace string) (int, error) {
		c, err := d.census(kind)
		if err == nil && c.isFull(d.opts.Limits, namespace, kind) && time.Since(c.at) > recount {
			delete(d.counts, kind)
			c, err = d.census(kind)
		}
		if err != nil {
			return 0, err
		}
		return c.of(namespace, kind), nil
	}
}

func (c *census) of(namespace, kind string) int {
	if namespace == "" {
		return c.total
	}
	return c.folders[path.Join(namespace, kind)]
}

func (c *census) isFull(l Limits, namespace, kind string) bool {
	limit := l.PerNamespace
	if namespace == "" {
		limit = l.Total
	}
	return limit > 0 && c.of(namespace, kind) >= limit
}

func (d *Directory) census(kind string) (*census, error) {
	if c := d.counts[kind]; c != nil {
		return c, nil
	}
	c := &census{at: time.Now(), folders: map[string]int{}}
	err := d.each(kind, func(folder, _ string) error {
		c.folders[folder]++
		c.total++
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.counts[kind] = c
	return c, nil
}

// changed keeps the census, if there is one, true to what was done.
func (d *Directory) changed(kind, folder string, by int) {
	if c := d.counts[kind]; c != nil {
		c.folders[folder] += by
		c.total += by
	}
}

// evict deletes the n certificates of a namespace, or of all, that were written first.
func (d *Directory) evict(_ context.Context, namespace string, n int) error {
	type certificate struct {
		folder, name string
		written      time.Time
	}
	var all []certificate
	if err := d.each(birthFolder, func(folder, name string) error {
		if namespace != "" && folder != path.Join(namespace, birthFolder) {
			return nil
		}
		info, err := d.root.Stat(path.Join(folder, name+extension))
		if err != nil {
			return ignoreMissing(err)
		}
		all = append(all, certificate{folder, name, info.ModTime()})
		return nil
	}); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b certificate) int { return a.written.Compare(b.written) })
	for _, c := range all[:min(n, len(all))] {
		file := path.Join(c.folder, c.name+extension)
		if err := ignoreMissing(d.root.Remove(file)); err != nil {
			return fmt.Errorf("deleting %s: %w", file, err)
		}
		d.changed(birthFolder, c.folder, -1)
		d.opts.Metrics.evicted.Inc()
	}
	return nil
}

// each visits the objects of a kind: folder and name.
func (d *Directory) each(kind string, visit func(folder, name string) error) error {
	namespaces, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("reading the store's directory: %w", err)
	}
	for _, n := range namespaces {
		if !n.IsDir() {
			continue
		}
		folder := path.Join(n.Name(), kind)
		files, err := fs.ReadDir(d.root.FS(), folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", folder, err)
		}
		for _, f := range files {
			name, isObject := strings.CutSuffix(f.Name(), extension)
			if !isObject || strings.HasPrefix(name, ".") || !f.Type().IsRegular() {
				continue
			}
			if err := visit(folder, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes what a crash left of unfinished files.
func (d *Directory) sweep() error {
	return fs.WalkDir(d.root.FS(), ".", func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("looking for unfinished files: %w", err)
		case e.IsDir() && strings.Count(file, "/") > 1:
			return fs.SkipDir
		case e.Type().IsRegular() && strings.HasPrefix(e.Name(), temporaryPrefix):
			if err := d.root.Remove(file); err != nil && !errors.Is(err, unix.EROFS) {
				return fmt.Errorf("removing an unfinished file: %w", err)
			}
		}
		return nil
	})
}

// Tend deletes what is over its time and analyses the whispers that a person put
// there. It is what the controller does in a cluster.
func (d *Directory) Tend(ctx context.Context, keep Retention) error {
	now := d.opts.Now().UTC()
	d.mu.Lock()
	clear(d.counts) // a person may have put or deleted files
	d.mu.Unlock()
	return errors.Join(
		d.each(whisperFolder, func(folder, name string) error { return d.tendWhisper(ctx, folder, name, keep, now) }),
		d.each(birthFolder, func(folder, name string) error { return d.tendBirth(folder, name, keep, now) }),
	)
}

func (d *Directory) tendWhisper(ctx context.Context, folder, name string, keep Retention, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w, err := load[v1alpha1.KernelWhisper](d, folder, name)
	if w == nil || err != nil {
		return err
	}
	if NeedsAnalysis(w) && w.Spec.Source == "" {
		// Only a person leaves the source out: kubectl apply -f takes such a file too.
		before := w.DeepCopy()
		w.Spec.Source = v1alpha1.SourceManual
		w.Name, w.Namespace = name, path.Dir(folder)
		stamp(&w.ObjectMeta, now, true)
		Analyse(w, now)
		if err := d.save(folder, name, w); err != nil {
			return err
		}
		d.opts.Announcer.Announce(ctx, Outcome{Whisper: w, Created: true, News: news(before, w)})
		return nil
	}
	if at := keep.ExpiresAt(w); !at.IsZero() && !now.Before(at) {
		return d.expire(folder, name, v1alpha1.KernelWhisperKind)
	}
	if at := keep.SilentAt(w); !at.IsZero() && !now.Before(at) {
		FallSilent(w, now)
		if err := d.save(folder, name, w); err != nil {
			return err
		}
		d.opts.Announcer.Announce(ctx, Outcome{Whisper: w, News: w.Status.Phase == v1alpha1.Resolved})
	}
	return nil
}

func (d *Directory) tendBirth(folder, name string, keep Retention, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := load[v1alpha1.PodBirthCertificate](d, folder, name)
	if b == nil || err != nil {
		return err
	}
	if at := keep.BirthExpiresAt(b); at.IsZero() || now.Before(at) {
		return nil
	}
	return d.expire(folder, name, v1alpha1.PodBirthCertificateKind)
}

func (d *Directory) expire(folder, name, kind string) error {
	file := path.Join(folder, name+extension)
	if err := ignoreMissing(d.root.Remove(file)); err != nil {
		return fmt.Errorf("deleting %s, which is over its time: %w", file, err)
	}
	d.changed(path.Base(folder), folder, -1)
	d.opts.Metrics.Expired(kind)
	d.opts.Logger.Info("deleted an object that is over its time", "file", file)
	return d.sync(folder)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
