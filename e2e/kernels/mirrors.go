package kernels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Mirrors are the roots of Debian's archives, as they stand before /dists in a
// source of apt, most wanted first. More than one stand there to be tried: a source
// of somebody else's packages may look the same until its signature is checked.
type Mirrors struct {
	Main     []string
	Security []string
}

// Errors that say what a person can do about it.
var (
	errNoMirror   = errors.New("apt has no source of Debian's main archive on this machine: name one with -mirror, or add it to apt's sources")
	errNoSecurity = errors.New("apt has no source of Debian's security archive on this machine: name one with -security-mirror, or add it to apt's sources")
)

// ConfiguredMirrors asks apt for the sources that it has been given on this machine,
// in whichever format, and keeps those of Debian's archives. What overrides is not
// empty takes their place. Nothing is fetched.
func ConfiguredMirrors(ctx context.Context, overrides Mirrors) (Mirrors, error) {
	if len(overrides.Main) > 0 && len(overrides.Security) > 0 {
		return overrides, nil
	}
	return configuredMirrors(ctx, os.Environ(), overrides)
}

func configuredMirrors(ctx context.Context, env []string, overrides Mirrors) (Mirrors, error) {
	cmd := exec.CommandContext(ctx, "apt-get", "update", "--print-uris")
	cmd.Env = append(slices.Clone(env), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return Mirrors{}, fmt.Errorf("asking apt for its sources: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	mirrors := parseSources(stdout.String())
	if len(overrides.Main) > 0 {
		mirrors.Main = overrides.Main
	}
	if len(overrides.Security) > 0 {
		mirrors.Security = overrides.Security
	}
	if len(mirrors.Main) == 0 {
		return Mirrors{}, errNoMirror
	}
	if len(mirrors.Security) == 0 {
		return Mirrors{}, errNoSecurity
	}
	return mirrors, nil
}

// A package list of the component main in apt-get update --print-uris, as
// 'scheme:root/dists/suite/main/binary-amd64/Packages.xz' and more after a space.
var packageList = regexp.MustCompile(`^'(\S+?)/+dists/([a-z]+)(?:(-updates|-backports|-proposed-updates|-backports-sloppy)|(-security|/updates))?/main/binary-[a-z0-9]+/Packages[^']*'`)

// debianSuites are the names that stand for a release; Ubuntu's are others.
var debianSuites = []string{
	"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid",
	"bullseye", "bookworm", "trixie", "forky", "duke",
}

func parseSources(printed string) Mirrors {
	var m Mirrors
	for line := range strings.Lines(printed) {
		f := packageList.FindStringSubmatch(line)
		if f == nil || !slices.Contains(debianSuites, f[2]) {
			continue
		}
		root, security := f[1], f[4] != ""
		switch {
		case security && !slices.Contains(m.Security, root):
			m.Security = append(m.Security, root)
		case !security && !slices.Contains(m.Main, root):
			m.Main = append(m.Main, root)
		}
	}
	return m
}
