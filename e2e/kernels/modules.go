package kernels

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Modules returns the paths of modules of a series' newest kernel, by name as
// virtio_net, and of all that they need, each after those. What the kernel has built
// in has no module and is an error. The cache keeps what was asked for before, too.
func (c *Cache) Modules(ctx context.Context, series string, names ...string) ([]string, error) {
	p, err := c.Apt.Kernel(ctx, series)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, p.Name+"_"+p.Version+"-modules")
	if paths, err := inOrder(dir, names); err == nil {
		return paths, nil
	}
	packages := []string{p.Name}
	for _, dep := range p.Depends {
		// From 6.19 on the modules have a package of their own.
		if strings.HasPrefix(dep, "linux-modules-") {
			packages = append(packages, dep)
		}
	}
	unpacked, err := os.MkdirTemp(c.Dir, "unpack-")
	if err != nil {
		return nil, fmt.Errorf("making a directory in the kernel cache: %w", err)
	}
	defer os.RemoveAll(unpacked)
	if err := c.Apt.Extract(ctx, unpacked, packages...); err != nil {
		return nil, err
	}
	// Only what is wanted is kept, and only whole.
	keep := filepath.Join(unpacked, ".keep")
	kept, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	wanted := slices.Clone(names)
	for _, path := range kept {
		wanted = append(wanted, strings.TrimSuffix(filepath.Base(path), ".ko"))
	}
	if err := keepModules(ctx, keep, unpacked, wanted); err != nil {
		return nil, fmt.Errorf("looking for modules in %s: %w", strings.Join(packages, ", "), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clearing %s: %w", dir, err)
	}
	if err := os.Rename(keep, dir); err != nil {
		return nil, fmt.Errorf("keeping the modules of %s: %w", p.Name, err)
	}
	return inOrder(dir, names)
}

// keepModules moves the named modules below from, and what they need, into one
// directory, unpacked where they are compressed, as Debian's are from 6.12 on.
func keepModules(ctx context.Context, to, from string, names []string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	files := map[string]string{}
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimSuffix(filepath.Base(path), compressed)
		if name, ok := strings.CutSuffix(name, ".ko"); ok && entry.Type().IsRegular() {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return err
	}
	paths, err := resolve(names, func(name string) (string, error) {
		if plain, ok := strings.CutSuffix(files[name], compressed); ok {
			if out, err := exec.CommandContext(ctx, "xz", "--decompress", files[name]).CombinedOutput(); err != nil {
				return "", fmt.Errorf("unpacking module %s: %w: %s", name, err, out)
			}
			files[name] = plain
		}
		return files[name], nil
	})
	if err != nil {
		return err
	}
	for _, path := range paths {
		name := moduleName(strings.TrimSuffix(filepath.Base(path), ".ko"))
		if err := os.Rename(path, filepath.Join(to, name+".ko")); err != nil {
			return err
		}
	}
	return nil
}

// inOrder resolves modules that are all in one directory.
func inOrder(dir string, names []string) ([]string, error) {
	return resolve(names, func(name string) (string, error) { return filepath.Join(dir, name+".ko"), nil })
}

const compressed = ".xz"

// resolve orders the files of modules and of what they need, dependencies first.
func resolve(names []string, file func(name string) (string, error)) ([]string, error) {
	var paths []string
	var visit func(name string, above []string) error
	visit = func(name string, above []string) error {
		path, err := file(name)
		switch {
		case err != nil:
			return err
		case path == "":
			return fmt.Errorf("there is no module %s", name)
		case slices.Contains(above, name):
			return fmt.Errorf("module %s needs itself: %s", name, strings.Join(above, ", "))
		case slices.Contains(paths, path):
			return nil
		}
		needs, err := dependencies(path)
		if err != nil {
			return fmt.Errorf("reading what module %s needs: %w", name, err)
		}
		for _, need := range needs {
			if err := visit(need, append(above, name)); err != nil {
				return err
			}
		}
		paths = append(paths, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name, nil); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// dependencies reads a module's depends= (include/linux/module.h, MODULE_INFO).
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseDepends(info), nil
}

func parseDepends(info []byte) []string {
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok {
			names := strings.FieldsFunc(string(list), func(r rune) bool { return r == ',' })
			for i := range names {
				names[i] = moduleName(names[i])
			}
			return names
		}
	}
	return nil
}

// moduleName is a name as the kernel spells it: a file may have dashes.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }
