package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// workDir is where a path inside that is not absolute begins.
const workDir = "/workspace"

func newUpload(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:        "upload SRC DST",
		SuggestFor: []string{"cp"},
		Short:      "Copy a file or directory into it",
		Long: `upload copies SRC, a file or directory of this host, to DST inside, which is relative to /workspace. A directory's contents
go into DST, which is made if it is not there. A file becomes DST, or goes into DST when DST ends in / (or is . or
/workspace). What is there already is replaced. Devices, sockets and named pipes are not copied.

Exit status: 0 copied, 1 not or not all, 2 wrong usage.`,
		Example:           strings.ReplaceAll("  nemoclaw NAME upload project .\n  nemoclaw NAME upload data.csv in/\n  nemoclaw NAME upload data.csv /workspace/in/today.csv", "NAME", name),
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: completeSource,
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		src, dst := args[0], args[1]
		info, err := os.Stat(src)
		if err != nil {
			return fmt.Errorf("upload: %w", err)
		}
		into, as := splitDestination(dst, filepath.Base(src), info.IsDir())
		r, w := io.Pipe()
		var left []string
		packed := make(chan error, 1)
		go func() {
			var err error
			left, err = pack(w, src, as, info.IsDir())
			w.CloseWithError(err)
			packed <- err
		}()
		end := waiting(cmd, "copying %s", src)
		err = d.Upload(cmd.Context(), name, into, r)
		end()
		r.CloseWithError(errStopped) // what is left to pack has nowhere to go
		if packErr := <-packed; packErr != nil && !errors.Is(packErr, errStopped) && !errors.Is(packErr, io.ErrClosedPipe) {
			err = fmt.Errorf("upload: %w", packErr)
		}
		return copied(cmd, left, err)
	})
}

var errStopped = errors.New("the other side stopped")

// copied is the end of a copy: it names what was left out.
func copied(cmd *cobra.Command, left []string, err error) error {
	for _, l := range left {
		fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: %s: left out %s\n", cmd.Name(), text.Escape(l))
	}
	if err == nil && left != nil {
		err = &statusError{status: statusFailed}
	}
	return err
}

// splitDestination says below which directory inside SRC is unpacked, and under which name. What is missing of the name is
// made: so the directory is one that is there.
func splitDestination(dst, base string, dir bool) (into, as string) {
	slash := strings.HasSuffix(dst, "/")
	if !path.IsAbs(dst) {
		dst = path.Join(workDir, dst)
	}
	if dst = path.Clean(dst); !dir && (slash || dst == workDir) {
		dst = path.Join(dst, base)
	}
	switch below, ok := strings.CutPrefix(dst, workDir+"/"); {
	case ok:
		return workDir, below
	case dst == workDir || dst == "/":
		return dst, "."
	}
	return path.Dir(dst), path.Base(dst)
}

func newDownload(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:        "download SRC DST",
		SuggestFor: []string{"cp"},
		Short:      "Copy a file or directory out of it",
		Long: `download copies SRC, a path inside that is relative to /workspace, to DST on this host. A directory's contents go into DST,
which is made if it is not there. A file becomes DST, or goes into DST when that is a directory. What is there already is
replaced. Nothing is written outside of DST: links that lead out of it are left out and named, and no file keeps an owner
or a set-user-ID bit. Where DST is -, a file is written to standard output, as it is.

Exit status: 0 copied, 1 not or not all, 2 wrong usage.`,
		Example:           strings.ReplaceAll("  nemoclaw NAME download . copy\n  nemoclaw NAME download report.pdf .\n  nemoclaw NAME download log.txt - | less", "NAME", name),
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: completeSource,
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		src, dst := args[0], args[1]
		if !path.IsAbs(src) {
			src = path.Join(workDir, src)
		}
		r, w := io.Pipe()
		var left []string
		unpacked := make(chan error, 1)
		go func() {
			var err error
			if dst == "-" {
				err = unpackFile(r, cmd.OutOrStdout())
			} else {
				left, err = unpack(r, dst)
			}
			r.CloseWithError(err)
			unpacked <- err
		}()
		end := func() {}
		if dst != "-" { // whose terminal may be the same
			end = waiting(cmd, "copying %s", src)
		}
		err := d.Download(cmd.Context(), name, src, w)
		w.CloseWithError(err)
		end()
		if unpackErr := <-unpacked; unpackErr != nil && (err == nil || errors.Is(err, unpackErr)) {
			err = fmt.Errorf("download: %w", unpackErr)
		}
		return copied(cmd, left, err)
	})
}

// completeSource completes the part of a copy that is on this host with files.
func completeSource(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if onHost := map[string]int{"upload": 0, "download": 1}[cmd.Name()]; len(args) == onHost {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
