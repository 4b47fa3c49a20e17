//go:build !linux

package cgroup

func isCgroupFS(string) bool { return false }
