package check

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed pixie.yaml
var pixieYAML []byte

// Columns are a table's, by name, with their types as pixie.yaml names them.
type Columns map[string]string

// Facts are what Pixie has.
type Facts struct {
	Version    string              `json:"version"`
	Sources    map[string]string   `json:"sources"`
	Tables     map[string]Columns  `json:"tables"`
	Ctx        map[string][]string `json:"ctx"`
	CtxTypes   map[string]string   `json:"ctx_types"`
	Functions  map[string]scalar   `json:"functions"`
	Aggregates map[string]string   `json:"aggregates"`
	Objects    map[string]string   `json:"objects"`
	Constants  []string            `json:"constants"`
	Instead    map[string]string   `json:"instead"`
}

type scalar struct {
	Args    arity  `json:"args"`
	Returns string `json:"returns"`
}

// arity is how many arguments there may be.
type arity struct{ least, most int }

func (a *arity) UnmarshalJSON(b []byte) error {
	least, most, ranged := strings.Cut(strings.Trim(string(b), `"`), "-")
	if !ranged {
		most = least
	}
	var err error
	if a.least, err = strconv.Atoi(least); err != nil {
		return fmt.Errorf("args %s: %w", b, err)
	}
	if a.most, err = strconv.Atoi(most); err != nil {
		return fmt.Errorf("args %s: %w", b, err)
	}
	return nil
}

func (a arity) String() string {
	if a.least == a.most {
		return strconv.Itoa(a.least)
	}
	return fmt.Sprintf("%d to %d", a.least, a.most)
}

// signature splits "a b | c": required and optional arguments.
func signature(s string) (required, optional []string) {
	before, after, _ := strings.Cut(s, "|")
	return strings.Fields(before), strings.Fields(after)
}

// Pixie returns what Pixie has.
func Pixie() (*Facts, error) {
	f := &Facts{}
	if err := yaml.UnmarshalStrict(pixieYAML, f); err != nil {
		return nil, fmt.Errorf("reading pixie.yaml: %w", err)
	}
	return f, nil
}

// knows tells whether path is a module, e.g. px.otel.
func (f *Facts) module(path string) bool {
	has := func(full string) bool { return strings.HasPrefix(full, path+".") }
	for full := range f.Objects {
		if has(full) {
			return true
		}
	}
	return slices.ContainsFunc(f.Constants, has)
}

// ctx returns the type of df.ctx[key], or what is wrong with it.
func (f *Facts) ctx(key string, columns Columns) (string, error) {
	for needs, keys := range f.Ctx {
		if !slices.Contains(keys, key) {
			continue
		}
		for column := range strings.SplitSeq(needs, " or ") {
			if _, has := columns[column]; has {
				if t, told := f.CtxTypes[key]; told {
					return t, nil
				}
				return "string", nil
			}
		}
		return "", fmt.Errorf("ctx[%q] needs a column %s, and the frame has none any more: take it before groupby", key, needs)
	}
	return "", fmt.Errorf("there is no ctx[%q]", key)
}
