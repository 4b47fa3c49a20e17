// Package page is what a person sees at /: the node's containers by gap, and behind
// each row the evidence. Both are whole without a script; with one, the same
// address asked for text/event-stream sends the part that changes again and again,
// rendered by the same templates.
package page

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

//go:embed *.html page.css page.js
var files embed.FS

// policy lets the page load its own style sheet and script, and talk to its own
// server: nothing inline, nothing from elsewhere, no frame around it.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Config is what the page tells of, and beside it.
type Config struct {
	Snapshot    func() *sampler.Snapshot
	MetricsPath string
	Version     string
	Node        string // empty: none
	CgroupMount string // where the cpu controller's hierarchy is mounted
	Log         *slog.Logger
}

// Page serves / and /container, and what these need.
type Page struct {
	Config
	ctx    context.Context // of the server: live views end with it
	tmpl   *template.Template
	trail  *trail
	places chan struct{}
	every  time.Duration
	mux    *http.ServeMux
}

// New makes the page. Live views end with ctx.
func New(ctx context.Context, cfg Config) (*Page, error) {
	cfg.MetricsPath = strings.TrimPrefix(cfg.MetricsPath, "/") // relative, for who serves the page below a path
	p := &Page{Config: cfg, ctx: ctx, trail: newTrail(), places: make(chan struct{}, maxStreams), every: streamEvery}
	var err error
	p.tmpl, err = template.New("").Funcs(template.FuncMap{"cores": cores, "percent": percent, "short": liars.Short}).ParseFS(files, "*.html")
	if err != nil {
		return nil, fmt.Errorf("parsing the landing page: %w", err)
	}
	p.mux = http.NewServeMux()
	p.mux.HandleFunc("GET /{$}", p.serveList)
	p.mux.HandleFunc("GET /container", p.serveContainer)
	for _, name := range []string{"page.css", "page.js"} {
		p.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, name) })
	}
	return p, nil
}

// Observe takes in a sample, for the sparklines. It is to be called with each.
func (p *Page) Observe(snap *sampler.Snapshot) { p.trail.observe(snap) }

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	p.mux.ServeHTTP(w, r)
}

func (p *Page) serveList(w http.ResponseWriter, r *http.Request) {
	query := parseQuery(r.URL.Query())
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Vary", "Accept")
		p.serveJSON(w)
		return
	}
	p.serve(w, r, "list", func() (any, bool) { return p.list(query), true })
}

// serveJSON serves all rows, the biggest liar first, as top --url reads them.
func (p *Page) serveJSON(w http.ResponseWriter) {
	ranking := liars.Of(p.Snapshot())
	if ranking == nil {
		http.Error(w, "nothing has been sampled yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(ranking); err != nil {
		p.Log.Debug("A viewer went away.", "err", err)
	}
}

func (p *Page) serveContainer(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	p.serve(w, r, "container", func() (any, bool) { return p.container(q.Get("namespace"), q.Get("pod"), q.Get("container")) })
}

// serve renders a whole page, or its changing part as a stream. view's second result
// is false when there is no such container; the page says so.
func (p *Page) serve(w http.ResponseWriter, r *http.Request, name string, view func() (any, bool)) {
	w.Header().Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		p.stream(w, r, func(body *bytes.Buffer) error {
			v, _ := view()
			return p.tmpl.ExecuteTemplate(body, name, v)
		})
		return
	}
	v, found := view()
	var body bytes.Buffer
	if err := p.tmpl.ExecuteTemplate(&body, name+".html", v); err != nil {
		p.Log.Error("Can't render the landing page.", "err", err)
		http.Error(w, "the page can't be rendered; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if !found {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = w.Write(body.Bytes()) // the client has gone: nobody to tell
}

// cores and percent show a dash where nothing was measured.
func cores(f *float64) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", *f)
}

func percent(f *float64) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", *f*100)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }
