package vmnode

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What the guest tells of itself is passed on; of the rest, the kernel's death.
func TestConsole(t *testing.T) {
	var said []string
	c := &console{say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	for _, line := range []string{
		"SeaBIOS\x1bc\x1b[2JKG-UP 2.78 6.1.0-56-cloud-amd64\r", "KG-NODE 5.47 containerd answers\r", "KG-ALIVE 12.0\r",
		"[    9.1] Oops: int3: 0000 [#1]\r", "[    9.2] Kernel panic - not syncing\r",
	} {
		c.line(line)
	}
	assert.Equal(t, []string{"guest: KG-UP 2.78 6.1.0-56-cloud-amd64", "guest: 5.47 containerd answers", "guest: [    9.1] Oops: int3: 0000 [#1]"}, said)
	assert.Equal(t, "6.1.0-56-cloud-amd64", c.said.Release)
	assert.Equal(t, "Oops: int3: 0000 [#1]", c.crash(), "the first line is the cause")
}
