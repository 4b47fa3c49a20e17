// Package markdown makes tables for the documentation from what the code declares,
// and holds a document to them.
package markdown

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// Table is a header and rows of cells.
func Table(header []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, cells := range rows {
		line(cells)
	}
	return b.String()
}

// Flags is the table of an application's flags; a command's flags carry its name.
func Flags(app *kingpin.ApplicationModel) string {
	var rows [][]string
	add := func(command string, flags []*kingpin.FlagModel) {
		for _, f := range flags {
			if f.Hidden || f.Name == "help" || f.Name == "version" {
				continue
			}
			var defaults []string
			if f.Envar != "" {
				defaults = append(defaults, "`$"+f.Envar+"`")
			}
			if len(f.Default) > 0 && f.Default[0] != "" {
				defaults = append(defaults, "`"+strings.Join(f.Default, ",")+"`")
			}
			def := "–"
			if len(defaults) > 0 {
				def = strings.Join(defaults, ", else ")
			}
			rows = append(rows, []string{"`" + command + "--" + f.Name + "`", def, Cell(f.Help)})
		}
	}
	add("", app.Flags)
	for _, c := range app.Commands {
		if !c.Hidden {
			add(c.Name+" ", c.Flags)
		}
	}
	return Table([]string{"flag", "default", "what it does"}, rows)
}

// Cell keeps text from breaking out of a table.
func Cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}

// Section returns the text between the lines <!-- name --> and <!-- /name --> of a
// document.
func Section(document, name string) (string, error) {
	_, section, _, err := cut(document, name)
	return section, err
}

// Update writes text into a section of a file, if it is not there already.
func Update(path, name, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, old, after, err := cut(string(b), name)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if old == text {
		return nil
	}
	return os.WriteFile(path, []byte(before+text+after), 0o644)
}

func cut(document, name string) (before, section, after string, err error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	before, rest, ok := strings.Cut(document, begin)
	if ok {
		section, after, ok = strings.Cut(rest, end)
	}
	if !ok {
		return "", "", "", fmt.Errorf("has no section between %q and %q", strings.TrimSpace(begin), end)
	}
	return before + begin, section, end + after, nil
}
