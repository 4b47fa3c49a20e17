package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/resize"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// clock is a time that tests move.
type clock struct{ time.Time }

func (c *clock) now() time.Time          { return c.Time }
func (c *clock) pass(d time.Duration)    { c.Time = c.Add(d) }
func about(pod string) signal.Signal     { s := throttled(noon()); s.Pod = pod; return s }
func over(s signal.Signal) signal.Signal { s.Resolved, s.CPU = true, nil; return s }

func born(at time.Time) signal.Signal {
	return signal.Signal{Type: signal.PodCreation, Source: signal.SourceEBPF, Namespace: "shop", Pod: "web-0", PodUID: "a", Observed: at,
		Creation: &signal.Creation{
			TotalSyscalls: 42, NamespaceOps: 7, CgroupWrites: 3, Duration: 2 * time.Second,
			Timeline: []signal.Step{{Offset: time.Second, Actor: "cni", Action: "configured"}},
			Syscalls: []signal.SyscallCount{{Name: "clone3", First: at, Count: 2}},
		}}
}

func openDirectory(t *testing.T, dir string, opts Options) *Directory {
	t.Helper()
	d, err := OpenDirectory(t.Context(), dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() }) // a test may have closed it
	return d
}

func readWhisper(t *testing.T, file ...string) *v1alpha1.KernelWhisper {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(file...))
	require.NoError(t, err)
	w := &v1alpha1.KernelWhisper{}
	require.NoError(t, yaml.UnmarshalStrict(content, w))
	return w
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	}))
	return names
}

func TestManyWritersAreOneObject(t *testing.T) {
	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	d := openDirectory(t, dir, Options{Metrics: NewMetrics(registry)})
	const writers, each = 20, 50
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				assert.NoError(t, d.Accept(t.Context(), throttled(noon())))
			}
		})
	}
	wg.Wait()
	assert.Equal(t, []string{"shop/kernelwhispers/web-0-kw.yaml"}, files(t, dir), "one file, and nothing unfinished")
	w := readWhisper(t, dir, "shop/kernelwhispers/web-0-kw.yaml")
	assert.EqualValues(t, writers*each, w.Status.Occurrences)
	assert.EqualValues(t, 1, w.Generation, "the spec was written once")
	assert.EqualValues(t, writers*each, testutil.ToFloat64(d.opts.Metrics.signals.WithLabelValues("stored")))
	assert.Less(t, testutil.ToFloat64(d.opts.Metrics.writes.WithLabelValues("file")), float64(writers*each), "signals that wait share a write")
}

func TestContainersOfAPodHaveAnObjectEach(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	for _, name := range []string{"app", "sidecar", "app", "sidecar"} {
		s := throttled(noon())
		s.Container = name
		require.NoError(t, d.Accept(t.Context(), s))
	}
	// "a-b" with container "c" would be called as "a" with container "b-c".
	for _, c := range [][2]string{{"a", ""}, {"a", "b-c"}, {"a-b", ""}, {"a-b", "c"}} {
		s := about(c[0])
		s.Container = c[1]
		require.NoError(t, d.Accept(t.Context(), s))
	}
	var subjects []string
	for _, file := range files(t, dir) {
		w := readWhisper(t, dir, file)
		assert.Equal(t, w.Name+".yaml", filepath.Base(file))
		subjects = append(subjects, w.Spec.PodName+"/"+w.Spec.ContainerName)
	}
	assert.ElementsMatch(t, []string{"web-0/app", "web-0/sidecar", "a/", "a/b-c", "a-b/", "a-b/c"}, subjects)
}

func TestLongNamesFitAndStayApart(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	long := strings.Repeat("a", 253)
	for _, pod := range []string{long[:252] + "b", long[:252] + "c"} {
		require.NoError(t, d.Accept(t.Context(), about(pod)))
	}
	names := files(t, dir)
	require.Len(t, names, 2)
	for _, name := range names {
		assert.LessOrEqual(t, len(filepath.Base(name)), 255-len(temporaryPrefix))
	}
}

