package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/agent/metrics"
)

// TestFilesAreWhatTheListGives: what is committed is what `make generate` writes.
func TestFilesAreWhatTheListGives(t *testing.T) {
	t.Parallel()
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(string(got), want); diff != "" {
			t.Errorf("%s is not what the list gives; run `go generate ./deploy`\n%s", name, diff)
		}
	}
}

// TestOnlyMetricsOfTheList are asked for.
func TestOnlyMetricsOfTheList(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, m := range metrics.List() {
		known[m.Name] = true
		if m.Kind == metrics.Histogram {
			for _, s := range []string{"_bucket", "_sum", "_count"} {
				known[m.Name+s] = true
			}
		}
	}
	name := regexp.MustCompile(`\bnemoclaw_\w+`)
	check := func(where, expr string) {
		for _, n := range name.FindAllString(expr, -1) {
			if !known[n] {
				t.Errorf("%s asks for %s, which is not on the list", where, n)
			}
		}
	}
	for _, a := range alerts {
		check(a.name, a.expr)
	}
	for _, s := range sections() {
		for _, p := range panels(s) {
			for _, q := range p.queries {
				check(p.title, q.expr)
			}
		}
	}
}

// TestDashboardIsWhatGrafanaTakes: it has what Grafana's schema of a dashboard demands (kinds/dashboard of its sources) and nothing that
// it does not know, each panel has a number and a place of its own, and each unit is one of Grafana's.
func TestDashboardIsWhatGrafanaTakes(t *testing.T) {
	t.Parallel()
	text, err := dashboard()
	if err != nil {
		t.Fatal(err)
	}
	type source struct{ Type, UID string }
	var board struct {
		UID, Title, Description, Refresh string
		Tags                             []string
		SchemaVersion, Version           uint
		Editable                         bool
		Time                             struct{ From, To string }
		Panels                           []struct {
			ID                       uint32
			Type, Title, Description string
			Collapsed                bool
			Panels                   []struct{}
			Datasource               source
			Targets                  []struct {
				RefID, Expr, LegendFormat string
				Datasource                source
			}
			GridPos     struct{ H, W, X, Y int }
			FieldConfig struct {
				Defaults struct {
					Unit string
					Min  float64
				}
				Overrides []struct{}
			}
		}
		Templating struct {
			List []struct {
				Name, Label, Type, AllValue string
				Query                       any
				Datasource                  source
				Refresh, Sort               int
				Multi, IncludeAll           bool
				Current                     struct{ Text, Value string }
			}
		}
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&board); err != nil {
		t.Fatal(err)
	}
	if len(board.UID) < 8 || len(board.UID) > 40 || board.Title == "" || board.SchemaVersion < 36 || len(board.Panels) == 0 || len(board.Templating.List) != 2 {
		t.Errorf("%+v", board)
	}
	units := map[string]bool{"none": true, "short": true, "s": true, "ops": true, "bytes": true, "Bps": true, "percentunit": true, "watt": true, "celsius": true}
	ids, titles, taken := map[uint32]bool{}, map[string]bool{}, map[[2]int]bool{}
	for _, p := range board.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" || titles[p.Type+p.Title] {
			t.Errorf("the number %d or the title %q is another panel's, or missing", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Type+p.Title] = true, true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] || at[0] >= 24 {
					t.Fatalf("%s is where another panel is, or beyond the edge: %+v", p.Title, p.GridPos)
				}
				taken[at] = true
			}
		}
		if p.GridPos.W < 1 || p.GridPos.H < 1 || p.Type != "row" && p.Type != "timeseries" {
			t.Errorf("%s is a %s of %+v", p.Title, p.Type, p.GridPos)
		}
		if p.Type == "row" {
			continue
		}
		if !units[p.FieldConfig.Defaults.Unit] || p.Datasource != (source{"prometheus", "${source}"}) || len(p.Targets) == 0 {
			t.Errorf("%s: unit %q, source %+v, %d targets", p.Title, p.FieldConfig.Defaults.Unit, p.Datasource, len(p.Targets))
		}
		for i, q := range p.Targets {
			if q.RefID != string(rune('A'+i)) || q.Expr == "" || q.LegendFormat == "" || q.Datasource != p.Datasource {
				t.Errorf("%s: %+v", p.Title, q)
			}
		}
	}
}

// TestEachAlertIsTested: the rules' own tests make each alert come.
func TestEachAlertIsTested(t *testing.T) {
	t.Parallel()
	if len(examples) != len(alerts) {
		t.Errorf("%d alerts have %d examples", len(alerts), len(examples))
	}
	for _, a := range alerts {
		e := examples[a.name]
		if len(e.series) == 0 || e.quiet == "" || e.fires == "" {
			t.Errorf("%s has no example of when it comes, and of when it does not", a.name)
		}
		if a.summary == "" || a.runbook == "" {
			t.Errorf("%s does not say what is wrong, or what to do", a.name)
		}
	}
}
