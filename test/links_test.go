package test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	dropped = regexp.MustCompile("[^a-z0-9 _-]")
)

// anchors are the names by which a page's headings can be linked to, as GitHub makes them.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(page, -1) {
		all[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")] = true
	}
	return all
}

// TestDocumentsLinkToWhatIsThere: each link of a document leads to a file of the repository, and to a heading that it has; and links
// lead from the README to each page of docs.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil || len(docs) < 20 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	pages, linked := map[string]string{}, map[string]map[string]bool{}
	for _, file := range append(docs, "../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pages[file] = fence.ReplaceAllString(string(b), "")
	}
	for file, page := range pages {
		linked[file] = map[string]bool{}
		for _, l := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			name, anchor, _ := strings.Cut(l[1], "#")
			to := file
			if name != "" {
				to = filepath.Join(filepath.Dir(file), name)
			}
			linked[file][to] = true
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: (%s): %v", file, l[1], err)
			} else if other, is := pages[to]; anchor != "" && (!is || !anchors(other)[anchor]) {
				t.Errorf("%s: (%s): %s has no such heading", file, l[1], to)
			}
		}
	}
	found, next := map[string]bool{}, []string{"../README.md"}
	for len(next) > 0 {
		file := next[0]
		next = next[1:]
		if !found[file] {
			found[file] = true
			next = slices.AppendSeq(next, maps.Keys(linked[file]))
		}
	}
	for _, file := range docs {
		if !found[file] {
			t.Errorf("%s: nobody finds it who begins with README.md", file)
		}
	}
}
