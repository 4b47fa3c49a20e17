// Package bridge carries what `px run -o json` prints to the operator's webhook.
//
// A line is one row: the columns of a table that the script displays, and
// "_tableName_" with the table's name (pixie_cli/pkg/components/table_renderer.go),
// which is the event's type. time_ is a time, pod is "namespace/pod", the other
// columns are the event's fields. px prints strings that read as numbers as numbers
// (pixie_cli/pkg/vizier/stream_adapter.go), and so a container called 1 as 1.
package bridge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	// MaxLine bounds a row.
	MaxLine = 1 << 20
	// Batch is how many rows go in one request.
	Batch = 100
)

// Config of a bridge.
type Config struct {
	// URL is the operator's, without the path.
	URL string
	// Token, when set, goes along as a bearer token.
	Token string
	// StateFile, when set, remembers the rows that arrived, so that the same rows
	// sent again, after a break or from windows that overlap, are skipped.
	StateFile string
	// Patience is how long a batch is tried. 0 is for ever.
	Patience time.Duration
	Client   *http.Client
	Logger   *slog.Logger
	// Wait is slept between tries. Default: as long as asked, ended by ctx.
	Wait func(ctx context.Context, d time.Duration) error
}

// Result counts rows.
type Result struct {
	Sent, Skipped, Invalid, Refused int
}

// Bridge reads rows and sends them.
type Bridge struct {
	config Config
	target string
	state  state
}

// state is, by table, subject and columns, the latest times that arrived, in their order.
type state map[string][]time.Time

// remembered is how many times are kept: far more than windows overlap by.
const remembered = 64

func (s state) has(r row) bool {
	times := s[r.key]
	_, found := slices.BinarySearchFunc(times, r.time, time.Time.Compare)
	return found || len(times) == remembered && r.time.Before(times[0])
}

func (s state) add(r row) {
	times := s[r.key]
	at, found := slices.BinarySearchFunc(times, r.time, time.Time.Compare)
	if found {
		return
	}
	times = slices.Insert(times, at, r.time)
	s[r.key] = times[max(0, len(times)-remembered):]
}

// New checks the configuration and reads the state file; one that is missing is empty.
func New(c Config) (*Bridge, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("the operator's URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the operator's URL %q: want http://host:port or https://host:port", u.Redacted())
	}
	if c.Client == nil {
		c.Client = &http.Client{Timeout: 30 * time.Second}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Wait == nil {
		c.Wait = sleep
	}
	b := &Bridge{config: c, target: u.JoinPath("webhook", "pixie").String(), state: state{}}
	if c.StateFile == "" {
		return b, nil
	}
	content, err := os.ReadFile(c.StateFile)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the state: %w", err)
	}
	if err := json.Unmarshal(content, &b.state); err != nil {
		return nil, fmt.Errorf("reading the state %s: %w: delete it to send everything again", c.StateFile, err)
	}
	return b, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// row is one event on its way.
type row struct {
	line  int
	key   string
	time  time.Time
	event map[string]any
}

// Run sends rows until r ends. A row that can't be read is counted and logged; an
// operator that can't be reached for longer than Patience is an error.
func (b *Bridge) Run(ctx context.Context, r io.Reader) (Result, error) {
	var result Result
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), MaxLine)
	var batch []row
	flush := func() error {
		err := b.send(ctx, batch, &result)
		batch = batch[:0]
		return err
	}
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		next, err := read(line)
		if err != nil {
			result.Invalid++
			b.config.Logger.Warn("can't read a row", "line", n, "err", err)
			continue
		}
		next.line = n
		if b.state.has(next) {
			result.Skipped++
			continue
		}
		if batch = append(batch, next); len(batch) == Batch {
			if err := flush(); err != nil {
				return result, err
			}
		}
	}
	if err := flush(); err != nil {
		return result, err
	}
	if err := lines.Err(); err != nil {
		return result, fmt.Errorf("reading rows: %w", err)
	}
	return result, nil
}

// read turns a line into an event. Errors are *signal.InvalidError or of JSON.
func read(line []byte) (row, error) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var columns map[string]any
	if err := decoder.Decode(&columns); err != nil {
		return row{}, fmt.Errorf("want one JSON object a line: %w", err)
	}
	if columns == nil {
		return row{}, &signal.InvalidError{Problem: "want one JSON object a line, got null"}
	}
	field := func(name string) string {
		switch v := columns[name].(type) {
		case string:
			return v
		case json.Number:
			return v.String()
		}
		return ""
	}
	kind, pod, container := field("_tableName_"), field("pod"), field("container")
	if kind == "" {
		return row{}, &signal.InvalidError{Field: "_tableName_", Problem: "is required; px run -o json gives it"}
	}
	at, err := time.Parse(time.RFC3339, field("time_"))
	if err != nil {
		return row{}, &signal.InvalidError{Field: "time_", Problem: "want a time as px prints it, e.g. 2026-03-01T12:00:00.123Z"}
	}
	namespace, name, slashed := strings.Cut(pod, "/")
	if !slashed {
		return row{}, &signal.InvalidError{Field: "pod", Problem: fmt.Sprintf("want namespace/pod, got %.80q", pod)}
	}
	event := map[string]any{
		"type": kind, "namespace": namespace, "pod_name": name, "timestamp": at.UTC().Format(time.RFC3339Nano), "once": true,
	}
	if container != "" {
		event["container_name"] = container
	}
	if node := field("node"); node != "" {
		event["node_name"] = node
	}
	for column, v := range columns {
		number, isNumber := v.(json.Number)
		switch column {
		case "_tableName_", "time_", "pod", "container", "node":
			continue
		}
		if isNumber {
			event[column] = number
		}
	}
	if kind == wire.TypeSecurityEvent {
		event = security(event)
	}
	return row{key: strings.Join([]string{kind, pod, container, evidenceOf(event)}, " "), time: at, event: event}, nil
}