func TestPhases(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon()}
	d := openDirectory(t, dir, Options{Now: c.now})
	file := filepath.Join(dir, "shop/kernelwhispers/web-0-kw.yaml")

	require.NoError(t, d.Accept(t.Context(), over(throttled(noon()))))
	assert.NoFileExists(t, file, "what never was cannot be over")

	require.NoError(t, d.Accept(t.Context(), throttled(noon())))
	assert.Equal(t, v1alpha1.Active, readWhisper(t, file).Status.Phase)

	// Alertmanager says so too: it is over when both say so.
	alert := throttled(noon().Add(-time.Hour)) // its start, long ago
	alert.Source = signal.SourceAlertmanager
	c.pass(time.Minute)
	require.NoError(t, d.Accept(t.Context(), alert))
	require.NoError(t, d.Accept(t.Context(), over(throttled(noon().Add(time.Minute)))))
	w := readWhisper(t, file)
	assert.Equal(t, v1alpha1.Active, w.Status.Phase, "the alert still fires")
	assert.Nil(t, w.Status.ResolvedAt)
	c.pass(time.Minute)
	require.NoError(t, d.Accept(t.Context(), over(alert)))
	w = readWhisper(t, file)
	assert.Equal(t, v1alpha1.Resolved, w.Status.Phase)
	require.NotNil(t, w.Status.ResolvedAt)
	assert.Equal(t, noon().Add(2*time.Minute), w.Status.ResolvedAt.UTC())
	assert.EqualValues(t, 2, w.Status.Occurrences)

	// A retry that comes late counts, and turns nothing back.
	late := throttled(noon())
	require.NoError(t, d.Accept(t.Context(), late))
	w = readWhisper(t, file)
	assert.Equal(t, v1alpha1.Resolved, w.Status.Phase)
	assert.EqualValues(t, 3, w.Status.Occurrences)

	require.NoError(t, d.Accept(t.Context(), throttled(noon().Add(3*time.Minute))))
	w = readWhisper(t, file)
	assert.Equal(t, v1alpha1.Active, w.Status.Phase)
	assert.Nil(t, w.Status.ResolvedAt)
}

func TestAnotherPodOfTheSameName(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	of := func(uid string, at time.Time) signal.Signal {
		s := throttled(at)
		s.PodUID = uid
		return s
	}
	file := filepath.Join(dir, "shop/kernelwhispers/web-0-kw.yaml")
	require.NoError(t, d.Accept(t.Context(), of("first", noon())))
	require.NoError(t, d.Accept(t.Context(), of("first", noon())))
	require.NoError(t, d.Accept(t.Context(), of("second", noon().Add(time.Minute))))
	w := readWhisper(t, file)
	assert.Equal(t, "second", w.Spec.PodUID)
	assert.EqualValues(t, 1, w.Status.Occurrences, "a fresh object")
	require.NoError(t, d.Accept(t.Context(), of("first", noon())), "a word from the dead")
	assert.Equal(t, w, readWhisper(t, file))
	assert.EqualValues(t, 1, testutil.ToFloat64(d.opts.Metrics.signals.WithLabelValues("ignored")))
}

func TestBirths(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	read := func() *v1alpha1.PodBirthCertificate {
		content, err := os.ReadFile(filepath.Join(dir, "shop/podbirthcertificates/web-0-birth.yaml"))
		require.NoError(t, err)
		b := &v1alpha1.PodBirthCertificate{}
		require.NoError(t, yaml.UnmarshalStrict(content, b))
		return b
	}
	require.NoError(t, d.Accept(t.Context(), born(noon())))
	b := read()
	assert.EqualValues(t, 42, b.Spec.TotalSyscalls)
	assert.Equal(t, 2*time.Second, b.Spec.Duration.Duration)
	assert.Equal(t, "clone3", b.Spec.SyscallTimeline[0].Name)
	assert.Equal(t, "cni", b.Spec.Stages[0].Actor)

	again := born(noon())
	require.NoError(t, d.Accept(t.Context(), again))
	assert.Equal(t, b, read(), "told again, nothing changes")
	older := born(noon().Add(-time.Minute))
	older.Creation.TotalSyscalls = 1
	require.NoError(t, d.Accept(t.Context(), older))
	assert.Equal(t, b, read(), "an older word is not heard")
	newer := born(noon().Add(time.Minute))
	newer.Creation.TotalSyscalls = 50
	require.NoError(t, d.Accept(t.Context(), newer))
	assert.EqualValues(t, 50, read().Spec.TotalSyscalls)
	assert.EqualValues(t, 2, read().Generation)
	other := born(noon().Add(2 * time.Minute))
	other.PodUID = "b"
	require.NoError(t, d.Accept(t.Context(), other))
	assert.Equal(t, "b", read().Spec.PodUID)
	assert.EqualValues(t, 1, read().Generation, "a fresh object")
	gone := born(noon())
	require.NoError(t, d.Accept(t.Context(), gone))
	assert.Equal(t, "b", read().Spec.PodUID, "a birth of a pod that is no more")
}

