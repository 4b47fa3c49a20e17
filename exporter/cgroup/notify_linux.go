package cgroup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// inotify is the kernel's. Removal of a watched directory removes its watch.
type inotify struct {
	fd   int // file.Fd() would make it blocking
	file *os.File
	buf  [64 << 10]byte
}

func newNotifier() (notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1 (see fs.inotify.max_user_instances): %w", err)
	}
	return &inotify{fd: fd, file: os.NewFile(uintptr(fd), "inotify")}, nil
}

func (n *inotify) add(dir string, modify bool) (int, error) {
	mask := uint32(unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK)
	if modify {
		mask |= unix.IN_MODIFY
	}
	return unix.InotifyAddWatch(n.fd, dir, mask)
}

func (n *inotify) remove(wd int) {
	// EINVAL: went with its directory.
	_, _ = unix.InotifyRmWatch(n.fd, uint32(wd)) //nolint:gosec // a watch descriptor is never negative
}

func (n *inotify) wait() ([]event, error) {
	size, err := n.file.Read(n.buf[:])
	if err != nil {
		return nil, err
	}
	var events []event
	for b := n.buf[:size]; len(b) >= unix.SizeofInotifyEvent; {
		wd := int(int32(binary.NativeEndian.Uint32(b)))
		mask := binary.NativeEndian.Uint32(b[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if end > len(b) {
			return events, fmt.Errorf("inotify: an event of %d bytes in %d", end, len(b))
		}
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:end], []byte{0})
		b = b[end:]
		e := event{wd: wd, name: string(name)}
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			e.what = overflow
		case mask&unix.IN_IGNORED != 0:
			e.what = unwatched
		case mask&unix.IN_ISDIR != 0 && mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
			e.what = created
		case mask&unix.IN_ISDIR != 0 && mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
			e.what = deleted
		case mask&unix.IN_ISDIR == 0 && mask&unix.IN_MODIFY != 0:
			e.what = modified
		default:
			continue
		}
		events = append(events, e)
	}
	return events, nil
}

func (n *inotify) close() error { return n.file.Close() }
