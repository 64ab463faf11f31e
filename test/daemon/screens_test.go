//go:build e2e

package daemon

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// screensIn is the document that shows the console's screens, each after a line <!-- screen: NAME -->.
const screensIn = "../../docs/console.md"

// TestConsoleScreens goes through the console's screens, and with UPDATE=1 (scripts/screens) writes what they show into the
// document.
func TestConsoleScreens(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "builder", curls)
	create(t, d, "reviewer", strings.Replace(curls, "default: ask", "default: deny", 1))
	for _, n := range []string{"api.screens.test", "xn--pple-43d.screens.test", "docs.screens.test", "mirror.screens.test"} {
		served(t, n)
	}
	doc, err := os.ReadFile(screensIn)
	if err != nil {
		t.Fatal(err)
	}
	s := harness.NewScreen(t, harness.W.BinFirst(append(d.Env(), "NO_COLOR=1")))
	s.Resize(t, "110", "32")
	s.Line(t, "nemoclaw term")
	s.WaitFor(t, "Requests")
	shoot := func(name string, shows ...string) {
		t.Helper()
		for _, text := range shows {
			s.WaitFor(t, text)
		}
		block := regexp.MustCompile("(?s)(<!-- screen: " + name + " -->\n```text\n).*?(```\n)")
		if !block.Match(doc) {
			t.Errorf("%s has no place for the screen %q", screensIn, name)
		}
		if os.Getenv("UPDATE") != "" {
			doc = block.ReplaceAllFunc(doc, func(b []byte) []byte {
				parts := block.FindSubmatch(b)
				return append(append(parts[1], s.Text(t)+"\n"...), parts[2]...)
			})
		}
	}
	back := func() {
		t.Helper()
		s.Key(t, "Escape")
		s.WaitFor(t, "Tab panes")
	}

	for range 3 {
		<-fetch(t, d, "reviewer", "mirror.screens.test")
	}
	first := fetch(t, d, "builder", "docs.screens.test")
	s.WaitFor(t, "docs.screens.test:80")
	s.Key(t, "0") // the cursor stays with the request that was there first
	s.WaitFor(t, ">held")
	press(t, s, "A")
	s.WaitFor(t, "until the sandbox stops")
	s.Key(t, "j")
	s.WaitFor(t, "A grant: allow connect docs.screens.test:80")
	press(t, s, "Enter")
	time.Sleep(300 * time.Millisecond) // it may be asked twice
	if strings.Contains(s.Text(t), "all the same?") {
		press(t, s, "y")
	}
	if got := <-first; got.status != 0 {
		t.Fatalf("%+v", got)
	}
	held := fetch(t, d, "builder", "api.screens.test")
	s.WaitFor(t, "api.screens.test:80")
	s.Key(t, "0")
	alike := fetch(t, d, "builder", "xn--pple-43d.screens.test")
	shoot("panes", "xn--pple-43d.screens.test:80", "mirror.screens.test:80", "Decisions")

	s.Key(t, "j")
	s.WaitFor(t, ">held")
	s.Key(t, "Enter")
	shoot("request", "reads", "started by", "risk")
	press(t, s, "a")
	shoot("twice", "Allow it all the same?")
	s.Key(t, "n")
	s.WaitFor(t, "Request ")
	back()
	s.Key(t, "k")
	s.Key(t, "e")
	shoot("explain", "verdict", "why")
	back()
	press(t, s, "A")
	for range 20 {
		if strings.Contains(s.Text(t), "+    - domain: api.screens.test") {
			break
		}
		s.Key(t, "j")
		time.Sleep(300 * time.Millisecond)
	}
	shoot("scope", "+    - domain: api.screens.test")
	back()
	s.Key(t, "g")
	shoot("grants", ">allow")
	back()
	s.Key(t, "p")
	s.WaitFor(t, "1  hold: 60s")
	s.Key(t, "e")
	s.WaitFor(t, "Editing the policy")
	for range 12 {
		s.Key(t, "Down")
	}
	s.Type(t, "  allow: [{domain: api.screens.test, ports: [80], protocol: http}]")
	s.Key(t, "Enter")
	s.Key(t, "C-s")
	shoot("policy", "Apply this change?", "+  allow:")
	s.Key(t, "n")
	s.WaitFor(t, "Editing the policy")
	s.Key(t, "Escape")
	s.WaitFor(t, "Throw the changes away?")
	press(t, s, "y")
	s.WaitFor(t, "e edit")
	back()
	s.Key(t, "l")
	s.WaitFor(t, "search:")
	s.Key(t, "C-u")
	s.Line(t, "from:1h verdict:deny screens.test")
	shoot("log", "found", "mirror.screens.test:80")
	back()
	press(t, s, "x")
	<-held
	s.WaitFor(t, "1 held")
	press(t, s, "x")
	<-alike
	s.Key(t, "?")
	shoot("help", "approve what waits")
	if os.Getenv("UPDATE") != "" && !t.Failed() {
		if err := os.WriteFile(screensIn, doc, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