// What a crash leaves is never an object, and stands in nobody's way.
func TestResumesAfterACrash(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "shop/kernelwhispers")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	torn := "apiVersion: kernel-gossip.dev/v1alpha1\nkind: KernelWhisper\nspec: {podName: web-0, sign"
	require.NoError(t, os.WriteFile(filepath.Join(folder, temporaryPrefix+"HALF"), []byte(torn), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "web-0-kw.yaml"), []byte(torn), 0o600))
	d := openDirectory(t, dir, Options{})
	assert.NoFileExists(t, filepath.Join(folder, temporaryPrefix+"HALF"), "swept when the store opens")
	require.NoError(t, d.Accept(t.Context(), throttled(noon())))
	assert.EqualValues(t, 1, readWhisper(t, folder, "web-0-kw.yaml").Status.Occurrences)
	aside, err := os.ReadFile(filepath.Join(folder, "web-0-kw.yaml.bad"))
	require.NoError(t, err)
	assert.Equal(t, torn, string(aside), "nothing that a person may want is lost")

	require.NoError(t, d.Close())
	d = openDirectory(t, dir, Options{})
	require.NoError(t, d.Accept(t.Context(), throttled(noon())))
	assert.EqualValues(t, 2, readWhisper(t, folder, "web-0-kw.yaml").Status.Occurrences, "it goes on where it was")
}

func TestAFileThatIsTooLargeIsMovedAside(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "shop/kernelwhispers")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "web-0-kw.yaml"), make([]byte, maxFile+1), 0o600))
	d := openDirectory(t, dir, Options{})
	require.NoError(t, d.Accept(t.Context(), throttled(noon())))
	assert.FileExists(t, filepath.Join(folder, "web-0-kw.yaml.bad"))
	assert.EqualValues(t, 1, readWhisper(t, folder, "web-0-kw.yaml").Status.Occurrences)
}

func TestOneOperatorHoldsADirectory(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	_, err := OpenDirectory(t.Context(), dir, Options{})
	require.ErrorContains(t, err, "does another operator use it?")
	require.NoError(t, d.Close())
	openDirectory(t, dir, Options{})
}

func TestADirectoryThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := OpenDirectory(t.Context(), filepath.Join(file, "dir"), Options{})
	require.ErrorContains(t, err, "making the store's directory")
	_, err = OpenDirectory(t.Context(), file, Options{})
	require.Error(t, err)
}

// A link in the directory leads nowhere outside of it.
func TestNothingOutsideIsReached(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "shop")))
	d := openDirectory(t, dir, Options{})
	require.Error(t, d.Accept(t.Context(), throttled(noon())))
	assert.Empty(t, files(t, outside))
	assert.EqualValues(t, 1, testutil.ToFloat64(d.opts.Metrics.signals.WithLabelValues("failed")))
	s := throttled(noon())
	s.Namespace = "other"
	require.NoError(t, d.Accept(t.Context(), s), "the others go on")
}

func TestReady(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	require.NoError(t, d.Ready(t.Context()))
	assert.Empty(t, files(t, dir))
	require.NoError(t, os.RemoveAll(dir))
	require.ErrorContains(t, d.Ready(t.Context()), "writing to the store's directory")
	require.Error(t, d.Accept(t.Context(), throttled(noon())))
}

// teller notes what it is told.
type teller struct {
	mu       sync.Mutex
	outcomes []Outcome
	capped   []string
}

func (a *teller) Announce(_ context.Context, o Outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.News {
		a.outcomes = append(a.outcomes, o)
	}
}

func (*teller) Resized(context.Context, *v1alpha1.KernelWhisper, resize.Phase, string) {}

func (a *teller) Capped(_ context.Context, s signal.Signal, scope string, limit int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.capped = append(a.capped, fmt.Sprint(s.Namespace, "/", s.Pod, " ", scope, " ", limit))
}

