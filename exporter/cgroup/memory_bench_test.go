package cgroup

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// One reading of each file of each cgroup of this machine, as the sampler does: events
// and pressure once a second, memory.stat every few.
func BenchmarkMemoryFiles(b *testing.B) {
	tree, err := Open(Config{Log: quiet()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, tree.Close()) })
	groups := tree.Groups()
	require.NotEmpty(b, groups, "this machine has no cgroup of interest")
	for name, read := range map[string]func(Group) error{
		"stat":     func(g Group) error { _, _, err := tree.Memory(g); return err },
		"events":   func(g Group) error { _, err := tree.MemoryCounts(g); return err },
		"pressure": func(g Group) error { _, err := tree.Pressure(g); return err },
		"cpu":      func(g Group) error { _, err := tree.CPU(g); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := read(groups[i%len(groups)]); err != nil && !errors.Is(err, ErrGone) {
					b.Fatal(err)
				}
			}
		})
	}
}
