package page

import (
	"math"
	"net/url"
	"slices"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
	"github.com/kernel-gossip/kernel-gossip/exporter/reported"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// maxLiars is how many of those that lie the verdict names.
const maxLiars = 3

// maxRows is how many containers the table shows unless all are asked for.
const maxRows = 50

// query is how the table is asked for.
type query struct {
	sort      string
	ascending bool
	all       bool
}

// parseQuery falls back to the default, by gap, where it is asked for what there is not.
func parseQuery(v url.Values) query {
	q := query{sort: liars.ByGap, all: v.Get("all") == "1"}
	if slices.ContainsFunc(liars.Columns(), func(c liars.Column) bool { return c.Key == v.Get("sort") }) {
		q.sort = v.Get("sort")
	}
	q.ascending = q.sort == liars.ByName
	switch v.Get("order") {
	case "asc":
		q.ascending = true
	case "desc":
		q.ascending = false
	}
	return q
}

func (q query) url() string {
	v := url.Values{"sort": {q.sort}, "order": {"desc"}}
	if q.ascending {
		v.Set("order", "asc")
	}
	if q.all {
		v.Set("all", "1")
	}
	return "./?" + v.Encode()
}

// heading is a column's link, which sorts by it or turns the order round.
type heading struct {
	liars.Column
	URL  string
	Sort string // aria-sort's value; empty when the table is sorted by another
}

func (q query) headings() []heading {
	var out []heading
	for _, c := range liars.Columns() {
		to := query{sort: c.Key, ascending: c.Key == liars.ByName, all: q.all}
		h := heading{Column: c}
		if c.Key == q.sort {
			to.ascending = !q.ascending
			h.Sort = "descending"
			if q.ascending {
				h.Sort = "ascending"
			}
		}
		h.URL = to.url()
		out = append(out, h)
	}
	return out
}

// row is a line of the table.
type row struct {
	liars.Row
	URL   string // of the evidence
	Chart chart
}

// common is what both pages tell of the sample.
type common struct {
	Config
	At        time.Time // zero before the first sample
	Window    string    // that ratios look back on
	Probes    []bpf.Status
	Emulated  bool // off-cluster: the reported figures are our own
	Unsampled bool
}

type listView struct {
	common
	Total    int
	Lying    int   // look healthy and are throttled
	Liars    []row // the first of them
	Rows     []row
	Headings []heading
	More     string // URL with all rows; empty when these are all
}

// Unnamed is how many lie beside those that are named.
func (v listView) Unnamed() int { return v.Lying - len(v.Liars) }

func (p *Page) common(snap *sampler.Snapshot) common {
	c := common{Config: p.Config, Unsampled: snap == nil}
	if snap != nil {
		c.At, c.Window, c.Probes = snap.At, seconds(snap.Window), snap.Probes
	}
	return c
}

func (p *Page) list(q query) listView {
	snap := p.Snapshot()
	v := listView{common: p.common(snap), Headings: q.headings()}
	ranked := liars.Rank(snap, math.MaxInt)
	if len(ranked) == 0 {
		return v
	}
	type name struct{ namespace, pod, container string }
	found := make(map[name]*sampler.Container, len(snap.Containers))
	for i := range snap.Containers {
		c := &snap.Containers[i]
		found[name{c.Namespace, c.Pod, c.Container}] = c
	}
	v.Lying = liars.Count(ranked, (*liars.Row).Lying)
	for _, r := range ranked {
		if r.Lying() && len(v.Liars) < maxLiars {
			v.Liars = append(v.Liars, row{Row: r, URL: evidenceURL(found[name{r.Namespace, r.Pod, r.Container}])})
		}
	}
	liars.Sort(ranked, q.sort, q.ascending)
	for _, r := range ranked {
		c := found[name{r.Namespace, r.Pod, r.Container}]
		v.Emulated = v.Emulated || r.Source == reported.SourceEmulation
		v.Rows = append(v.Rows, row{
			Row: r, URL: evidenceURL(c),
			Chart: draw(p.trail.of(c.Group.ID), r.Limit),
		})
	}
	v.Total = len(v.Rows)
	if v.Total > maxRows && !q.all {
		v.Rows = v.Rows[:maxRows]
		q.all = true
		v.More = q.url()
	}
	return v
}

func evidenceURL(c *sampler.Container) string {
	v := url.Values{"container": {c.Container}}
	if c.Pod != "" {
		v.Set("namespace", c.Namespace)
		v.Set("pod", c.Pod)
	}
	return "container?" + v.Encode()
}