func TestNewsIsToldOnce(t *testing.T) {
	a := &teller{}
	d := openDirectory(t, t.TempDir(), Options{Announcer: a})
	for range 3 {
		require.NoError(t, d.Accept(t.Context(), throttled(noon())))
	}
	require.NoError(t, d.Accept(t.Context(), over(throttled(noon().Add(time.Minute)))))
	require.Len(t, a.outcomes, 2)
	assert.True(t, a.outcomes[0].Created)
	assert.False(t, a.outcomes[1].Created)
	assert.Equal(t, v1alpha1.Resolved, a.outcomes[1].Whisper.Status.Phase)
}

func TestCaps(t *testing.T) {
	a := &teller{}
	d := openDirectory(t, t.TempDir(), Options{Announcer: a, Limits: Limits{PerNamespace: 2, Total: 3}})
	at := func(namespace, pod string) signal.Signal {
		s := about(pod)
		s.Namespace = namespace
		return s
	}
	for _, s := range []signal.Signal{at("shop", "a"), at("shop", "b"), at("till", "a")} {
		require.NoError(t, d.Accept(t.Context(), s))
	}
	err := d.Accept(t.Context(), at("shop", "c"))
	require.ErrorIs(t, err, signal.ErrCapacity)
	require.ErrorContains(t, err, "raise --whisper.max-per-namespace or delete some")
	err = d.Accept(t.Context(), at("till", "b"))
	require.ErrorIs(t, err, signal.ErrCapacity)
	require.ErrorContains(t, err, "raise --whisper.max or delete some")
	require.NoError(t, d.Accept(t.Context(), at("shop", "a")), "what is known goes on")
	birth := born(noon())
	require.NoError(t, d.Accept(t.Context(), birth), "births have their own cap")
	assert.Equal(t, []string{"shop/c namespace 2", "till/b all 3"}, a.capped)
}

func TestTend(t *testing.T) {
	dir := t.TempDir()
	a, c := &teller{}, &clock{noon()}
	d := openDirectory(t, dir, Options{Announcer: a, Now: c.now})
	for _, s := range []signal.Signal{about("stale"), about("kept"), about("over"), born(noon())} {
		require.NoError(t, d.Accept(t.Context(), s))
	}
	require.NoError(t, d.Accept(t.Context(), over(about("over"))))
	folder := filepath.Join(dir, "shop/kernelwhispers")
	keep := Retention{TTL: time.Hour, ResolvedTTL: time.Minute}

	c.pass(time.Minute)
	require.NoError(t, d.Tend(t.Context(), keep))
	assert.NoFileExists(t, filepath.Join(folder, "over-kw.yaml"))
	assert.FileExists(t, filepath.Join(folder, "stale-kw.yaml"))
	require.NoError(t, d.Accept(t.Context(), about("kept")))

	c.pass(time.Hour - time.Minute)
	require.NoError(t, d.Tend(t.Context(), keep))
	assert.Equal(t, []string{"shop/kernelwhispers/kept-kw.yaml"}, files(t, dir), "the birth is an hour old, too")
	c.pass(1000 * time.Hour)
	require.NoError(t, d.Tend(t.Context(), Retention{}), "0 keeps for ever")
	assert.Len(t, files(t, dir), 1)
	assert.EqualValues(t, 2, testutil.ToFloat64(d.opts.Metrics.expired.WithLabelValues(v1alpha1.KernelWhisperKind)))

	// A person puts a file there, as kubectl apply -f takes it.
	require.NoError(t, os.WriteFile(filepath.Join(folder, "mine.yaml"), []byte(`apiVersion: kernel-gossip.dev/v1alpha1
kind: KernelWhisper
metadata: {name: mine, namespace: shop}
spec:
  signalType: cpu_throttle
  podName: web-1
  severity: info
  evidence: {throttlePercentage: 92.3, reportedCPUCores: 0.48, cpuLimitCores: 1}
`), 0o600))
	told := len(a.outcomes)
	require.NoError(t, d.Tend(t.Context(), keep))
	w := readWhisper(t, folder, "mine.yaml")
	assert.Equal(t, v1alpha1.SourceManual, w.Spec.Source)
	assert.Equal(t, v1alpha1.Active, w.Status.Phase)
	assert.Equal(t, v1alpha1.Severity("info"), w.Spec.Severity, "the person's word")
	assert.Contains(t, w.Spec.Insights, "Metrics show 48% usage, kernel shows 92% throttled")
	assert.NotEmpty(t, w.Status.Recommendations)
	assert.Len(t, a.outcomes, told+1)
	require.NoError(t, d.Tend(t.Context(), keep))
	assert.Equal(t, w, readWhisper(t, folder, "mine.yaml"), "analysed once")
}
