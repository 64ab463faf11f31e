package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

// outputFlag adds -o to a command that lists something.
func outputFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "text", "`FORMAT`: text or json")
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

// printJSON writes an empty list as [] and an empty map as {}, never as null.
func printJSON(w io.Writer, v any) error {
	switch r := reflect.ValueOf(v); {
	case r.Kind() == reflect.Slice && r.IsNil():
		v = []any{}
	case r.Kind() == reflect.Map && r.IsNil():
		v = struct{}{}
	}
	return encode(w, v, "  ")
}

// encode writes a value as JSON in which nothing moves a cursor or hides text.
func encode(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(text.JSON(b.Bytes()))
	return err
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

// escaped is text that can be shown as it is.
type escaped string

// A table is rows of columns as wide as their widest word. Everything in it is escaped, once.
type table struct {
	w *tabwriter.Writer
}

func newTable(w io.Writer, heads ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, strings.Join(heads, "\t"))
	return t
}

func (t *table) row(cells ...any) {
	words := make([]string, len(cells))
	for i, c := range cells {
		if e, ok := c.(escaped); ok {
			words[i] = string(e)
		} else {
			words[i] = text.Escape(fmt.Sprint(c))
		}
	}
	fmt.Fprintln(t.w, strings.Join(words, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// ago is a duration in its one or two largest units.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// count is a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// size is a number of bytes for a person.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
