package kernels

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

//go:embed init.sh
var initScript []byte

// Initramfs is what a boot has for a file system. Paths in the guest are relative
// to its root.
type Initramfs struct {
	Busybox string // static, on the host
	Test    string // static test binary, on the host; /test in the guest
	Data    string // directory on the host that is the test's testdata, or ""

	Modules []string // paths on the host, each after those that it needs
	Files   []string // programs and libraries of the host, each at its path there
}

// Write writes the archive.
func (i Initramfs) Write(path string) error {
	return writeCpio(path, func(w *cpioWriter) {
		for _, dir := range []string{"bin", "proc", "sys", "dev", "tmp", "work"} {
			w.dir(dir)
		}
		w.file("init", 0o755, initScript)
		w.hostFile("bin/busybox", 0o755, i.Busybox)
		w.hostFile("test", 0o755, i.Test)
		if i.Data != "" {
			w.tree("work/testdata", i.Data)
		}
		w.modules(i.Modules)
		for _, file := range i.Files {
			w.parents(file[1:])
			w.hostFile(file[1:], 0o755, file)
		}
	})
}

// Loader is an initramfs that loads modules and then does as its script says.
type Loader struct {
	Busybox string   // static, on the host
	Init    []byte   // the script, for /bin/busybox sh; the modules are /modules/*.ko
	Modules []string // paths on the host, each after those that it needs
}

// Write writes the archive. /modules/order lists the modules' files.
func (l Loader) Write(path string) error {
	return writeCpio(path, func(w *cpioWriter) {
		for _, dir := range []string{"bin", "proc", "sys", "dev", "root"} {
			w.dir(dir)
		}
		w.file("init", 0o755, l.Init)
		w.hostFile("bin/busybox", 0o755, l.Busybox)
		w.modules(l.Modules)
	})
}

// writeCpio writes a cpio archive in the newc format, uncompressed: unpacking costs an
// emulated CPU more than reading.
func writeCpio(path string, fill func(w *cpioWriter)) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("making the initramfs: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = fmt.Errorf("writing the initramfs: %w", err)
		}
	}()
	buffered := bufio.NewWriter(file)
	w := &cpioWriter{w: buffered}
	fill(w)
	w.trailer()
	if w.err != nil {
		return w.err
	}
	return buffered.Flush()
}

// cpioWriter keeps the first error, so that its callers read as a list.
type cpioWriter struct {
	w     io.Writer
	inode int
	err   error
}

const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

// entry writes a header of the newc format (Documentation/driver-api/early-userspace/
// buffer-format.rst) and its content, both padded to four bytes.
func (c *cpioWriter) entry(name string, mode int, content []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	for _, part := range [][]byte{[]byte(header), content} {
		pad := make([]byte, (4-len(part)%4)%4)
		if _, c.err = c.w.Write(slices.Concat(part, pad)); c.err != nil {
			return
		}
	}
}

func (c *cpioWriter) dir(name string) { c.entry(name, modeDir|0o755, nil) }

// parents makes the directories above a file.
func (c *cpioWriter) parents(name string) {
	if above := filepath.Dir(name); above != "." {
		c.parents(above)
		c.dir(above) // twice is no error
	}
}

// modules writes them to /modules, whose file order lists them.
func (c *cpioWriter) modules(paths []string) {
	c.dir("modules")
	var order []byte
	for _, module := range paths {
		c.hostFile("modules/"+filepath.Base(module), 0o644, module)
		order = fmt.Appendln(order, filepath.Base(module))
	}
	c.file("modules/order", 0o644, order)
}

func (c *cpioWriter) file(name string, mode int, content []byte) {
	c.entry(name, modeFile|mode, content)
}

func (c *cpioWriter) hostFile(name string, mode int, path string) {
	if c.err != nil {
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		c.err = err
		return
	}
	c.file(name, mode, content)
}

func (c *cpioWriter) tree(name, root string) {
	if c.err != nil {
		return
	}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch target := filepath.Join(name, below); {
		case entry.IsDir():
			c.dir(target)
		case entry.Type().IsRegular():
			c.hostFile(target, 0o644, path)
		}
		return c.err
	})
	c.err = errors.Join(c.err, err)
}

func (c *cpioWriter) trailer() { c.entry("TRAILER!!!", 0, nil) }
