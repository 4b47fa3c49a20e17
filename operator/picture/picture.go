// Package picture draws a birth certificate as a timeline: an SVG that stands on its
// own, needs no script, is dark where the reader's screen is, and tells in words
// what it shows to who can't see it. It is pure: a certificate in, bytes out.
package picture

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// Measures, in pixels at the picture's own size.
const (
	pageWidth = 1040.0
	margin    = 28.0
	plotLeft  = 196.0
	plotRight = pageWidth - margin
	rowHeight = 20.0
	small     = 11.5
	normal    = 13.0
)

// Bounds of what is drawn, for anyone may write a certificate.
const (
	maxLanes  = 24
	maxRows   = 16
	maxTold   = 10
	maxBars   = 8
	maxDesc   = 64
	maxLength = 7 * 24 * time.Hour
)

const style = `
svg { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums;
  --paper: #fff; --ink: #1c1f23; --dim: #5b6470; --line: #e3e7ec; --soft: #f5f7f9; --hot: #b42318; --good: #15803d;
  --kubelet: #7c5cd6; --cni: #0e8a8a; --runtime: #1d6fd1; --kernel: #b7791f; --other: #6b7280; }
@media (prefers-color-scheme: dark) { svg {
  --paper: #14171b; --ink: #e6e9ed; --dim: #9aa4b1; --line: #2b323a; --soft: #1b2026; --hot: #ff8a73; --good: #6fd48f;
  --kubelet: #ad96f5; --cni: #4fc9c4; --runtime: #6cb0ff; --kernel: #e3b15a; --other: #9aa4b1; } }
.paper { fill: var(--paper); } .soft { fill: var(--soft); } .grid { stroke: var(--line); } .rule { stroke: var(--line); stroke-width: 1.5; }
text { fill: var(--ink); font-size: 11.5px; } .h { font-size: 21px; font-weight: 650; } .n { font-size: 13px; } .b { font-size: 13px; font-weight: 600; }
.d { fill: var(--dim); } .t { font-size: 19px; font-weight: 650; } .e { text-anchor: end; } .m { text-anchor: middle; } .on { fill: var(--paper); font-weight: 600; }
.hot { fill: var(--hot); } .good { fill: var(--good); } .hot.l, .good.l { font-weight: 600; }
.kubelet { fill: var(--kubelet); } .cni { fill: var(--cni); } .runtime { fill: var(--runtime); } .kernel { fill: var(--kernel); } .other, .scheduler { fill: var(--other); }
.end { stroke: var(--good); stroke-dasharray: 3 3; } .end.bad { stroke: var(--hot); }
`

type drawing struct {
	canvas
	spec   *v1alpha1.PodBirthCertificateSpec
	length time.Duration // of the axis
	y      float64
}

