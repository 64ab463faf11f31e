// Package npm serves a registry of a few packages made on the spot, with what the npm client asks of a registry and nothing
// more. It is for tests and for the demo where no registry is reachable; it never talks to another registry.
package npm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1" // npm's own `shasum` field
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

const version = "1.0.0"

// Package is one package: its files by name (package.json is made), and what it depends on.
type Package struct {
	Files        map[string]string
	Dependencies []string
	Scripts      map[string]string
}

// Samples is a package with a dependency and an install script, as real projects have them.
var Samples = map[string]Package{
	"left-padded": {
		Files:        map[string]string{"index.js": "module.exports = (s, n) => require('space-maker')(n - s.length) + s\n"},
		Dependencies: []string{"space-maker"},
	},
	"space-maker": {
		Files: map[string]string{
			"index.js":   "module.exports = n => ' '.repeat(Math.max(n, 0))\n",
			"install.js": "require('fs').writeFileSync('built.txt', 'built by ' + process.version)\n",
		},
		Scripts: map[string]string{"install": "node install.js"},
	},
}

// Handler serves packages.
func Handler(packages map[string]Package) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, file, tarball := strings.Cut(strings.Trim(r.URL.Path, "/"), "/-/")
		p, ok := packages[name]
		if !ok {
			http.Error(w, `{"error":"not found"}`, http.StatusNotFound)
			return
		}
		packed, err := p.pack(name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if tarball {
			if file != fileName(name) {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(packed) // a client that went away misses nothing
			return
		}
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p.document(name, packed, scheme+"://"+r.Host))
	})
}

func fileName(name string) string { return name + "-" + version + ".tgz" }

func (p Package) manifest(name string) map[string]any {
	deps := map[string]string{}
	for _, d := range p.Dependencies {
		deps[d] = "^" + version
	}
	m := map[string]any{"name": name, "version": version, "main": "index.js", "dependencies": deps}
	if p.Scripts != nil {
		m["scripts"] = p.Scripts
	}
	return m
}

func (p Package) document(name string, packed []byte, base string) map[string]any {
	shasum := sha1.Sum(packed)
	integrity := sha512.Sum512(packed)
	m := p.manifest(name)
	m["dist"] = map[string]any{
		"tarball":   fmt.Sprintf("%s/%s/-/%s", base, name, fileName(name)),
		"shasum":    hex.EncodeToString(shasum[:]),
		"integrity": "sha512-" + base64.StdEncoding.EncodeToString(integrity[:]),
	}
	m["hasInstallScript"] = p.Scripts != nil
	return map[string]any{
		"name":      name,
		"dist-tags": map[string]string{"latest": version},
		"versions":  map[string]any{version: m},
	}
}

func (p Package) pack(name string) ([]byte, error) {
	manifest, err := json.Marshal(p.manifest(name))
	if err != nil {
		return nil, err
	}
	files := map[string]string{"package.json": string(manifest)}
	for n, text := range p.Files {
		files[n] = text
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	tw := tar.NewWriter(zip)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: "package/" + n, Mode: 0o644, Size: int64(len(files[n])), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := tw.Write([]byte(files[n])); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
