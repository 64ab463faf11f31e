package policy

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The YAML reader names, if anything, the line where the enclosing construct began, and no column. So the place is
// searched: the first line that no longer reads, then the character in it. The limits keep that under a second.
const (
	maxLocateSource = 256 << 10
	maxLocateLine   = 200
	maxOpenLines    = 50 // how many lines a flow list or a quoted text may span and still be told from an error
)

var yamlPrefix = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

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
	if len(src) <= maxLocateSource {
		if found := locate(src); found.Line > 0 {
			pos = found
		}
	}
	hint := syntaxHelp[text]
	if strings.HasPrefix(text, "unknown anchor") {
		hint = `an alias (*name) is not allowed; a name that starts with "*" needs quotes`
	}
	c.add(pos, "", "not YAML: "+text, hint)
}

// reads reports whether src is a whole number of YAML documents.
func reads(src []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	for {
		var n yaml.Node
		if err := dec.Decode(&n); err != nil {
			return err.Error() == "EOF"
		}
	}
}

// locate finds where src stops being YAML: the end of the longest run of whole lines that reads, then of the longest
// part of the next line that does. The zero At means that it was not found.
func locate(src []byte) At {
	ends := []int{0} // ends[k] is where the first k lines end
	for i, b := range src {
		if b == '\n' || i == len(src)-1 {
			ends = append(ends, i+1)
		}
	}
	good, bad := 0, len(ends)-1 // the first good lines read; with bad lines they don't
	for bad-good > 1 {
		mid := good + (bad-good)/2
		// Lines in the middle of a flow list or of a quoted text don't read either, but some lines later they do.
		k := mid
		for k < bad && k < mid+maxOpenLines && !reads(src[:ends[k]]) {
			k++
		}
		if k < bad && k < mid+maxOpenLines {
			good = k
		} else {
			bad = mid
		}
	}
	if bad == 0 {
		return At{}
	}
	line := bytes.TrimRight(src[ends[bad-1]:ends[bad]], "\r\n")
	pos := At{Line: bad, Col: 1 + len(line) - len(bytes.TrimLeft(line, " "))}
	if len(line) > maxLocateLine || ends[bad] > maxLocateSource/8 {
		return pos
	}
	for cut := len(line); cut >= pos.Col; cut-- {
		if reads(src[:ends[bad-1]+cut]) {
			pos.Col = min(utf8.RuneCount(line[:cut])+1, utf8.RuneCount(line))
			break
		}
	}
	return pos
}
