package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// bounds are what one client can make the exporter hold: a request that does not
// come, an answer that is not taken, and headers.
type bounds struct {
	header, request, answer, idle time.Duration
	headerBytes                   int
}

const (
	// maxScrapes are answered at a time; one more gets 503.
	maxScrapes = 40
	pprofPath  = "/debug/pprof/"
)

func defaultBounds() bounds {
	return bounds{header: 5 * time.Second, request: 15 * time.Second, answer: 30 * time.Second, idle: 2 * time.Minute, headerBytes: 16 << 10}
}

// newServer serves handler within bounds. A live view sets deadlines of its own, and
// a profile takes as long as it was asked to.
func newServer(handler http.Handler, b bounds, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			if r.Body == http.NoBody {
				// The request is here. A deadline left behind would end a live view.
				_ = control.SetReadDeadline(time.Time{})
			}
			answered := time.Now().Add(b.answer)
			if strings.HasPrefix(r.URL.Path, pprofPath) {
				answered = time.Time{}
			}
			_ = control.SetWriteDeadline(answered)
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: b.header, ReadTimeout: b.request, IdleTimeout: b.idle, MaxHeaderBytes: b.headerBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// scrapeErrors logs what goes wrong in a scrape. A client that goes away or does not
// read is told of at debug: the handler repeats it for each metric that is left.
type scrapeErrors struct{ log *slog.Logger }

var _ promhttp.Logger = scrapeErrors{}

func (l scrapeErrors) Println(v ...any) {
	message := strings.TrimSpace(fmt.Sprintln(v...))
	for _, part := range v {
		var gone *net.OpError
		if err, ok := part.(error); ok && errors.As(err, &gone) {
			l.log.Debug("A scrape was not taken.", "err", message)
			return
		}
	}
	l.log.Error("A scrape is not whole.", "err", message)
}
