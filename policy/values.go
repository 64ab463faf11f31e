package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxText is the most bytes of one text; a path has at most 4,095.
const maxText = 4095

const quotedStyles = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

// text takes a text from a scalar node, and refuses what another YAML reader would not take for a text.
func text(n *yaml.Node) (string, *problem) {
	if n.Style&quotedStyles == 0 {
		if n.ShortTag() != "!!str" {
			return "", &problem{"expected a text, found " + kindOf(n), "write " + show(n.Value)}
		}
		if isReserved(n.Value) {
			return "", &problem{n.Value + " is not a text to every YAML reader", "write " + show(n.Value)}
		}
	}
	if n.Value == "" {
		return "", &problem{"the text is empty", ""}
	}
	for _, r := range n.Value {
		if !printable(r) {
			return "", &problem{fmt.Sprintf("the text holds the character %U", r), "remove it"}
		}
	}
	if len(n.Value) > maxText {
		return "", &problem{fmt.Sprintf("the text has %d bytes; at most %d are possible", len(n.Value), maxText), ""}
	}
	return n.Value, nil
}

func (w *Word) read(n *yaml.Node, f *field) *problem {
	known := slices.Concat(f.one, f.later)
	s, p := text(n)
	switch {
	case p != nil:
		return &problem{p.msg, "valid: " + strings.Join(known, ", ")}
	case slices.Contains(f.later, s):
		return &problem{s + " is " + f.refusal, f.why}
	case f.never != "" && s == f.never:
		return &problem{s + " is refused", f.hint}
	case slices.Contains(f.one, s):
		*w = Word(s)
		return nil
	case f.never != "" && Nearest(s, append(known, f.never)) == f.never:
		return &problem{"unknown value " + cut(s), f.hint}
	}
	return &problem{"unknown value " + cut(s), nearest(s, known)}
}

var (
	wholeNumber  = lazily(`^(0|[1-9][0-9]*)$`)
	octalLike    = lazily(`^[-+]?0(o[0-7_]*|[0-9_]+)$`)
	decimalForm  = lazily(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)
	sizeForm     = lazily(`^([1-9][0-9]*)(KiB|MiB|GiB|TiB)?$`)
	sizeMeant    = lazily(`^([1-9][0-9]*) ?([kmgtKMGT])([iI]?[bB])?$`)
	durationForm = lazily(`^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`)
)

// plainNumber checks that a node is a number without quotes that every YAML reader takes for the same one.
func plainNumber(n *yaml.Node, form *lazy, what string) *problem {
	switch {
	case n.Style&quotedStyles != 0 && form.MatchString(n.Value):
		return &problem{"expected " + what + ", found " + kindOf(n), "remove the quotes"}
	case n.Style&quotedStyles != 0:
		return &problem{"expected " + what + ", found " + kindOf(n), ""}
	case octalLike.MatchString(n.Value):
		return &problem{n.Value + " is octal to some YAML readers and decimal to others", "write it in decimal, without a leading zero"}
	case !form.MatchString(n.Value):
		return &problem{"expected " + what + ", found " + kindOf(n), "plain decimal digits"}
	}
	return nil
}

func (v *Number) read(n *yaml.Node, f *field) *problem {
	if p := plainNumber(n, wholeNumber, "a whole number"); p != nil {
		return p
	}
	low, high := parseBound(f.min, 0), parseBound(f.max, math.MaxInt64)
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || i < low || i > high {
		if low == high {
			return &problem{cut(n.Value) + " is out of range", fmt.Sprintf("only %d is known", low)}
		}
		return &problem{cut(n.Value) + " is out of range", fmt.Sprintf("%d to %d", low, high)}
	}
	*v = Number(i)
	return nil
}

// parseBound reads a bound from a tag of ast.go, where a typing error is found by the first test that runs.
func parseBound(s string, otherwise int64) int64 {
	if s == "" {
		return otherwise
	}
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic("policy: bad bound in a struct tag: " + s)
	}
	return i
}

func (v *Decimal) read(n *yaml.Node, f *field) *problem {
	if p := plainNumber(n, decimalForm, "a decimal number"); p != nil {
		return p
	}
	low, _ := strconv.ParseFloat(f.min, 64)
	high, _ := strconv.ParseFloat(f.max, 64)
	x, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || x < low || x > high {
		return &problem{cut(n.Value) + " is out of range", f.min + " to " + f.max}
	}
	*v = Decimal(x)
	return nil
}

func (v *Flag) read(n *yaml.Node, f *field) *problem {
	switch {
	case n.Style&quotedStyles == 0 && slices.Contains(f.later, n.Value):
		return &problem{n.Value + " is " + f.refusal, f.why}
	case n.Style&quotedStyles == 0 && (n.Value == "true" || n.Value == "false"):
		*v = n.Value == "true"
		return nil
	}
	return &problem{"expected true or false, found " + kindOf(n), ""}
}

// minSize is the least limit that makes sense; less is a unit forgotten.
const minSize = 1 << 20

func (v *Size) read(n *yaml.Node, _ *field) *problem {
	const hint = "write bytes, or a number with KiB, MiB, GiB or TiB, as 512MiB"
	m := sizeForm.FindStringSubmatch(n.Value)
	if m == nil {
		if meant := sizeMeant.FindStringSubmatch(n.Value); meant != nil {
			return &problem{"unknown size " + cut(n.Value), "write " + meant[1] + strings.ToUpper(meant[2]) + "iB"}
		}
		return &problem{"unknown size: found " + kindOf(n), hint}
	}
	shift := map[string]uint{"": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	i, err := strconv.ParseInt(m[1], 10, 64)
	switch {
	case err != nil || i > math.MaxInt64>>shift:
		return &problem{cut(n.Value) + " is out of range", "at most 8388607TiB"}
	case i<<shift < minSize:
		return &problem{fmt.Sprintf("%s is %d bytes, less than 1MiB", n.Value, i<<shift), hint}
	}
	*v = Size(i << shift)
	return nil
}

func (v *Span) read(n *yaml.Node, f *field) *problem {
	const hint = "write it as 30s, 5m or 1h30m"
	if n.Style&quotedStyles == 0 && wholeNumber.MatchString(n.Value) {
		return &problem{n.Value + " has no unit", "write " + cut(n.Value+"s") + " for seconds"}
	}
	s, p := text(n)
	if p != nil {
		return &problem{p.msg, hint}
	}
	d, err := time.ParseDuration(s)
	if !durationForm.MatchString(s) || err != nil {
		return &problem{"unknown duration " + cut(s), hint}
	}
	low, errLow := time.ParseDuration(f.min)
	high, errHigh := time.ParseDuration(f.max)
	if errLow != nil || errHigh != nil {
		panic("policy: bad bound in a struct tag: " + f.min + ", " + f.max)
	}
	if d < low || d > high {
		return &problem{cut(s) + " is out of range", f.min + " to " + f.max}
	}
	*v = Span(d)
	return nil
}

func (v *PresetName) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p != nil {
		return p
	}
	if !slices.Contains(presetNames(), s) {
		return &problem{"unknown preset " + cut(s), nearest(s, presetNames())}
	}
	*v = PresetName(s)
	return nil
}

func (v *SandboxName) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p != nil {
		return p
	}
	if err := ValidName(s); err != nil {
		return &problem{err.Error(), ""}
	}
	*v = SandboxName(s)
	return nil
}
