package reported

import "context"

// Source gives the reported figure of a container. Implementations are safe for
// concurrent use, and Usage only reads memory.
type Source interface {
	// Name is the value of the source label.
	Name() string
	// Usage is the newest figure, and false when there is none: not reported
	// (yet), or so old that the source is taken for dead. A figure that is merely
	// stale is returned: its At tells.
	Usage(Key) (Usage, bool)
	// Run fetches until ctx ends and returns nil then. Failures are logged,
	// counted and retried.
	Run(ctx context.Context) error
}