// security names the event: its one number's.
func security(event map[string]any) map[string]any {
	for _, column := range slices.Sorted(maps.Keys(event)) {
		if n, isNumber := event[column].(json.Number); isNumber {
			delete(event, column)
			event["event"], event["count"] = column, n
			break
		}
	}
	return event
}

// evidenceOf tells the rows of one script from another's of the same subject.
func evidenceOf(event map[string]any) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(event)) {
		if _, isNumber := event[name].(json.Number); isNumber {
			names = append(names, name)
		}
	}
	if name, named := event["event"].(string); named {
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

// send sends a batch, and remembers it. A batch that the operator refuses for one
// row's sake is sent row by row.
func (b *Bridge) send(ctx context.Context, batch []row, result *Result) error {
	if len(batch) == 0 {
		return nil
	}
	refused, err := b.post(ctx, batch)
	switch {
	case err != nil:
		return err
	case refused != nil && len(batch) > 1:
		for i := range batch {
			if err := b.send(ctx, batch[i:i+1], result); err != nil {
				return err
			}
		}
		return nil
	case refused != nil:
		result.Refused++
		b.config.Logger.Warn("the operator refuses a row for good", "line", batch[0].line, "err", refused)
	default:
		result.Sent += len(batch)
	}
	for _, r := range batch {
		b.state.add(r)
	}
	return b.save()
}

// post returns why the operator refuses the batch for good, or why it can't be reached.
func (b *Bridge) post(ctx context.Context, batch []row) (refused, err error) {
	events := make([]map[string]any, len(batch))
	for i, r := range batch {
		events[i] = r.event
	}
	body, err := json.Marshal(events)
	if err != nil {
		return nil, fmt.Errorf("encoding rows: %w", err)
	}
	began := time.Now()
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
		var after time.Duration
		var again error
		refused, after, again = b.try(ctx, body)
		if again == nil {
			return refused, nil
		}
		if _, hopeless := errors.AsType[*hopelessError](again); hopeless {
			return nil, again
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("sending to %s: %w", b.target, ctx.Err())
		}
		pause := max(after, wait/2+rand.N(wait))
		if b.config.Patience > 0 && time.Since(began)+pause > b.config.Patience {
			return nil, fmt.Errorf("gave up after %s: %w", b.config.Patience, again)
		}
		b.config.Logger.Info("trying again", "in", pause.Round(time.Millisecond), "err", again)
		if err := b.config.Wait(ctx, pause); err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", b.target, err)
		}
	}
}

// hopelessError is an answer that no row will change: a wrong token or address.
type hopelessError struct{ error }

// try sends once. again is worth another try, after a while.
func (b *Bridge) try(ctx context.Context, body []byte) (refused error, after time.Duration, again error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.target, bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if b.config.Token != "" {
		req.Header.Set("Authorization", "Bearer "+b.config.Token)
	}
	resp, err := b.config.Client.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("sending rows: %w", err)
	}
	defer resp.Body.Close()
	var answer struct{ Message, Field string }
	content, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, 0, fmt.Errorf("reading the answer: %w", err)
	}
	if json.Unmarshal(content, &answer) != nil {
		answer.Message = fmt.Sprintf("%.200q", content)
	}
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil, 0, nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity, code == http.StatusTooManyRequests:
		return fmt.Errorf("%s: %s", resp.Status, answer.Message), 0, nil
	case code/100 == 4 && code != http.StatusRequestTimeout:
		return nil, 0, &hopelessError{fmt.Errorf("%s answers %s: %s", b.target, resp.Status, answer.Message)}
	default:
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			after = min(time.Duration(seconds)*time.Second, time.Minute)
		}
		return nil, after, fmt.Errorf("%s answers %s: %s", b.target, resp.Status, answer.Message)
	}
}

// save makes the state last: it is as it was before, or as it is after.
func (b *Bridge) save() error {
	path := b.config.StateFile
	if path == "" {
		return nil
	}
	content, err := json.Marshal(b.state)
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the state: %w", err), os.Remove(f.Name()))
	}
	return nil
}
