package vmnode

import (
	"strings"
	"sync"

	"github.com/kernel-gossip/kernel-gossip/e2e/kernels"
)

// console takes what the guest says on its first serial port.
type console struct {
	say func(format string, args ...any)

	mu   sync.Mutex
	said kernels.Console
}

func (c *console) line(text string) {
	text = strings.TrimRight(text, "\r")
	c.mu.Lock()
	worth := c.said.Line(text)
	c.mu.Unlock()
	_, told, ok := strings.Cut(text, "KG-NODE ")
	switch {
	case ok:
		c.say("%s: %s", Name, told)
	case worth:
		c.say("%s: %s", Name, kernels.Visible(text))
	}
}

// crash is the kernel's first line about an oops or panic.
func (c *console) crash() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Crash
}
