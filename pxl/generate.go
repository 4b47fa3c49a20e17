package pxl

//go:generate go run ./cmd/generate
