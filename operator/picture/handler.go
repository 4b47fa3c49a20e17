package picture

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

// Path is where the handler is to be served.
const Path = "/birth/"

const (
	// listed certificates are the newest.
	listed = 500
	// drawn at once; a picture is one read of the store.
	drawnAtOnce = 8
	timeout     = 10 * time.Second
	// policy lets a picture style itself and do nothing else, wherever it is opened.
	policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)

// Source has the certificates.
type Source interface {
	// Birth returns nil where there is none.
	Birth(ctx context.Context, namespace, pod string) (*v1alpha1.PodBirthCertificate, error)
	// Births lists some, in any order.
	Births(ctx context.Context) ([]store.BirthEntry, error)
}

//go:embed list.html
var listPage string

// Options of the handler.
type Options struct {
	Logger *slog.Logger
	// Auth, when set, is asked with the request's Authorization before anything is read.
	Auth interface {
		Check(authorization string) error
	}
}

// Handler serves the list at /birth/ and the pictures at /birth/<namespace>/<pod>.
func Handler(source Source, opts Options) http.Handler {
	h := &handler{
		source: source, Options: opts, places: make(chan struct{}, drawnAtOnce),
		index: template.Must(template.New("").Parse(listPage)),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path+"{$}", h.list)
	mux.HandleFunc("GET "+Path+"{namespace}/{pod}", h.picture)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		if h.Auth != nil {
			if err := h.Auth.Check(r.Header.Get("Authorization")); err != nil {
				header.Set("WWW-Authenticate", "Bearer")
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
		}
		select {
		case h.places <- struct{}{}:
			defer func() { <-h.places }()
		default:
			header.Set("Retry-After", "1")
			http.Error(w, "busy: try again", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		mux.ServeHTTP(w, r.WithContext(ctx))
	})
}

type handler struct {
	Options
	source Source
	places chan struct{}
	index  *template.Template
}

func (h *handler) picture(w http.ResponseWriter, r *http.Request) {
	namespace, pod := r.PathValue("namespace"), r.PathValue("pod")
	// Names that Kubernetes would not take name nothing here, and no file.
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(pod)) > 0 {
		http.Error(w, "want "+Path+"<namespace>/<pod>, with names as Kubernetes has them", http.StatusNotFound)
		return
	}
	b, err := h.source.Birth(r.Context(), namespace, pod)
	switch {
	case err != nil:
		h.fail(w, r, err)
	case b == nil:
		http.Error(w, fmt.Sprintf("no birth certificate of pod %s/%s: it was born before the exporter ran, or its certificate has been deleted. %s lists what is there",
			namespace, pod, Path), http.StatusNotFound)
	default:
		w.Header().Set("Content-Type", "image/svg+xml")
		_, _ = w.Write(SVG(b)) // the client may be gone
	}
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	all, err := h.source.Births(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	slices.SortFunc(all, func(a, b store.BirthEntry) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Pod, b.Pod))
	})
	var page bytes.Buffer
	if err := h.index.Execute(&page, struct {
		Total int
		Shown []store.BirthEntry
	}{len(all), all[:min(len(all), listed)]}); err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = page.WriteTo(w)
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if h.Logger != nil {
		h.Logger.WarnContext(r.Context(), "can't show a birth", "path", r.URL.Path, "err", err)
	}
	http.Error(w, "the store can't be read: try again; the operator's log has the reason", http.StatusServiceUnavailable)
}
