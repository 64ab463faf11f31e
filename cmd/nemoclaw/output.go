package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/term"
)

// outputFlag adds -o to a command that lists something.
func outputFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "text", "text or json")
	completeFlag(cmd, "output", "text", "json")
}

// completeFlag lets shells complete a flag that takes one of a few words.
func completeFlag(cmd *cobra.Command, flag string, words ...string) {
	must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
}

// must is for errors that only a misspelt flag name can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// asJSON reports whether -o asks for JSON.
func asJSON(format string) (bool, error) {
	switch format {
	case "text":
		return false, nil
	case "json":
		return true, nil
	}
	return false, usage(fmt.Errorf("-o %q: want text or json", format))
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// colours reports whether w is a terminal that may be sent colours.
func colours(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.Is(f)
}

// paint colours a verdict or a result for a terminal.
func paint(w io.Writer, word string) string {
	if !colours(w) {
		return word
	}
	code := map[string]string{"allow": "32", "ok": "32", "ask": "33", "warning": "33", "deny": "31", "failed": "31"}[word]
	return "\x1b[" + code + "m" + word + "\x1b[0m"
}
