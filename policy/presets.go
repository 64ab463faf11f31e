package policy

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
)

// The presets are files of the language. They have rules only: no extends, no settings.
//
//go:embed presets/*.yaml
var presetFiles embed.FS

//go:embed initial.yaml
var initial []byte

// Initial is the policy that `nemoclaw init` writes, and that `nemoclaw run` uses without one.
func Initial() []byte { return append([]byte(nil), initial...) }

// Presets names the presets, sorted.
func Presets() []string { return slices.Clone(presetNames()) }

var presetNames = sync.OnceValue(func() []string {
	entries, err := presetFiles.ReadDir("presets")
	if err != nil {
		panic("policy: the presets are not in the binary: " + err.Error()) // can't be: go:embed would not have built
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	return names
})

// PresetSource returns the YAML of a preset.
func PresetSource(name string) ([]byte, error) {
	// A name is a file's, never a path.
	src, err := presetFiles.ReadFile(path.Join("presets", path.Base("/"+name)+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("policy: there is no preset %s (%s)", cut(name), nearest(name, Presets()))
	}
	return src, nil
}

// parsePreset parses a preset. Its rules stand at "preset:NAME:LINE".
func parsePreset(name string) (*Policy, error) {
	src, err := PresetSource(name)
	if err != nil {
		return nil, err
	}
	return Parse("preset:"+name, src)
}

// PresetAbout says in one line what a preset is for: the first of its file.
func PresetAbout(name string) string {
	src, err := PresetSource(name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(src), "\n")
	return strings.TrimPrefix(line, "# "+name+": ")
}
