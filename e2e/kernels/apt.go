package kernels

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The suites that hold the kernels of the matrix; the newest comes from the backports.
var (
	mainSuites     = []string{"bookworm", "trixie-backports"}
	securitySuites = []string{"bullseye-security", "bookworm-security"}
)

const (
	keyring    = "/usr/share/keyrings/debian-archive-keyring.gpg"
	listMaxAge = 7 * 24 * time.Hour
)

// Apt fetches packages by name with apt, in a configuration of its own that
// neither reads nor changes what the machine has installed.
type Apt struct {
	dir  string // state, lists and configuration
	conf string
}

// Package is a version of a Debian package.
type Package struct {
	Name, Version string
	Depends       []string // names only, alternatives left out
}

// NewApt writes apt's configuration below dir and fetches the suites' package lists
// if they are older than a week or of another mirror. Of several mirrors it takes the
// first pair whose lists can be had and bear Debian's signature. Where none can and
// older lists are there, these serve, and progress is told. Proxies and credentials
// are those that this machine's apt has.
func NewApt(ctx context.Context, dir string, mirrors Mirrors, progress io.Writer) (*Apt, error) {
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("making apt's directory: %w", err)
		}
	}
	a := &Apt{dir: dir, conf: filepath.Join(dir, "apt.conf")}
	if err := os.WriteFile(a.conf, fmt.Appendf(nil, aptConf, dir), 0o644); err != nil {
		return nil, fmt.Errorf("writing apt's configuration: %w", err)
	}
	var had time.Time
	stamp := filepath.Join(dir, "updated")
	if info, err := os.Stat(stamp); err == nil {
		had = info.ModTime()
	}
	list := filepath.Join(dir, "sources.list")
	old, err := os.ReadFile(list)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading apt's sources: %w", err)
	}

	var errs []error
	for _, main := range mirrors.Main {
		for _, security := range mirrors.Security {
			sources := sourcesList(main, security)
			if sources == string(old) && time.Since(had) < listMaxAge {
				return a, nil
			}
			if err := a.update(ctx, list, sources); err != nil {
				errs = append(errs, err)
				continue
			}
			if err := os.WriteFile(stamp, nil, 0o644); err != nil {
				return nil, fmt.Errorf("noting that the package lists are fresh: %w", err)
			}
			return a, nil
		}
	}
	err = errors.Join(errs...)
	if had.IsZero() {
		return nil, fmt.Errorf("fetching the package lists: %w (is %s there? Debian's package debian-archive-keyring has it; -mirror and -security-mirror name other mirrors)", err, keyring)
	}
	_, _ = fmt.Fprintf(progress, "keeping the package lists of %s: %v\n", had.Format(time.DateOnly), err)
	if err := os.WriteFile(list, old, 0o644); err != nil {
		return nil, fmt.Errorf("restoring apt's sources: %w", err)
	}
	return a, nil
}

// aptConf takes the directory. What it leaves out, such as a proxy, is this machine's.
const aptConf = `Dir::State "%[1]s";
Dir::State::lists "%[1]s/lists";
Dir::State::status "/dev/null";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {"amd64";};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
`

func sourcesList(main, security string) string {
	var b strings.Builder
	for _, archive := range []struct {
		root   string
		suites []string
	}{{main, mainSuites}, {security, securitySuites}} {
		for _, suite := range archive.suites {
			fmt.Fprintf(&b, "deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, archive.root, suite)
		}
	}
	return b.String()
}

func (a *Apt) update(ctx context.Context, list, sources string) error {
	if err := os.WriteFile(list, []byte(sources), 0o644); err != nil {
		return fmt.Errorf("writing apt's sources: %w", err)
	}
	// Without this mode apt-get update succeeds even when a suite could not be had.
	_, err := a.run(ctx, a.dir, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
	return err
}

var kernelPackage = regexp.MustCompile(`^linux-image-(\d+\.\d+)\.\d.*-cloud-amd64$`)

// Kernel returns the newest cloud kernel of a series (as 6.1), or of all with Newest.
func (a *Apt) Kernel(ctx context.Context, series string) (Package, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return Package{}, fmt.Errorf("listing kernels: %w", err)
	}
	var names []string
	for _, name := range strings.Fields(out) {
		m := kernelPackage.FindStringSubmatch(name)
		if m != nil && (series == Newest || m[1] == series) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return Package{}, fmt.Errorf("no kernel %s in the suites %s", series, strings.Join(slices.Concat(mainSuites, securitySuites), ", "))
	}
	packages, err := a.show(ctx, names...)
	if err != nil {
		return Package{}, err
	}
	best := packages[0]
	for _, p := range packages[1:] {
		newer, err := newerVersion(ctx, p.Version, best.Version)
		if err != nil {
			return Package{}, err
		}
		if newer {
			best = p
		}
	}
	return best, nil
}

// Show returns what the lists say of one package.
func (a *Apt) Show(ctx context.Context, name string) (Package, error) {
	packages, err := a.show(ctx, name)
	if err != nil {
		return Package{}, err
	}
	return packages[0], nil
}

func (a *Apt) show(ctx context.Context, names ...string) ([]Package, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", append([]string{"show", "--no-all-versions"}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("looking up packages: %w", err)
	}
	packages := parsePackages(strings.NewReader(out))
	if len(packages) == 0 {
		return nil, fmt.Errorf("the package lists have nothing of %s", strings.Join(names, ", "))
	}
	return packages, nil
}

// parsePackages reads deb822 stanzas.
func parsePackages(r io.Reader) []Package {
	var packages []Package
	var p Package
	flush := func() {
		if p.Name != "" && p.Version != "" {
			packages = append(packages, p)
		}
		p = Package{}
	}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if line == "" {
			flush()
			continue
		}
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			continue
		}
		switch key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Depends":
			for dep := range strings.SplitSeq(value, ",") {
				if name, _, _ := strings.Cut(strings.TrimSpace(dep), " "); !strings.Contains(dep, "|") {
					p.Depends = append(p.Depends, name)
				}
			}
		}
	}
	flush()
	return packages
}

func newerVersion(ctx context.Context, a, b string) (bool, error) {
	err := exec.CommandContext(ctx, "dpkg", "--compare-versions", a, "gt", b).Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("comparing versions %s and %s: %w", a, b, err)
	}
	return true, nil
}

// Extract downloads packages and unpacks them into dir.
func (a *Apt) Extract(ctx context.Context, dir string, names ...string) error {
	debs, err := os.MkdirTemp(a.dir, "debs-")
	if err != nil {
		return fmt.Errorf("making a download directory: %w", err)
	}
	defer os.RemoveAll(debs)
	if _, err := a.run(ctx, debs, "apt-get", append([]string{"-q", "download"}, names...)...); err != nil {
		return fmt.Errorf("downloading %s: %w", strings.Join(names, ", "), err)
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(names) {
		return fmt.Errorf("downloading %s gave %d packages", strings.Join(names, ", "), len(files))
	}
	for _, file := range files {
		if _, err := a.run(ctx, debs, "dpkg", "-x", file, dir); err != nil {
			return fmt.Errorf("unpacking %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func (a *Apt) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+a.conf, "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
