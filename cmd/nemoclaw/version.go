package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// version is set by the release build (-ldflags "-X main.version=..."); otherwise the module's version is shown.
var version string

// programVersion is the version in one word.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// about is what `version` prints of this program.
type about struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisProgram() about {
	v := about{programVersion(), "", runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

type versions struct {
	about
	Daemon *api.Info `json:"daemon,omitempty"`
}

func newVersion() *cobra.Command {
	return showing(&cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program, and of the daemon when it answers",
		Long:    "version prints the version of this program, and of the daemon when it answers within a second.\n\nExit status: 0 printed, 2 wrong usage.",
		Example: "  nemoclaw version -o json",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (v versions, err error) {
		v.about = thisProgram()
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		if info, err := d.Info(ctx); err == nil { // no daemon, no version of it
			v.Daemon = &info
		}
		return v, nil
	}, func(cmd *cobra.Command, v versions) error {
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "nemoclaw %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
		if v.Daemon != nil {
			fmt.Fprintf(out, "nemoclaw-agent %s (API %s, level %s, %s)\n", text.Escape(v.Daemon.Version), text.Escape(v.Daemon.API), text.Escape(v.Daemon.Level), text.Escape(v.Daemon.Kernel))
		}
		return nil
	})
}
