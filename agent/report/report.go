// Package report writes what an audit log says for people who don't read logs: evidence for a framework's requirements, and what an
// agent did. A report is a Document, which is written as Markdown or as one HTML page. It says what it was made from, whether that is
// whole and who vouches for it, and what it can't know.
//
// It never trusts what it shows: names, paths, arguments and models are quoted and escaped, whatever form the report has. It never
// loads, runs or links to anything, never holds more than a bounded part of a log, leaves nothing out without saying how much, and
// never writes to a log.
package report

import (
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
)

// top is how many rows a table shows at most.
const top = 25

// command is a command line to be copied: it is neither cut nor masked.
func command(args ...string) Text {
	for i, a := range args {
		args[i] = shellWord(a)
	}
	return quoted(strings.Join(args, " "))
}

// quoted is a text of whoever asked for the report, such as the path of a log: it is escaped, and neither cut nor masked.
func quoted(s string) Text { return Text{{Words: text.Escape(s), Foreign: true}} }

// shellWord is a word as a shell takes it. A quotation mark is itself quoted, and not behind a backslash: who shows the word doubles each
// backslash, and the shell would take what comes then for more than a word.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}

// search is the command that finds in the log what a table left out.
func (s *Source) search(more ...string) Text {
	args := append([]string{"nemoclaw", "audit", "search"}, more...)
	if s.Live {
		if i := slices.Index(more, "--text"); i >= 0 {
			more = more[:i] // logs has no such flag: it finds more
		}
		args = append([]string{"nemoclaw", s.Filter.Sandbox, "logs"}, more...)
	} else if s.Filter.Sandbox != "" {
		args = append(args, "--sandbox", s.Filter.Sandbox)
	}
	if !s.Filter.From.IsZero() {
		args = append(args, "--since", s.Filter.From.UTC().Format(time.RFC3339))
	}
	if !s.Filter.To.IsZero() {
		args = append(args, "--until", s.Filter.To.UTC().Format(time.RFC3339))
	}
	return command(append(args, s.Named...)...)
}

// part shows the first rows of a list, and says how many more there are and what finds them. Where it has none, none is said instead.
func part[K comparable, V any](title string, heads []Head, list []row[K, V], over uint64, none string, find Text, fill func(t *Table, r row[K, V])) Part {
	if len(list) == 0 {
		return Part{Notes: []Text{say(none)}}
	}
	t := &Table{Title: title, Heads: heads}
	for _, r := range list[:min(len(list), top)] {
		fill(t, r)
	}
	return Part{Table: t, Notes: rest(max(len(list)-top, 0), over, find)}
}

// lasts shows the last entries of a list that is in the order of time.
func lasts[V any](title string, heads []Head, r *ring[V], none string, find Text, fill func(t *Table, v V)) Part {
	if r.all == 0 {
		return Part{Notes: []Text{say(none)}}
	}
	list := r.list[max(len(r.list)-2*top, 0):]
	t := &Table{Title: title, Heads: heads}
	for _, v := range list {
		fill(t, v)
	}
	return Part{Table: t, Notes: rest(int(r.all)-len(list), 0, find)}
}
