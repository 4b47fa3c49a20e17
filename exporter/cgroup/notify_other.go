//go:build !linux

package cgroup

import (
	"errors"
	"fmt"
)

func newNotifier() (notifier, error) {
	return nil, fmt.Errorf("inotify: %w", errors.ErrUnsupported)
}
