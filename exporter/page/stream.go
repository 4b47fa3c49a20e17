package page

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	// maxStreams is how many viewers are served live at a time; each costs a rendering
	// every streamEvery. One more gets 503 and a page that reloads itself instead.
	maxStreams = 16
	// streamEvery is the least time between two pictures of one viewer.
	streamEvery = 2 * time.Second
	// streamPatience is how long a viewer may take to receive a picture before its place is given away.
	streamPatience = 10 * time.Second
)

// stream sends what render gives as server-sent events, at the samples' pace, until
// the viewer or the exporter goes.
func (p *Page) stream(w http.ResponseWriter, r *http.Request, render func(*bytes.Buffer) error) {
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d viewers are served live already; the page reloads itself instead", cap(p.places)), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the events back
	control := http.NewResponseController(w)
	var body, event bytes.Buffer
	for {
		next := p.trail.next()
		body.Reset()
		if err := render(&body); err != nil {
			p.Log.Error("Can't render the landing page.", "err", err)
			return
		}
		event.Reset()
		writeEvent(&event, "view", body.String())
		// Without support for deadlines the connection's own end has to do.
		_ = control.SetWriteDeadline(time.Now().Add(streamPatience))
		if _, err := w.Write(event.Bytes()); err != nil {
			return // the viewer has gone: nobody to tell
		}
		if err := control.Flush(); err != nil {
			return
		}
		if !wait(r.Context(), p.ctx, time.After(p.every), next) {
			return
		}
	}
}

// wait ends with true when both channels have told, with false when a context ended.
func wait(viewer, server context.Context, pause <-chan time.Time, next <-chan struct{}) bool {
	for pause != nil || next != nil {
		select {
		case <-viewer.Done():
			return false
		case <-server.Done():
			return false
		case <-pause:
			pause = nil
		case <-next:
			next = nil
		}
	}
	return true
}

// writeEvent writes one event as the HTML standard's "server-sent events" has it: CR,
// LF and CRLF all end a line, and data of several lines takes a field each. A name
// of a cgroup may hold any of them.
func writeEvent(out *bytes.Buffer, name, data string) {
	fmt.Fprintf(out, "event: %s\n", name)
	data = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)
	for line := range strings.SplitSeq(data, "\n") {
		out.WriteString("data: ")
		out.WriteString(line)
		out.WriteByte('\n')
	}
	out.WriteByte('\n')
}
