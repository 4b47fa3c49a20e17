// Package libraries finds what a program that is not static needs beside itself, so
// that it can be put where there is nothing else: into an image, or an initramfs.
package libraries

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// With returns the path of a program in PATH, then those of its loader and of the shared
// libraries that it and they need, each where the loader looks for it.
func With(name string) ([]string, error) {
	program, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", name, err)
	}
	files := []string{program}
	for i := 0; i < len(files); i++ {
		needs, err := needed(files[i])
		if err != nil {
			return nil, fmt.Errorf("reading what %s needs: %w", files[i], err)
		}
		for _, file := range needs {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// needed are the loader (PT_INTERP) and the libraries (DT_NEEDED) of a file.
func needed(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var files []string
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			loader := make([]byte, p.Filesz)
			if _, err := p.ReadAt(loader, 0); err != nil {
				return nil, err
			}
			files = append(files, string(bytes.TrimRight(loader, "\x00")))
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		file, err := find(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// find looks where Debian's loader does by itself (ld.so(8), and its multiarch paths).
func find(name string) (string, error) {
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("library %s is nowhere that the loader looks", name)
}
