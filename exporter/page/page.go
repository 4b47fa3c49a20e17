// Package page is what a person sees at /: a table of the biggest liars.
package page

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

//go:embed page.html
var source string

// rows is how many containers the table shows.
const rows = 25

// Config is what the page tells beside the table.
type Config struct {
	Snapshot    func() *sampler.Snapshot
	MetricsPath string
	Version     string
	Node        string // empty: none
	Log         *slog.Logger
}

type view struct {
	Config
	At     time.Time
	Window time.Duration
	Total  int
	Rows   []liars.Row
	Probes []bpf.Status
}

// New returns the handler of / and of nothing below it.
func New(cfg Config) (http.Handler, error) {
	tmpl, err := template.New("page").Funcs(template.FuncMap{"cores": cores, "percent": percent}).Parse(source)
	if err != nil {
		return nil, fmt.Errorf("parsing the landing page: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		v := view{Config: cfg}
		if snap := cfg.Snapshot(); snap != nil {
			v.At, v.Window, v.Total, v.Probes = snap.At, snap.Window, len(snap.Containers), snap.Probes
			v.Rows = liars.Rank(snap, rows)
		}
		var body bytes.Buffer
		if err := tmpl.Execute(&body, v); err != nil {
			cfg.Log.Error("Can't render the landing page.", "err", err)
			http.Error(w, "the page can't be rendered; the log says why", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(body.Bytes()) // the client has gone: nobody to tell
	}), nil
}

// cores and percent leave a cell empty where nothing was measured.
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
