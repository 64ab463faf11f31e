package gpu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Library is a library of the driver's.
type Library struct {
	Name string `json:"name"` // as the dynamic loader looks for it: libcuda.so.1
	Path string `json:"path"` // of the file, symbolic links followed
}

// driverLibraries are the libraries of the driver that programs which compute use, as NVIDIA's container toolkit lists them for
// `compute,utility`; and what the loader calls them. All but the first two may be missing.
var driverLibraries = []string{
	"libcuda.so.1", "libnvidia-ml.so.1",
	"libcudadebugger.so.1", "libnvidia-allocator.so.1", "libnvidia-cfg.so.1", "libnvidia-compiler.so", "libnvidia-gpucomp.so", "libnvidia-nvvm.so.4",
	"libnvidia-opencl.so.1", "libnvidia-pkcs11.so", "libnvidia-pkcs11-openssl3.so", "libnvidia-ptxjitcompiler.so.1", "libnvidia-sandboxutils.so.1",
}

// needed is how many of driverLibraries nothing works without.
const needed = 2

// libraries finds the libraries of a version of the driver, where the dynamic loader finds them: by its cache, then in its own
// directories. Some are called by the version alone. A library of another version would not work with this driver.
func libraries(root, version string) (list []Library, err error) {
	cached := readCache(filepath.Join(root, "etc/ld.so.cache"))
	for i, name := range driverLibraries {
		path := find(root, cached, name, version)
		if path == "" && !strings.Contains(name, ".so.") {
			name += "." + version
			path = find(root, cached, name, version)
		}
		switch {
		case path != "":
			list = append(list, Library{name, path})
		case i < needed:
			return nil, fmt.Errorf("the driver's library %s of version %s is not installed where the dynamic loader looks", name, version)
		}
	}
	return list, nil
}

// libraryDirs are the dynamic loader's own directories.
var libraryDirs = func() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return []string{"/usr/lib/" + triplet, "/lib/" + triplet, "/usr/lib64", "/lib64", "/usr/lib", "/lib"}
}()

// find returns the file behind a library's name, below root; "" when there is none of that version.
func find(root string, cached map[string][]string, name, version string) string {
	candidates := slices.Clone(cached[name])
	for _, dir := range libraryDirs {
		candidates = append(candidates, filepath.Join(dir, name))
	}
	for _, at := range candidates {
		real, err := filepath.EvalSymlinks(filepath.Join(root, at))
		if err != nil || !strings.HasSuffix(real, "."+version) {
			continue
		}
		if is, err := os.Stat(real); err == nil && is.Mode().IsRegular() {
			rel, err := filepath.Rel(root, real)
			if err == nil {
				return "/" + rel
			}
		}
	}
	return ""
}

// The dynamic loader's cache, glibc's sysdeps/generic/dl-cache.h: a header, entries, and the texts that they point to.
const (
	cacheMagic  = "glibc-ld.so.cache1.1"
	cacheHeader = 48
	cacheEntry  = 24
	cacheFile   = 64 << 20
)

// readCache lists the paths that the dynamic loader's cache has for each library of this architecture. What can't be read has none.
func readCache(file string) map[string][]string {
	found := map[string][]string{}
	text, err := os.ReadFile(file)
	if err != nil || len(text) > cacheFile {
		return found
	}
	// An older format may stand before it.
	if i := bytes.Index(text, []byte(cacheMagic)); i >= 0 {
		text = text[i:]
	}
	if len(text) < cacheHeader || !bytes.HasPrefix(text, []byte(cacheMagic)) {
		return found
	}
	flags := map[string]uint32{"amd64": 0x0303, "arm64": 0x0a03}[runtime.GOARCH] // FLAG_ELF_LIBC6 with the architecture's
	at := func(offset uint32) string {
		if int64(offset) >= int64(len(text)) {
			return ""
		}
		word, _, _ := bytes.Cut(text[offset:], []byte{0})
		return string(word)
	}
	for i := range binary.NativeEndian.Uint32(text[len(cacheMagic):]) {
		begin := cacheHeader + int64(i)*cacheEntry
		if begin+cacheEntry > int64(len(text)) {
			break
		}
		e := text[begin:]
		if binary.NativeEndian.Uint32(e) == flags {
			name := at(binary.NativeEndian.Uint32(e[4:]))
			found[name] = append(found[name], at(binary.NativeEndian.Uint32(e[8:])))
		}
	}
	return found
}
