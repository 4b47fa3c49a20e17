// Package docs checks the repository's Markdown: that what it links to is there, and
// that the commands that it tells people to run exist.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = ".."

// pages are all Markdown files, by their path below the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", ".cache", "testdata", "node_modules"}, d.Name()) {
			return filepath.SkipDir
		}
		if !d.IsDir() && filepath.Ext(path) == ".md" {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			out[rel] = string(text)
		}
		return nil
	}))
	require.Contains(t, out, "README.md")
	return out
}

var (
	fence     = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")
	codeSpan  = regexp.MustCompile("`[^`\n]*`")
	inline    = regexp.MustCompile(`\]\(([^)\s]+)(?:\s+"[^"]*")?\)`)
	reference = regexp.MustCompile(`(?m)^ *\[[^\]]+\]: *(\S+)`)
	image     = regexp.MustCompile(`<img[^>]*\ssrc="([^"]+)"`)
	heading   = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
	numbered  = regexp.MustCompile(`\[(\d+)\]`)
)

// links are the targets in a page, code left out.
func links(text string) []string {
	text = codeSpan.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	var out []string
	for _, re := range []*regexp.Regexp{inline, reference, image} {
		for _, m := range re.FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// anchors are the fragments that GitHub makes of a page's headings: letters, digits,
// hyphens and underscores, in lower case, a space as a hyphen, doubles numbered.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		title := inline.ReplaceAllString(m[1], "]")
		slug := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, title)
		name := slug
		for n := 1; out[name]; n++ {
			name = slug + "-" + string(rune('0'+n))
		}
		out[name] = true
	}
	return out
}

func TestAnchors(t *testing.T) {
	text := "# A `b` & c's\n## What [x](y.md) does\n## Twice\n## Twice\n```\n# no heading\n```\n"
	assert.Equal(t, map[string]bool{"a-b--cs": true, "what-x-does": true, "twice": true, "twice-1": true}, anchors(text))
	assert.ElementsMatch(t, []string{"a.md#b", "c.png", "d"},
		links("[a](a.md#b) `[no](x)` <img width=1 src=\"c.png\">\n\n[1]: d\n```\n[no](y)\n```\n"))
}

func TestInternalLinks(t *testing.T) {
	all := pages(t)
	checked := 0
	for page, text := range all {
		for _, link := range links(text) {
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			checked++
			path, fragment, _ := strings.Cut(link, "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
				_, err := os.Stat(filepath.Join(root, target))
				assert.NoError(t, err, "%s links to %s", page, link)
			}
			if fragment != "" && filepath.Ext(target) == ".md" {
				assert.True(t, anchors(all[target])[fragment], "%s links to %s, and %s has no such heading", page, link, target)
			}
		}
		plain := codeSpan.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range numbered.FindAllStringSubmatch(plain, -1) {
			if strings.HasPrefix(page, "docs/") {
				assert.Contains(t, plain, "\n["+m[1]+"]: ", "%s cites [%s] and does not name it", page, m[1])
			}
		}
	}
	assert.Greater(t, checked, 50, "the pages link to each other")
}

// commands are the lines of a page's code blocks that are to be typed.
func commands(text string) []string {
	var out []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] != "" && m[1] != "sh" && m[1] != "bash" {
			continue
		}
		for line := range strings.Lines(m[2]) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			line = strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "sudo ")
			out = append(out, strings.TrimSpace(strings.TrimSuffix(line, "&")))
		}
	}
	return out
}

// flags are those in the README's tables, which are generated from the programs.
func flags(t *testing.T, readme, program string) []string {
	t.Helper()
	begin, end := "<!-- "+program+" flags -->", "<!-- /"+program+" flags -->"
	from, to := strings.Index(readme, begin), strings.Index(readme, end)
	require.True(t, 0 <= from && from < to, "the README has no table of the %s's flags", program)
	var out []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(readme[from:to], -1) {
		out = append(out, m[1])
	}
	return out
}

// Every command that a page tells people to run exists: make targets, flags, and files
// that are given to kubectl and docker.
func TestCommandsExist(t *testing.T) {
	all := pages(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	known := map[string][]string{}
	for _, program := range []string{"exporter", "operator"} {
		known[program] = append(flags(t, all["README.md"], program), "--help", "--version")
	}
	seen := map[string]int{}
	for page, text := range all {
		for _, command := range commands(text) {
			words := strings.Fields(command)
			if len(words) == 0 {
				continue
			}
			switch tool := filepath.Base(words[0]); tool {
			case "make":
				for _, target := range words[1:] {
					if !strings.Contains(target, "=") {
						assert.Contains(t, targets, target, "%s: %q", page, command)
						seen["make"]++
					}
				}
			case "kernel-gossip-exporter", "kernel-gossip-operator":
				checkFlags(t, page, command, known[strings.TrimPrefix(tool, "kernel-gossip-")], words[1:])
				seen[tool]++
			case "kubectl", "docker":
				if at := slices.Index(words, "--"); at > 0 {
					checkFlags(t, page, command, known["exporter"], words[at+2:])
					words = words[:at]
				}
				for i, w := range words[:len(words)-1] {
					if file := words[i+1]; (w == "-f" || w == "-k") && !strings.Contains(file, "://") && !regexp.MustCompile(`[A-Z-]{4}|^-`).MatchString(file) {
						_, err := os.Stat(filepath.Join(root, file))
						assert.NoError(t, err, "%s: %q", page, command)
						seen[tool]++
					}
				}
			}
		}
	}
	for _, tool := range []string{"make", "kernel-gossip-exporter", "kernel-gossip-operator", "kubectl", "docker"} {
		assert.Positive(t, seen[tool], "no page shows a command of %s: the test looks in the wrong place", tool)
	}
}

func checkFlags(t *testing.T, page, command string, known, words []string) {
	t.Helper()
	sub := ""
	for _, w := range words {
		name, _, _ := strings.Cut(w, "=")
		if !strings.HasPrefix(w, "-") {
			if sub == "" {
				sub = w + " "
			}
			continue
		}
		plain := "--" + strings.TrimPrefix(strings.TrimPrefix(name, "--"), "no-")
		assert.True(t, slices.Contains(known, name) || slices.Contains(known, plain) || slices.Contains(known, sub+name),
			"%s: %q: there is no flag %s", page, command, name)
	}
}

// What runs in the kernel is under both licences, in its own words: helpers marked
// gpl_only ask for it (kernel/bpf/verifier.c), and the section "license" tells the kernel.
func TestBPFLicences(t *testing.T) {
	for _, pattern := range []string{"bpf/*.bpf.c", "bpf/headers/*.h"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			head, _, _ := strings.Cut(string(text), "#include")
			assert.Contains(t, head, "SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause", file)
		}
	}
	for _, file := range []string{"LICENSE", "bpf/LICENSE.GPL-2.0", "bpf/LICENSE.BSD-2-Clause"} {
		assert.FileExists(t, filepath.Join(root, file))
	}
}

// The tests that a page tells of are there.
func TestNamedTestsExist(t *testing.T) {
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)\(`)
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			have[m[1]] = true
		}
		return err
	}))
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]+)`")
	checked := 0
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			checked++
			assert.True(t, have[m[1]], "%s tells of %s, which is no test", page, m[1])
		}
	}
	assert.Greater(t, checked, 20)
}
