//go:build race

package main

// Each read and write of the store costs some twenty times more under the race detector:
// the whole storm took twelve minutes there, half a minute without.
const stormContainers = 1_000
