package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// parse reads one JSON value into map[string]any, []any, string, json.Number,
// bool and nil. Unlike encoding/json it refuses what readers disagree about:
// a key given twice, bytes that are no UTF-8; and keys match by case.
func parse(body []byte) (any, error) {
	if !utf8.Valid(body) {
		return nil, &signal.InvalidError{Problem: "the body is not UTF-8"}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		problem := "the body is not JSON: " + err.Error()
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			problem += fmt.Sprintf(" (at byte %d)", syntax.Offset)
		}
		return nil, &signal.InvalidError{Problem: problem}
	}
	decoder := json.NewDecoder(bytes.NewReader(whole))
	decoder.UseNumber()
	return value(decoder, 0)
}

func value(decoder *json.Decoder, depth int) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, &signal.InvalidError{Problem: "the body is not JSON: " + err.Error()}
	}
	if _, nested := token.(json.Delim); nested && depth == MaxDepth {
		return nil, &signal.InvalidError{Problem: fmt.Sprintf("nested more than %d deep", MaxDepth)}
	}
	switch token {
	case json.Delim('{'):
		fields := map[string]any{}
		for decoder.More() {
			token, err := decoder.Token()
			if err != nil {
				return nil, &signal.InvalidError{Problem: "the body is not JSON: " + err.Error()}
			}
			key := token.(string)
			if _, ok := fields[key]; ok {
				return nil, at(key, &signal.InvalidError{Problem: "is given twice"})
			}
			if fields[key], err = value(decoder, depth+1); err != nil {
				return nil, at(key, err)
			}
		}
		_, err = decoder.Token()
		return fields, err
	case json.Delim('['):
		items := []any{}
		for decoder.More() {
			item, err := value(decoder, depth+1)
			if err != nil {
				return nil, at(index(len(items)), err)
			}
			items = append(items, item)
		}
		_, err = decoder.Token()
		return items, err
	}
	return token, nil
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// at puts the place in front of the field that err names. Paths are put
// together only for errors: a long key with many values beneath costs nothing.
func at(place string, err error) error {
	var invalid *signal.InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	const most = 64
	field := invalid.Field
	switch {
	case len(field) > 2*most:
		if !strings.HasPrefix(field, "…") {
			field = "…" + field
		}
		return &signal.InvalidError{Field: field, Problem: invalid.Problem}
	case len(place) > most:
		place = strings.ToValidUTF8(place[:most], "") + "…"
	}
	if field != "" && !strings.HasPrefix(field, "[") {
		place += "."
	}
	return &signal.InvalidError{Field: place + field, Problem: invalid.Problem}
}

// object reads fields and keeps the first fault. A null is as good as absent.
type object struct {
	fields map[string]any
	err    error
}

func newObject(v any) (*object, error) {
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, &signal.InvalidError{Problem: "want an object, got " + kind(v)}
	}
	return &object{fields: fields}, nil
}

func (o *object) fail(name, format string, args ...any) {
	if o.err == nil {
		o.err = &signal.InvalidError{Field: name, Problem: fmt.Sprintf(format, args...)}
	}
}

func (o *object) failAt(place string, err error) {
	if o.err == nil && err != nil {
		o.err = at(place, err)
	}
}

func (o *object) text(name string) string {
	switch v := o.fields[name].(type) {
	case nil:
	case string:
		return v
	default:
		o.fail(name, "want a string, got %s", kind(v))
	}
	return ""
}

func (o *object) flag(name string) bool {
	switch v := o.fields[name].(type) {
	case nil:
	case bool:
		return v
	default:
		o.fail(name, "want true or false, got %s", kind(v))
	}
	return false
}

// number is nil when absent.
func (o *object) number(name string) *float64 {
	switch v := o.fields[name].(type) {
	case nil:
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			o.fail(name, "%.40s is out of range", v)
			return nil
		}
		return &f
	default:
		o.fail(name, "want a number, got %s", kind(v))
	}
	return nil
}

// count is a whole number from 0 to 2^63-1, nil when absent. 3.0 and 3e0 count as 3.
func (o *object) count(name string) *uint64 {
	number, ok := o.fields[name].(json.Number)
	if ok {
		if n, err := strconv.ParseUint(number.String(), 10, 63); err == nil {
			return &n
		}
	}
	f := o.number(name)
	if f == nil {
		return nil
	}
	if *f < 0 || *f != math.Trunc(*f) || *f >= 1<<63 {
		o.fail(name, "want a whole number from 0 to %d, got %.40s", int64(math.MaxInt64), number)
		return nil
	}
	n := uint64(*f)
	return &n
}

func (o *object) requiredNumber(name string) float64 {
	if f := o.number(name); f != nil {
		return *f
	}
	o.fail(name, "is required, as a number")
	return 0
}

func (o *object) requiredCount(name string) uint64 {
	if n := o.count(name); n != nil {
		return *n
	}
	o.fail(name, "is required, as a whole number")
	return 0
}

func (o *object) timestamp(name string) time.Time {
	text := o.text(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		o.fail(name, "%.40q is not a time; want RFC 3339, e.g. 2025-08-25T11:00:00Z", text)
	}
	return t
}

func (o *object) list(name string) []any {
	switch v := o.fields[name].(type) {
	case nil:
	case []any:
		return v
	default:
		o.fail(name, "want an array, got %s", kind(v))
	}
	return nil
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "an array"
	}
	return "an object"
}
