// Command deploy writes what Prometheus and Grafana need for NemoClaw, from the list of metrics: the alert rules with their tests, the
// dashboard, and the tables of the documents. It knows of no metric but by that list, and asks no server anything.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:generate go run .

func main() {
	files, err := generate("..")
	if err != nil {
		fmt.Fprintln(os.Stderr, "deploy:", err)
		os.Exit(1)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join("..", name), []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "deploy:", err)
			os.Exit(1)
		}
	}
}

// generate makes each file, by its name below root.
func generate(root string) (map[string]string, error) {
	rules, err := rulesFile()
	if err != nil {
		return nil, err
	}
	tests, err := rulesTestFile()
	if err != nil {
		return nil, err
	}
	board, err := dashboard()
	if err != nil {
		return nil, err
	}
	const doc = "docs/metrics.md"
	text, err := os.ReadFile(filepath.Join(root, doc))
	if err != nil {
		return nil, err
	}
	page := string(text)
	for mark, table := range map[string]string{"metrics": metricTable(), "alerts": alertTable()} {
		if page, err = between(page, mark, table); err != nil {
			return nil, fmt.Errorf("%s: %w", doc, err)
		}
	}
	return map[string]string{"deploy/prometheus-rules.yml": rules, "deploy/prometheus-rules-test.yml": tests, "deploy/grafana-dashboard.json": board, doc: page}, nil
}

// between puts a text where a page has the marks for it.
func between(page, mark, text string) (string, error) {
	begin, end := "<!-- "+mark+": generated -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(page, begin)
	_, after, also := strings.Cut(rest, end)
	if !ok || !also {
		return "", fmt.Errorf("the line %q, and one %q after it, are missing", strings.TrimSpace(begin), end)
	}
	return before + begin + "\n" + text + "\n" + end + after, nil
}
