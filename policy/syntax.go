package policy

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The YAML reader names, if anything, the line where the enclosing construct began, and no column. So the place is
// searched: the first line that no longer reads, then the character in it.
const (
	locateBudget  = 8 << 20 // bytes read in one search, so that it takes a second at most
	maxLocateLine = 200     // characters of a line that are tried one by one
)

// openLines is how many lines further is looked for the end of a flow list or a quoted text that spans lines: in the
// middle of one nothing reads, after it everything does again.
var openLines = []int{0, 1, 2, 3, 5, 8, 13, 21, 34}

var yamlPrefix = lazily(`^yaml: (?:line (\d+): )?`)

// syntaxHelp says in plain words what the YAML reader's messages mean in a policy.
var syntaxHelp = map[string]string{
	"did not find expected alphabetic or numeric character":  `a text that starts with "*" or "&" needs quotes: "*.example.org"`,
	"mapping values are not allowed in this context":         `a text that holds ": " needs quotes; a key starts on a line of its own`,
	"did not find expected key":                              "check the indentation of this line and the one above",
	"did not find expected '-' indicator":                    "check the indentation: items of a list start with `- ` in one column",
	"could not find expected ':'":                            "a key needs `: ` and a value",
	"did not find expected ',' or ']'":                       "close the list with ]",
	"did not find expected ',' or '}'":                       "close the mapping with }",
	"found unexpected end of stream":                         "close the quote",
	"found character that cannot start any token":            "quote the text",
	"block sequence entries are not allowed in this context": "start the list on the line below its key",
	"did not find expected node content":                     "a value is missing here",
}

// addSyntax reports what the YAML reader said of src, at the best place that can be found.
func addSyntax(c *collector, src []byte, err error) {
	text := err.Error()
	m := yamlPrefix.FindStringSubmatch(text)
	pos := At{}
	if m != nil {
		text = text[len(m[0]):]
		pos.Line, _ = strconv.Atoi(m[1])
	}
	if found := (&locator{src: src, budget: locateBudget}).locate(); found.Line > 0 {
		pos = found
	}
	hint := syntaxHelp[text]
	if strings.HasPrefix(text, "unknown anchor") {
		hint = `an alias (*name) is not allowed; a name that starts with "*" needs quotes`
	}
	c.add(pos, "", "not YAML: "+text, hint)
}

// locator searches for the place of a syntax error.
type locator struct {
	src    []byte
	budget int // bytes that may still be read
}

// reads reports whether the first n bytes are a whole number of YAML documents. Out of budget it is false.
func (l *locator) reads(n int) bool {
	if l.budget -= n; l.budget < 0 {
		return false
	}
	dec := yaml.NewDecoder(bytes.NewReader(l.src[:n]))
	for {
		var node yaml.Node
		if err := dec.Decode(&node); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// locate finds where src stops being YAML: the end of the longest run of whole lines that reads, then of the longest
// part of the next line that does. The zero At means that it was not found.
func (l *locator) locate() At {
	ends := []int{0} // ends[k] is where the first k lines end
	for i, b := range l.src {
		if b == '\n' || i == len(l.src)-1 {
			ends = append(ends, i+1)
		}
	}
	good, bad := 0, len(ends)-1 // the first good lines read; with bad lines they don't
	for bad-good > 1 {
		mid := good + (bad-good)/2
		before := good
		for _, more := range openLines {
			if k := mid + more; k < bad && l.reads(ends[k]) {
				good = k
				break
			}
		}
		if good == before {
			bad = mid
		}
	}
	if bad == 0 || l.budget < 0 {
		return At{}
	}
	line := bytes.TrimRight(l.src[ends[bad-1]:ends[bad]], "\r\n")
	pos := At{Line: bad, Col: 1 + len(line) - len(bytes.TrimLeft(line, " "))}
	if len(line) > maxLocateLine {
		return pos
	}
	for n := len(line); n >= pos.Col; n-- {
		if l.reads(ends[bad-1] + n) {
			pos.Col = min(utf8.RuneCount(line[:n])+1, utf8.RuneCount(line))
			break
		}
	}
	return pos
}
