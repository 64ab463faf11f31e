package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxFile is far more than all settings take.
const maxFile = 64 << 10

// Load reads a configuration file. With name "" it is DefaultFile, which may be missing; a file that was named may not.
func Load(name string) (Config, error) { return load(name, nil) }

// Flags are the settings that a command line gives; they win over the file's.
type Flags struct {
	file  string
	set   *pflag.FlagSet
	given map[string]*string // by key
}

// Bind adds --config and a flag for each setting.
func Bind(set *pflag.FlagSet) *Flags {
	f := &Flags{set: set, given: map[string]*string{}}
	defaults := Default()
	set.StringVar(&f.file, "config", "", "configuration `FILE` (default: "+DefaultFile+", if it is there)")
	for _, s := range settings {
		f.given[s.key] = set.String(s.flag(), s.get(&defaults), s.about)
	}
	return f
}

// Load reads the file and puts the flags that were given over it.
func (f *Flags) Load() (Config, error) { return load(f.file, f) }

func load(name string, flags *Flags) (Config, error) {
	c := Default()
	named := name != ""
	if !named {
		name = DefaultFile
	}
	src, err := read(name)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	if err := c.parse(name, src); err != nil {
		return Config{}, err
	}
	if flags != nil {
		name += " and the flags"
		if err := flags.over(&c); err != nil {
			return Config{}, err
		}
	}
	c.complete()
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (f *Flags) over(c *Config) error {
	for _, s := range settings {
		if !f.set.Changed(s.flag()) {
			continue
		}
		if err := s.set(c, *f.given[s.key]); err != nil {
			return fmt.Errorf("--%s %q: %w", s.flag(), *f.given[s.key], err)
		}
	}
	return nil
}

// read reads a file that only its owner, who is root or ourselves, can have written: whoever writes it moves the daemon's
// paths, and root follows.
func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s can be written by others than its owner (mode %04o): chmod go-w %s", name, info.Mode().Perm(), name)
	}
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(src) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return src, err
}

// parse reads `key: value` lines. What it does not know is an error: a misspelt path would be a default one.
func (c *Config) parse(name string, src []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // empty, or comments only
	case err != nil:
		return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one document; remove the `---` line", name)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want `key: value` lines; the keys are %s", name, root.Line, strings.Join(keys(), ", "))
	}
	seen := map[string]int{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		s, known := find(key.Value)
		switch {
		case seen[key.Value] != 0:
			return fmt.Errorf("%s:%d: %s was given in line %d already; remove one", name, key.Line, key.Value, seen[key.Value])
		case slices.Contains(listKeys, key.Value):
			seen[key.Value] = key.Line
			if err := c.parseListed(name, key.Value, value); err != nil {
				return err
			}
			continue
		case !known:
			return fmt.Errorf("%s:%d: %w", name, key.Line, unknownKey(key.Value, keys()))
		case value.Kind != yaml.ScalarNode:
			return fmt.Errorf("%s:%d: %s: want one value", name, value.Line, s.key)
		case value.ShortTag() == "!!null":
			return fmt.Errorf("%s:%d: %s has no value; give one, or remove the line", name, value.Line, s.key)
		}
		seen[s.key] = key.Line
		if err := s.set(c, value.Value); err != nil {
			return fmt.Errorf("%s:%d: %s %q: %w", name, value.Line, s.key, value.Value, err)
		}
	}
	return nil
}

func (c *Config) parseListed(name, key string, list *yaml.Node) (err error) {
	switch key {
	case hooksKey:
		c.Hooks, err = parseList(name, key, "`- exec: [/path/of/a/program]`, `- webhook: https://...`", maxHooks, list, parseHook)
	case forwardKey:
		c.Forward, err = parseForwards(name, list)
	case tracesKey:
		c.Traces, err = parseTraces(name, list)
	}
	return err
}

// plain values need no quotes in YAML.
var plain = regexp.MustCompile(`^[0-9A-Za-z_/][0-9A-Za-z_./:-]*$`)

// String is the configuration as a file, every setting in it: what `nemoclaw-agent --check` shows.
func (c Config) String() string {
	var b strings.Builder
	for _, s := range settings {
		value := s.get(&c)
		if !plain.MatchString(value) || strings.EqualFold(value, "null") {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&b, "%-15s %s\n", s.key+":", value)
	}
	return b.String() + listText(hooksKey, c.Hooks) + listText(forwardKey, c.Forward) + mappingText(tracesKey, c.Traces)
}
