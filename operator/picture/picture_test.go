package picture

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden pictures anew")

func ptr[T any](v T) *T { return &v }

func span1(ms float64) *metav1.Duration {
	return &metav1.Duration{Duration: time.Duration(ms * float64(time.Millisecond))}
}

func load(t testing.TB, name string) *v1alpha1.PodBirthCertificate {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	require.NoError(t, err)
	b := &v1alpha1.PodBirthCertificate{}
	require.NoError(t, yaml.UnmarshalStrict(content, b))
	return b
}

// Look at a golden picture that changed before you keep it: chromium draws it.
func TestGolden(t *testing.T) {
	for _, name := range []string{"sidecars", "failed", "byhand"} {
		got := SVG(load(t, name))
		file := filepath.Join("testdata", name+".svg")
		if *update {
			require.NoError(t, os.WriteFile(file, got, 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s is another: go test ./operator/picture -update, and look at it", file)
	}
}

// texts are what is written, and holds that the picture is well-formed and harmless.
func texts(t testing.TB, svg []byte) []string {
	t.Helper()
	var all []string
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		switch v := token.(type) {
		case xml.StartElement:
			require.Contains(t, []string{"svg", "title", "desc", "style", "rect", "path", "circle", "text", "g"}, v.Name.Local)
			for _, a := range v.Attr {
				require.Contains(t, []string{"xmlns", "viewBox", "width", "height", "role", "aria-labelledby", "id", "class", "x", "y", "rx", "cx", "cy", "r", "d"}, a.Name.Local)
				require.NotContains(t, a.Value, "NaN")
				require.NotContains(t, a.Value, "Inf")
			}
		case xml.CharData:
			if s := strings.TrimSpace(string(v)); s != "" {
				all = append(all, s)
			}
		}
	}
}

func TestItTellsInWords(t *testing.T) {
	all := texts(t, SVG(load(t, "failed")))
	assert.Equal(t, "Birth of pod shop/web-0", all[0])
	assert.Contains(t, all[1], "Container app never reached its entrypoint")
	assert.Contains(t, all[1], "At 311 ms cni: bridge, for 47 ms.")
	assert.Contains(t, all, "never reached its entrypoint")
	assert.Contains(t, all, "failed")
	assert.Contains(t, texts(t, SVG(load(t, "sidecars"))), "all of it was seen")
}

// Anyone who may write a certificate writes into this picture.
func TestHostileWords(t *testing.T) {
	for _, evil := range []string{
		`</text><script>alert(1)</script>`, `"><image href="x" onerror="alert(1)"/>`, "]]>\x00\x1b[2J\ufffe", `red;} svg { display: none`,
		`&lt;script&gt;`, "\xff\xfe", strings.Repeat("W", 5000), "\u202e" + strings.Repeat("é", 300), "",
	} {
		b := load(t, "sidecars")
		b.Namespace, b.Spec.PodName, b.Spec.NodeName, b.Spec.PodUID, b.Spec.Failure = evil, evil, evil, evil, evil
		b.Spec.Insights = []string{evil, evil, evil + " " + evil}
		for i := range b.Spec.Stages {
			s := &b.Spec.Stages[i]
			s.Actor, s.Action, s.Details, s.Container = evil, evil, evil, evil
		}
		for i := range b.Spec.Containers {
			b.Spec.Containers[i].Name, b.Spec.Containers[i].Entrypoint = fmt.Sprint(evil, i), evil
		}
		for i := range b.Spec.Roles {
			b.Spec.Roles[i].Role, b.Spec.Roles[i].Container = evil, evil
		}
		for i := range b.Spec.SyscallTimeline {
			b.Spec.SyscallTimeline[i].Name = evil
		}
		b.Spec.Namespaces[0].Kind = evil
		b.Spec.Network.Routes = []string{evil}
		texts(t, SVG(b))
	}
}

func TestHostileNumbers(t *testing.T) {
	for _, n := range []time.Duration{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		b := load(t, "sidecars")
		far := &metav1.Duration{Duration: n}
		b.Spec.Duration, b.Spec.TotalSyscalls, b.Spec.CgroupWrites = *far, int64(n), int64(n)
		b.Spec.Stages[2].Offset, b.Spec.Stages[3].Duration, b.Spec.Stages[4].Precision = *far, far, far
		b.Spec.Containers[0].CreatedOffset, b.Spec.Containers[0].EntrypointOffset = far, far
		b.Spec.Roles[0].Syscalls, b.Spec.SyscallTimeline[0].Count = int64(n), int64(n)
		texts(t, SVG(b))
	}
	texts(t, SVG(&v1alpha1.PodBirthCertificate{}))
}

// What is drawn is bounded whatever was written.
func TestItIsBounded(t *testing.T) {
	b := load(t, "sidecars")
	for i := range 5000 {
		b.Spec.Stages = append(b.Spec.Stages, v1alpha1.Stage{Offset: *span1(float64(i % 900)), Actor: fmt.Sprint("actor", i%50), Action: "a step with a name"})
		b.Spec.Containers = append(b.Spec.Containers, v1alpha1.BirthContainer{Name: fmt.Sprint("c", i), EntrypointOffset: span1(1)})
		b.Spec.Roles = append(b.Spec.Roles, v1alpha1.BirthRole{Role: fmt.Sprint("role", i), Syscalls: 1})
	}
	assert.Less(t, len(SVG(b)), 1<<20)
}

// No label covers another of its row.
func TestLabelsDoNotOverlap(t *testing.T) {
	l := lane{}
	for i := range 60 {
		from := time.Duration(i*i%97) * 10 * time.Millisecond
		l.marks = append(l.marks, mark{from: from, to: from + time.Duration(i%3)*40*time.Millisecond, kind: "runtime", label: strings.Repeat("m", i%20)})
	}
	at := func(d time.Duration) float64 { return plotLeft + d.Seconds()*(plotRight-plotLeft) }
	l.pack(at, plotLeft, plotRight)
	assert.Equal(t, 60, len(l.marks)+l.hidden)
	assert.LessOrEqual(t, l.rows, maxRows)
	rows := map[int][][2]float64{}
	for _, m := range l.marks {
		low, high := at(m.from), at(m.to)
		switch {
		case m.inside:
		case m.left:
			low -= 8 + width(m.label, small)
		default:
			high += 5 + width(m.label, small)
		}
		assert.GreaterOrEqual(t, low, plotLeft-1)
		rows[m.row] = append(rows[m.row], [2]float64{low, high})
	}
	for _, spans := range rows {
		slices.SortFunc(spans, func(a, b [2]float64) int { return int(a[0] - b[0]) })
		for i := range spans[1:] {
			assert.LessOrEqual(t, spans[i][1], spans[i+1][0]+0.5)
		}
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 14918: "14,918", -1234567: "-1,234,567"} {
		assert.Equal(t, want, number(n))
	}
	for d, want := range map[time.Duration]string{
		0: "0", 800 * time.Microsecond: "0.8 ms", 47 * time.Millisecond: "47 ms", 1500 * time.Millisecond: "1.50 s",
		39 * time.Second: "39.0 s", time.Hour: "1h0m0s", -2 * time.Second: "-2.00 s",
	} {
		assert.Equal(t, want, span(d))
	}
	assert.Equal(t, []string{"one two", "three"}, wrap("one two three", 8, 3))
	assert.Equal(t, []string{"one two", "three f…"}, wrap("one two three four five", 8, 2))
	assert.Equal(t, "ab…", cut("abcdef", 3))
}

func FuzzSVG(f *testing.F) {
	f.Add("shop", "web-0", "runtime", "runc create", "app", int64(1e9), int64(-5))
	f.Add("<", "\x00", "cni", strings.Repeat("é", 70), "", int64(math.MaxInt64), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, namespace, pod, actor, action, container string, offset, length int64) {
		b := &v1alpha1.PodBirthCertificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
		b.Spec.PodName, b.Spec.Insights = pod, []string{action, action}
		b.Spec.Stages = []v1alpha1.Stage{
			{Offset: metav1.Duration{Duration: time.Duration(offset)}, Duration: &metav1.Duration{Duration: time.Duration(length)}, Actor: actor, Action: action, Container: container},
			{Offset: metav1.Duration{Duration: time.Duration(length)}, Actor: actor, Action: action},
		}
		b.Spec.Containers = []v1alpha1.BirthContainer{{Name: container, EntrypointOffset: &metav1.Duration{Duration: time.Duration(offset)}, Syscalls: ptr(length)}}
		texts(t, SVG(b))
	})
}