// SVG draws a certificate.
func SVG(b *v1alpha1.PodBirthCertificate) []byte {
	d := &drawing{spec: &b.Spec, length: axis(&b.Spec)}
	d.y = margin + 20
	d.head(b)
	d.insights()
	d.timeline()
	d.bottom()
	height := math.Ceil(d.y + margin - 8)

	var out canvas
	fmt.Fprintf(&out.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-labelledby="t d">`+"\n", pageWidth, height, pageWidth, height)
	out.b.WriteString(`<title id="t">`)
	out.escape("Birth of pod " + b.Namespace + "/" + b.Spec.PodName)
	out.b.WriteString("</title>\n<desc id=\"d\">")
	out.escape(description(&b.Spec))
	out.b.WriteString("</desc>\n<style>" + style + "</style>\n")
	out.rect(0, 0, pageWidth, height, 0, "paper")
	out.b.Write(d.b.Bytes())
	out.b.WriteString("</svg>\n")
	return out.b.Bytes()
}

// axis is as long as the birth, and as what began meanwhile; a program that goes on after
// it, as runc run does, leaves by the right edge.
func axis(spec *v1alpha1.PodBirthCertificateSpec) time.Duration {
	longest := duration(&spec.Duration)
	var end time.Duration
	for _, s := range spec.Stages {
		if s.Precision == nil && s.Offset.Duration >= 0 {
			longest = max(longest, duration(&s.Offset))
			end = max(end, duration(&s.Offset)+duration(s.Duration))
		}
	}
	for _, c := range spec.Containers {
		longest = max(longest, duration(c.CreatedOffset), duration(c.StartedOffset), duration(c.EntrypointOffset))
	}
	if spec.Duration.Duration <= 0 {
		longest = max(longest, end)
	}
	if end > longest {
		longest += longest / 20
	}
	return min(max(longest, time.Millisecond), maxLength)
}

func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return min(max(d.Duration, 0), maxLength)
}

func offset(d *metav1.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v := duration(d)
	return &v
}

// at is the place of a moment on the axis.
func (d *drawing) at(t time.Duration) float64 {
	share := t.Seconds() / d.length.Seconds()
	return plotLeft + min(max(share, 0), 1)*(plotRight-plotLeft)
}

func (d *drawing) head(b *v1alpha1.PodBirthCertificate) {
	name := "Birth of " + b.Namespace + "/" + d.spec.PodName
	d.text(margin, d.y, "h", cut(name, 64), name)
	badge, kind := "", "good"
	switch complete := d.spec.Complete; {
	case d.spec.Failed:
		badge, kind = "failed", "hot"
	case complete != nil && *complete:
		badge = "all of it was seen"
	case complete != nil:
		badge, kind = "not all of it was seen", "hot"
	}
	if badge != "" {
		w := width(badge, normal) + 20
		d.rect(plotRight-w, d.y-17, w, 24, 12, kind)
		d.text(plotRight-w/2, d.y-1, "b m on", badge, "")
	}
	var facts []string
	if at := d.spec.DetectedAt; at != nil {
		facts = append(facts, at.UTC().Format("2 January 2006, 15:04:05 UTC"))
	}
	if d.spec.NodeName != "" {
		facts = append(facts, "on node "+d.spec.NodeName)
	}
	if d.spec.PodUID != "" {
		facts = append(facts, "pod "+d.spec.PodUID)
	}
	d.y += 22
	d.text(margin, d.y, "n d", cut(strings.Join(facts, " · "), 130), strings.Join(facts, " · "))
	d.y += 16
	d.tiles()
}

// tiles are the totals.
func (d *drawing) tiles() {
	s := d.spec
	type tile struct{ value, name string }
	all := []tile{{span(s.Duration.Duration), "duration"}, {number(s.TotalSyscalls), "syscalls"}}
	if s.SetupSyscalls != nil {
		all = append(all, tile{number(*s.SetupSyscalls), "of them set-up"})
	}
	all = append(all, tile{number(s.NamespaceOperations), "namespace ops"}, tile{number(s.CgroupWrites), "cgroup writes"})
	if s.Mounts != nil {
		all = append(all, tile{number(*s.Mounts), "mounts"})
	}
	if s.Execs != nil {
		all = append(all, tile{number(*s.Execs), "programs executed"})
	}
	const gap = 10.0
	w := (plotRight - margin - gap*float64(len(all)-1)) / float64(len(all))
	for i, t := range all {
		x := margin + float64(i)*(w+gap)
		d.rect(x, d.y, w, 54, 6, "soft")
		d.text(x+12, d.y+25, "t", t.value, "")
		d.text(x+12, d.y+43, "d", t.name, "")
	}
	d.y += 54 + 24
}

// insights leaves out the first, whose figures the tiles have.
func (d *drawing) insights() {
	if len(d.spec.Insights) < 2 {
		return
	}
	for _, insight := range d.spec.Insights[1:min(len(d.spec.Insights), 9)] {
		for i, line := range wrap(insight, 132, 3) {
			if i == 0 {
				d.rect(margin, d.y-8, 5, 5, 2.5, "runtime")
			}
			d.text(margin+14, d.y, "n", line, "")
			d.y += 19
		}
	}
	d.y += 8
}

func (d *drawing) timeline() {
	all, told := lanes(d.spec)
	top := d.y + 14
	y := top + 8
	body := canvas{}
	for i := range all {
		l := &all[i]
		l.pack(d.at, plotLeft, plotRight)
		y = drawLane(&body, l, y, d.at)
		body.line(margin, y+2, plotRight, y+2, "grid")
		y += 10
	}
	if len(all) == 0 {
		body.text(plotLeft, y+14, "n d", "No stages were told.", "")
		y += 26
	}
	d.ticks(top, y-8)
	if end := d.spec.Duration.Duration; end > 0 && len(all) > 0 {
		kind := "end"
		if d.spec.Failed {
			kind = "end bad"
		}
		d.line(d.at(end), top-2, d.at(end), y-8, kind)
	}
	d.b.Write(body.b.Bytes())
	d.y = y + 14
	d.told(told)
}

func drawLane(c *canvas, l *lane, y float64, at func(time.Duration) float64) float64 {
	c.text(margin, y+14, "b", cut(l.name, 22), l.name)
	if l.note != "" {
		c.text(margin, y+29, "d", cut(l.note, 26), l.note)
	}
	for _, m := range l.marks {
		x, to, mid := at(m.from), at(m.to), y+float64(m.row)*rowHeight+10
		fmt.Fprint(&c.b, "<g><title>")
		c.escape(m.whole)
		fmt.Fprint(&c.b, "</title>\n")
		label := "x"
		switch {
		case m.kind == "entry":
			fmt.Fprintf(&c.b, `<circle class="good" cx="%.1f" cy="%.1f" r="5"/>`+"\n", x, mid)
			label, to = "good l", x+5
		case m.kind == "failed":
			fmt.Fprintf(&c.b, `<path class="hot" d="M%.1f %.1fl3-3 4 4 4-4 3 3-4 4 4 4-3 3-4-4-4 4-3-3 4-4z"/>`+"\n", x-7, mid-4)
			label, to = "hot l", x+7
		case m.to > m.from:
			to = max(to, x+2)
			c.rect(x, mid-8, to-x, 16, 3, m.kind)
		default:
			fmt.Fprintf(&c.b, `<path class=%q d="M%.1f %.1fl4.5 4.5-4.5 4.5-4.5-4.5z"/>`+"\n", m.kind, x, mid-4.5)
			to = x + 4.5
		}
		switch {
		case m.inside:
			c.text(x+6, mid+4, "on", m.label, "")
		case m.left:
			c.text(x-8, mid+4, label+" e", m.label, "")
		default:
			c.text(to+5, mid+4, label, m.label, "")
		}
		c.b.WriteString("</g>\n")
	}
	height := float64(l.rows) * rowHeight
	if l.note != "" {
		height = max(height, 34)
	}
	if l.hidden > 0 {
		c.text(plotLeft, y+height+10, "d", fmt.Sprintf("and %d more", l.hidden), "")
		height += 16
	}
	return y + height
}

// ticks draws the axis above the lanes.
func (d *drawing) ticks(top, bottom float64) {
	step := math.Pow(10, math.Floor(math.Log10(d.length.Seconds())))
	for _, n := range []float64{0.1, 0.2, 0.5, 1} {
		if d.length.Seconds()/(step*n) <= 9 {
			step *= n
			break
		}
	}
	for i := 0; float64(i)*step <= d.length.Seconds()*1.0001; i++ {
		t := time.Duration(float64(i) * step * float64(time.Second))
		x := d.at(t)
		d.line(x, top, x, bottom, "grid")
		class := "d m"
		switch {
		case i == 0:
			class = "d"
		case x > plotRight-24:
			class = "d e"
		}
		d.text(x, top-6, class, span(t), "")
	}
	d.text(margin, top-6, "d", "since the first sign", "")
}

// told lists what the API server says: its clock is too coarse for the axis.
func (d *drawing) told(stages []v1alpha1.Stage) {
	if len(stages) == 0 {
		return
	}
	d.text(margin, d.y+4, "b", "The API server says", "")
	coarse := slices.ContainsFunc(stages, func(s v1alpha1.Stage) bool { return s.Precision != nil })
	if coarse {
		d.text(margin, d.y+19, "d", "to the second at best", "")
	}
	column := (plotRight - plotLeft) / 2
	shown := min(len(stages), maxTold)
	rows := (shown + 1) / 2
	for i, s := range stages[:shown] {
		x, y := plotLeft+float64(i/rows)*column, d.y+4+float64(i%rows)*18
		line := s.Action
		if s.Container != "" {
			line += " " + s.Container
		}
		if length := duration(s.Duration); length > 0 {
			line += ", " + seconds(length)
		}
		sign := "+"
		if s.Offset.Duration < 0 {
			sign = "−"
		}
		d.text(x+58, y, "d e", sign+seconds(s.Offset.Abs()), "")
		d.rect(x+68, y-8, 8, 8, 2, class(s.Actor))
		d.text(x+82, y, "x", cut(s.Actor+": "+line, 52), s.Actor+": "+line+" "+s.Details)
	}
	d.y += float64(max(rows, 2))*18 + 4
	if more := len(stages) - shown; more > 0 {
		d.text(plotLeft, d.y, "d", fmt.Sprintf("and %d more", more), "")
		d.y += 16
	}
}

// bottom tells who made the calls, which, and what came of them.
func (d *drawing) bottom() {
	type bar struct {
		name  string
		count int64
		kind  string
	}
	var roles, calls []bar
	for _, r := range d.spec.Roles {
		name := r.Role
		if r.Container != "" {
			name += " · " + r.Container
		}
		roles = append(roles, bar{name, r.Syscalls, "runtime"})
	}
	for _, s := range d.spec.SyscallTimeline {
		calls = append(calls, bar{s.Name, s.Count, "kernel"})
	}
	half := (plotRight - margin - 40) / 2
	start, deepest := d.y+6, d.y
	place := 0
	for _, part := range []struct {
		title string
		bars  []bar
	}{{"Who made the syscalls", roles}, {"Which they were", calls}} {
		if len(part.bars) == 0 {
			continue
		}
		x, y := margin+float64(place)*(half+40), start
		place++
		slices.SortStableFunc(part.bars, func(a, b bar) int { return int(max(-1, min(1, b.count-a.count))) })
		d.line(x, y, x+half, y, "rule")
		d.text(x, y+20, "b", part.title, "")
		y += 30
		most := float64(max(1, part.bars[0].count))
		for _, b := range part.bars[:min(len(part.bars), maxBars)] {
			d.text(x, y+11, "x", cut(b.name, 26), b.name)
			d.rect(x+176, y+2, max(1, (half-176-56)*max(0, float64(b.count))/most), 11, 2, b.kind)
			d.text(x+half, y+11, "e", number(b.count), "")
			y += 18
		}
		if more := len(part.bars) - maxBars; more > 0 {
			rest := int64(0)
			for _, b := range part.bars[maxBars:] {
				rest += b.count
			}
			d.text(x, y+11, "d", fmt.Sprintf("%d more", more), "")
			d.text(x+half, y+11, "d e", number(rest), "")
			y += 18
		}
		deepest = max(deepest, y)
	}
	d.y = deepest + 10
	d.facts()
}

func (d *drawing) facts() {
	var lines [][2]string
	var kinds []string
	for _, n := range d.spec.Namespaces {
		var did []string
		if n.Created > 0 {
			did = append(did, fmt.Sprintf("%d made", n.Created))
		}
		if n.Entered > 0 {
			did = append(did, fmt.Sprintf("%d entered", n.Entered))
		}
		if len(did) > 0 {
			kinds = append(kinds, n.Kind+" "+strings.Join(did, ", "))
		}
	}
	if len(kinds) > 0 {
		lines = append(lines, [2]string{"Namespaces", strings.Join(kinds, " · ")})
	}
	if n := d.spec.Network; n != nil {
		parts := slices.Concat(n.Interfaces, n.Addresses, n.Routes)
		if n.FirewallRules != nil {
			parts = append(parts, fmt.Sprintf("%d firewall rules", *n.FirewallRules))
		}
		if len(parts) > 0 {
			lines = append(lines, [2]string{"Network", strings.Join(parts, " · ")})
		}
	}
	if s := d.spec.SharedWork; s != nil && s.Syscalls > 0 {
		text := number(s.Syscalls) + " syscalls of daemons meanwhile, in no total above"
		if s.Births != nil && *s.Births > 1 {
			text += fmt.Sprintf(", shared by %d births", *s.Births)
		}
		lines = append(lines, [2]string{"Shared work", text})
	}
	if len(lines) == 0 {
		return
	}
	d.line(margin, d.y, plotRight, d.y, "rule")
	d.y += 20
	for _, l := range lines {
		d.text(margin, d.y, "b", l[0], "")
		for i, line := range wrap(l[1], 112, 3) {
			if i > 0 {
				d.y += 17
			}
			d.text(plotLeft-40, d.y, "x", line, "")
		}
		d.y += 21
	}
}

// description says in words what the picture shows.
func description(spec *v1alpha1.PodBirthCertificateSpec) string {
	var lines []string
	if len(spec.Insights) > 0 {
		lines = append(lines, spec.Insights[:min(len(spec.Insights), 16)]...)
	} else {
		lines = append(lines, fmt.Sprintf("Born in %s with %d syscalls, %d namespace operations, %d cgroup writes",
			span(spec.Duration.Duration), spec.TotalSyscalls, spec.NamespaceOperations, spec.CgroupWrites))
	}
	for _, s := range spec.Stages[:min(len(spec.Stages), maxDesc)] {
		line := fmt.Sprintf("At %s %s: %s", span(s.Offset.Duration), s.Actor, s.Action)
		if s.Container != "" {
			line += " of " + s.Container
		}
		if length := duration(s.Duration); length > 0 {
			line += ", for " + span(length)
		}
		lines = append(lines, line)
	}
	for _, c := range spec.Containers[:min(len(spec.Containers), maxDesc)] {
		if at := offset(c.EntrypointOffset); at != nil {
			lines = append(lines, fmt.Sprintf("At %s container %s: entrypoint %s", span(*at), c.Name, c.Entrypoint))
		}
	}
	return strings.Join(lines, ".\n") + "."
}
