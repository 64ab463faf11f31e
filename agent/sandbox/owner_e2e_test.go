//go:build e2e

package sandbox

func ownerMain() {}
