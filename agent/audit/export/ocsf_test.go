package export

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestOCSFRecords judges the event of every kind of record that the mapping knows, and of one that it does not, with each verdict and
// with more and less that is known of who it was.
func TestOCSFRecords(t *testing.T) {
	t.Parallel()
	subjects := []policy.Subject{{}, {PID: 3}, {Exe: "/usr/bin/curl"}, {Args: "curl -sS"}, {PID: 3, Exe: "/usr/bin/curl", Args: "curl -sS", Taint: "LD_PRELOAD"}}
	objects := []string{"", "name", "/etc/passwd", "/", "example.com:443", "192.0.2.1:53", "[2001:db8::1]:443", "[fe80::1%eth0]:1", "[::ffff:192.0.2.1]:80", ":0", "x:65536", "start", "stop"}
	events := 0
	for _, p := range append(policy.Planes(), "a plane of tomorrow") {
		actions := []string{"", "an action of tomorrow"}
		for action := range activities[p] {
			actions = append(actions, action)
		}
		for _, action := range actions {
			for v := policy.Deny; v <= policy.Allow; v++ {
				for i, subject := range subjects {
					for n, object := range objects {
						d := policy.Decision{Seq: 7, Time: time.Unix(1790000000, 0), Sandbox: []string{"box", ""}[n%2], Plane: p, Action: action, Object: object, Subject: subject, Verdict: v}
						if n > 3 {
							d.Rule, d.Reason, d.Revision, d.Count, d.Asked = "p.yaml:3", "because", "00aa", uint64(n), "file open"
						}
						if p == policy.PlaneInference && i > 0 {
							d.Inference = &policy.ModelCall{ID: "ab12", Model: "corp/big", Tool: &policy.ToolUse{Params: "{}"}}
						}
						judged(t, d)
						events++
					}
				}
			}
		}
	}
	t.Logf("%d events", events)
}

// judged makes an event of a record, and judges it.
func judged(t *testing.T, d policy.Decision) {
	t.Helper()
	event, err := ocsf(nil, nil, &d)
	if err != nil {
		t.Fatal(err)
	}
	if faults := ocsfFaults(event); len(faults) > 0 {
		t.Errorf("%s %s %s: %q\n%s", d.Plane, d.Action, d.Verdict, faults, event)
	}
}

func FuzzOCSF(f *testing.F) {
	for _, h := range hostile {
		f.Add(h, h, h, h, h, uint8(1), 3, uint64(1), int64(1790000000))
	}
	f.Add("[::1]:9", "/a/..", "x", "connect", "box", uint8(0), -1, uint64(1)<<63, int64(-1))
	f.Fuzz(func(t *testing.T, object, exe, args, action, sandbox string, what uint8, pid int, count uint64, seconds int64) {
		if seconds < 1e9 || seconds > 9e9 {
			seconds = 1790000000 // no clock of a host is so wrong; a log that says so is exported as it is
		}
		planes := policy.Planes()
		d := policy.Decision{Seq: count, Time: time.Unix(seconds, 0), Sandbox: sandbox, Plane: planes[int(what)%len(planes)], Action: action, Object: object, Verdict: policy.Verdict(what % 3),
			Subject: policy.Subject{PID: pid, Exe: exe, Args: args}, Rule: object, Reason: args, Revision: exe, Count: count}
		if d.Plane == policy.PlaneInference {
			d.Inference = &policy.ModelCall{ID: args, Asked: object, Model: exe, Classes: map[string]int{args: 1}, Tool: &policy.ToolUse{Through: []string{args}, Params: args, Result: args}}
		}
		read, err := Parse(audit.AppendJSON(nil, &d))
		if err != nil {
			t.Fatal(err)
		}
		judged(t, read)
	})
}

// TestOCSFKinds finds every action that the product's code gives a record, and fails for one that the mapping has not been told of: it
// would become "other", which nobody chose.
func TestOCSFKinds(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, actions := range activities {
		for action := range actions {
			known[action] = true
		}
	}
	found := map[string]bool{gpu.Action: true, "erase": true} // names of the code, not words in it
	for _, h := range loader.Hooks() {
		if h != loader.HookFile && h != loader.HookDevice { // a record has what was done to it
			found[h.String()] = true
		}
	}
	for op := loader.FileOp(0); !strings.HasPrefix(op.String(), "operation "); op++ {
		found[op.String()] = true
	}
	for action := range found {
		if !known[action] {
			t.Errorf("the kernel's events have %q, which activities in ocsf.go has not", action)
		}
	}
	root := filepath.Join("..", "..", "..")
	for dir, recorders := range recorders {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, filepath.Join("approvals", "risk")) {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, x := range actionsIn(n, recorders) {
					action, ok := word(x)
					if !ok {
						continue
					}
					found[action] = true
					if !known[action] {
						t.Errorf("%s: a record has the action %q: give it an activity in activities (ocsf.go), of a class of the schema, or other", set.Position(x.Pos()), action)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for action := range known {
		if !found[action] {
			t.Errorf("no code gives a record the action %q, which activities has", action)
		}
	}
}

// recorders are the functions that are given a record's action, and as which argument, by the directory they are in.
var recorders = map[string]map[string]int{
	"agent": {"note": 0, "tool": 1, "rest": 1}, "agent/approvals": {"record": 1, "permit": 1, "became": 1}, "dnsproxy": {"decision": 2}, "policy": {},
}

// actionsIn are the expressions of a piece of code that a record's action comes from.
func actionsIn(n ast.Node, recorders map[string]int) (list []ast.Expr) {
	switch n := n.(type) {
	case *ast.CompositeLit:
		if called(n.Type) != "Decision" {
			return nil
		}
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && called(kv.Key) == "Action" {
				list = append(list, kv.Value)
			}
		}
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			if sel, ok := left.(*ast.SelectorExpr); ok && sel.Sel.Name == "Action" && i < len(n.Rhs) {
				list = append(list, n.Rhs[i])
			}
		}
	case *ast.CallExpr:
		if i, ok := recorders[called(n.Fun)]; ok && i < len(n.Args) {
			list = append(list, n.Args[i])
		}
	case *ast.FuncDecl: // the words that such a function returns
		if n.Name.Name != "fileAction" {
			return nil
		}
		ast.Inspect(n, func(n ast.Node) bool {
			if r, ok := n.(*ast.ReturnStmt); ok {
				list = append(list, r.Results...)
			}
			return true
		})
	}
	return list
}

// called is the last name of an expression.
func called(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}

func word(x ast.Expr) (string, bool) {
	l, ok := x.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
