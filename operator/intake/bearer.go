package intake

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Bearer checks the token of a request against a file, which is read again
// when it changes. It refuses everyone while the file can't be read.
type Bearer struct {
	path string

	mu       sync.Mutex
	modified time.Time
	size     int64
	sum      [sha256.Size]byte
}

// ErrUnauthorized is no token, or another than the operator's.
var ErrUnauthorized = errors.New(`the request needs the header "Authorization: Bearer <token>" with the operator's token`)

// NewBearer reads the token file; a file that is missing or empty is an error.
func NewBearer(path string) (*Bearer, error) {
	b := &Bearer{path: path}
	if _, err := b.current(); err != nil {
		return nil, err
	}
	return b, nil
}

// Check looks at an Authorization header (in gRPC: metadata). It returns
// ErrUnauthorized, an error about the file, or nil.
func (b *Bearer) Check(authorization string) error {
	want, err := b.current()
	if err != nil {
		return err
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	// Sums are of one length, so the comparison tells nothing about the token's.
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "Bearer") {
		return ErrUnauthorized
	}
	return nil
}

func (b *Bearer) current() ([sha256.Size]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, err := os.Stat(b.path)
	if err != nil {
		return b.sum, fmt.Errorf("reading the bearer token: %w", err)
	}
	if info.ModTime().Equal(b.modified) && info.Size() == b.size {
		return b.sum, nil
	}
	content, err := os.ReadFile(b.path)
	if err != nil {
		return b.sum, fmt.Errorf("reading the bearer token: %w", err)
	}
	token := bytes.TrimSpace(content)
	if len(token) == 0 {
		return b.sum, fmt.Errorf("reading the bearer token: %s is empty", b.path)
	}
	b.modified, b.size, b.sum = info.ModTime(), info.Size(), sha256.Sum256(token)
	return b.sum, nil
}
