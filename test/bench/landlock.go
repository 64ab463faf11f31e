package main

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
)

// restrict puts this process under Landlock rules like those of a sandbox whose workspace is dir: what Landlock alone costs.
func restrict(dir string) {
	config := landlock.V7.BestEffort()
	err := config.RestrictPaths(
		landlock.RODirs("/usr", "/etc", "/proc", "/bin", "/lib", "/lib64"),
		landlock.RWDirs(dir, "/tmp", "/dev"),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench landlock:", err)
		os.Exit(1)
	}
}
