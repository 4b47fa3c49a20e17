package kernels

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Cache holds kernels and busybox by package version, each fetched once.
type Cache struct {
	Dir string
	Apt *Apt
}

// UserCache is the cache in the user's cache directory, its package lists fresh.
func UserCache(ctx context.Context, wanted Mirrors, progress io.Writer) (*Cache, error) {
	home, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("finding the cache directory: %w", err)
	}
	mirrors, err := ConfiguredMirrors(ctx, wanted)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(home, "kernel-gossip", "kernels")
	apt, err := NewApt(ctx, filepath.Join(dir, "apt"), mirrors, progress)
	if err != nil {
		return nil, err
	}
	return &Cache{Dir: dir, Apt: apt}, nil
}

// Kernel returns the path of a series' newest kernel image and its package.
func (c *Cache) Kernel(ctx context.Context, series string) (string, Package, error) {
	p, err := c.Apt.Kernel(ctx, series)
	if err != nil {
		return "", Package{}, err
	}
	names := []string{p.Name}
	for _, dep := range p.Depends {
		// From 6.19 on the image has a package of its own.
		if strings.HasPrefix(dep, "linux-binary-") {
			names = append(names, dep)
		}
	}
	path, err := c.fetch(ctx, p, names, func(name string) bool { return strings.HasPrefix(name, "vmlinuz") })
	return path, p, err
}

// Busybox returns the path of a static busybox.
func (c *Cache) Busybox(ctx context.Context) (string, error) {
	p, err := c.Apt.Show(ctx, "busybox-static")
	if err != nil {
		return "", err
	}
	return c.fetch(ctx, p, []string{p.Name}, func(name string) bool { return name == "busybox" })
}

// fetch returns the cached file that packages are wanted for.
func (c *Cache) fetch(ctx context.Context, p Package, names []string, wanted func(name string) bool) (string, error) {
	dir := filepath.Join(c.Dir, p.Name+"_"+p.Version)
	if path, err := find(dir, wanted); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", fmt.Errorf("making the kernel cache: %w", err)
	}
	unpacked, err := os.MkdirTemp(c.Dir, "unpack-")
	if err != nil {
		return "", fmt.Errorf("making a directory in the kernel cache: %w", err)
	}
	defer os.RemoveAll(unpacked)
	if err := c.Apt.Extract(ctx, unpacked, names...); err != nil {
		return "", err
	}
	path, err := find(unpacked, wanted)
	if err != nil {
		return "", fmt.Errorf("looking through %s: %w", strings.Join(names, ", "), err)
	}
	// Only the one file is kept, and only whole.
	part := filepath.Join(unpacked, ".keep")
	if err := os.Mkdir(part, 0o755); err != nil {
		return "", fmt.Errorf("keeping %s: %w", p.Name, err)
	}
	if err := os.Rename(path, filepath.Join(part, filepath.Base(path))); err != nil {
		return "", fmt.Errorf("keeping %s: %w", p.Name, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("clearing %s: %w", dir, err)
	}
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("keeping %s: %w", p.Name, err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

func find(dir string, wanted func(name string) bool) (string, error) {
	var found string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Type().IsRegular() && wanted(entry.Name()) {
			found = path
			return filepath.SkipAll
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no such file in %s", dir)
	}
	return found, err
}
