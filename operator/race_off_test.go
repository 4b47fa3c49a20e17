//go:build !race

package main

const stormContainers = 10_000
