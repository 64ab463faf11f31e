package report

import (
	"bufio"
	"io"
	"strings"
)

// Markdown writes a document as Markdown with tables (GitHub's). What is foreign is in code spans, in which nothing is a link, a tag
// or emphasis; what could end one, or a cell, is spelt out.
func Markdown(w io.Writer, d *Document) error {
	b := bufio.NewWriter(w)
	put := func(parts ...string) {
		for _, p := range parts {
			_, _ = b.WriteString(p) // Flush says it
		}
	}
	put("# ", escapeMarkdown(d.Title), "\n\n", inMarkdown(d.Subtitle), "\n\n")
	for _, a := range d.Alerts {
		word := map[string]string{"bad": "**FAILED.** ", "warning": "**Note.** "}[a.Kind]
		put("> ", word, inMarkdown(a.Text), "\n\n")
	}
	for _, f := range d.Figures {
		put("- ", escapeMarkdown(f.Name), ": **", escapeMarkdown(f.Value), "**")
		if f.Note != "" {
			put(" (", escapeMarkdown(f.Note), ")")
		}
		put("\n")
	}
	for _, s := range d.Sections {
		put("\n## ", escapeMarkdown(s.Title), "\n")
		for _, t := range s.Words {
			put("\n", inMarkdown(t), "\n")
		}
		for _, p := range s.Parts {
			t := p.Table
			if t == nil && p.Chart != nil {
				t = &p.Chart.Table // a chart's numbers
			}
			if t != nil {
				put("\n")
				if t.Title != "" {
					put("### ", escapeMarkdown(t.Title), "\n\n")
				}
				markdownTable(put, t)
			}
			for _, n := range p.Notes {
				put("\n", inMarkdown(n), "\n")
			}
		}
	}
	put("\n", inMarkdown(d.Made), "\n")
	return b.Flush()
}

func markdownTable(put func(...string), t *Table) {
	for _, h := range t.Heads {
		put("| ", escapeMarkdown(h.Name), " ")
	}
	put("|\n")
	for _, h := range t.Heads {
		if h.Numbers {
			put("|---:")
		} else {
			put("|---")
		}
	}
	put("|\n")
	for _, r := range t.Rows {
		for _, c := range r {
			put("| ", inMarkdown(c), " ")
		}
		put("|\n")
	}
}

// inMarkdown writes a text on one line.
func inMarkdown(t Text) string {
	var b strings.Builder
	for _, p := range t {
		switch {
		case p.Foreign:
			b.WriteString(codeSpan(p.Words))
		case p.Kind == "bad":
			b.WriteString("**" + escapeMarkdown(p.Words) + "**")
		default:
			b.WriteString(escapeMarkdown(p.Words))
		}
	}
	return b.String()
}

// codeSpan quotes escaped words. Of the characters that mean something in a code span or around it there are two, and blanks at its
// ends, which would be taken off; they are spelt as the escape of any other is.
func codeSpan(words string) string {
	words = strings.NewReplacer("`", `\x60`, "|", `\x7c`).Replace(words)
	inner := strings.Trim(words, " ")
	if inner == "" {
		return "`" + strings.ReplaceAll(words, " ", `\x20`) + "`"
	}
	left := strings.Index(words, inner)
	right := len(words) - left - len(inner)
	return "`" + strings.Repeat(`\x20`, left) + inner + strings.Repeat(`\x20`, right) + "`"
}

var markdownSigns = func() *strings.Replacer {
	var pairs []string
	for _, sign := range "\\`*_{}[]<>#|~&!" {
		pairs = append(pairs, string(sign), `\`+string(sign))
	}
	return strings.NewReplacer(pairs...)
}()

func escapeMarkdown(s string) string { return markdownSigns.Replace(s) }
