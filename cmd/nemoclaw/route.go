package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	router "github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxPrompt is the longest text that is explained: what a request may have.
const maxPrompt = 16 << 20

func newRoute() *cobra.Command {
	return group("route", "What the privacy router would do with a prompt", "  nemoclaw route explain --policy nemoclaw.yaml prompt.txt", newRouteExplain())
}

func newRouteExplain() *cobra.Command {
	var file, format string
	cmd := &cobra.Command{
		Use:   "explain FILE|-",
		Short: "Show what is sensitive in a text, and which model would answer it",
		Long: `explain shows what the privacy router finds in a text, and what the policy's section inference does with a prompt that has
it: local, cloud, redact, ask or deny. Each find has its line and column, its class and kind, how it was hidden (base64,
homoglyph, ...), the verdict of its class, and the line around it, in clear: look at it before you pass it on. Below is what
it does if the caller names another of the policy's models. Without --policy everything sensitive stays local. Nothing is
sent anywhere, and no sandbox is needed. Conversations that stay local because of what was said before, images and links
are not looked at.

Exit status: 0 shown, 1 the policy or the text can't be read, 2 wrong usage.`,
		Example: `  nemoclaw route explain --policy nemoclaw.yaml prompt.txt
  git diff | nemoclaw route explain -`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			json, err := asJSON(format)
			if err != nil {
				return err
			}
			c, err := routingPolicy(file)
			if err != nil {
				return err
			}
			prompt, err := readPrompt(cmd.InOrStdin(), args[0])
			if err != nil {
				return fmt.Errorf("route explain: %w", err)
			}
			e, err := router.Explain(c, prompt)
			if err != nil {
				return fmt.Errorf("route explain: %w", err)
			}
			out := cmd.OutOrStdout()
			if json {
				return printJSON(out, e)
			}
			showExplanation(out, e, colours(out))
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "policy", "p", "", "policy `FILE` with a section inference (default: all that is sensitive stays local)")
	must(cmd.MarkFlagFilename("policy", "yaml", "yml"))
	outputFlag(cmd, &format)
	return cmd
}

// routingPolicy is the policy of a file, or the least that has the section.
func routingPolicy(file string) (*policy.Compiled, error) {
	if file == "" {
		p, err := policy.Parse("default", []byte("inference:\n  default: cloud\n"))
		if err != nil {
			return nil, err
		}
		return policy.Compile(p)
	}
	c, err := policy.Load(file)
	if err == nil && c.Inference == nil {
		err = fmt.Errorf("%s has no section inference, so no model answers inside", file)
	}
	return c, err
}

// readPrompt reads a text of a file, or of standard input.
func readPrompt(in io.Reader, name string) (string, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("%w; name a file with the text, or - to read it from standard input", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPrompt+1))
	if err == nil && len(b) > maxPrompt {
		err = errors.New("the text is larger than the 16 MiB that a request may have")
	}
	if err == nil && !utf8.Valid(b) {
		err = errors.New("this is no text (UTF-8)")
	}
	return string(b), err
}

// routeColours are those of verdicts about prompts.
var routeColours = map[string]string{"deny": "31", "local": "33", "ask": "33", "redact": "33", "cloud": "32"}

// showExplanation writes the verdict and every find in its line: on a terminal in colour, else underlined.
func showExplanation(out io.Writer, e router.Explanation, colour bool) {
	paint := func(code, s string) string {
		if !colour || s == "" {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	model := ""
	if e.Model != "" {
		model = " (" + e.Model + ")"
	}
	fmt.Fprintf(out, "%s%s: %s\n", paint(routeColours[e.Verdict], e.Verdict), text.Escape(model), text.Escape(e.Reason))
	w := bufio.NewWriter(out)
	for _, f := range e.Findings {
		via := ""
		if f.Via != "" {
			via = " in " + f.Via
		}
		before, match, after := text.Around(strings.TrimLeft(f.Before, " \t"), f.Text, strings.TrimRight(f.After, " \t\r"), 100)
		fmt.Fprintf(w, "  %d:%d  %s: %s%s, %s\n", f.Line, f.Column, text.Escape(f.Class), text.Escape(f.Kind), via, paint(routeColours[f.Verdict], f.Verdict))
		fmt.Fprintf(w, "      %s%s%s\n", before, paint("1;31", match), after)
		if !colour {
			fmt.Fprintf(w, "      %s%s\n", strings.Repeat(" ", text.Width(before)), strings.Repeat("^", text.Width(match)))
		}
	}
	for _, n := range e.Named {
		fmt.Fprintf(w, "  named %s (%s): %s\n", text.Escape(n.Name), text.Escape(n.Model), paint(routeColours[n.Verdict], n.Verdict))
	}
	_ = w.Flush() // who reads it may have gone
}
