//go:build e2e

package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// forwardTo gives a daemon that does not run yet receivers of audit records.
func forwardTo(t *testing.T, d *harness.Daemon, receivers ...string) {
	t.Helper()
	text := "forward:\n"
	for _, r := range receivers {
		text += "  - " + r + "\n"
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "agent.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// logged are the records of a daemon's log: their hashes by number.
func logged(t *testing.T, d *harness.Daemon) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(d.Do(t, "audit", "export", d.AuditDir())) {
		seq, hash := identity(t, line)
		all[seq] = hash
	}
	return all
}

// identity is a record's number and hash.
func identity(t *testing.T, line string) (seq, hash string) {
	t.Helper()
	var r struct {
		Seq  json.Number
		Hash string
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil || r.Hash == "" {
		t.Fatalf("%v: %q", err, line)
	}
	return r.Seq.String(), r.Hash
}

// elastic is a server that keeps documents by their ids, and fails when it is told to.
type elastic struct {
	*httptest.Server
	mu    sync.Mutex
	docs  map[string]string // hash by number
	moody bool
}

func newElastic(t *testing.T) *elastic {
	e := &elastic{docs: map[string]string{}}
	e.Server = httptest.NewServer(http.HandlerFunc(e.bulk))
	t.Cleanup(e.Close)
	return e
}

func (e *elastic) bulk(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	mood := 9
	if e.moody {
		mood = rand.IntN(4)
	}
	switch {
	case err != nil:
		return
	case mood == 0:
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	case mood == 1:
		panic(http.ErrAbortHandler)
	case r.Method == http.MethodPut:
		return // the index is made
	}
	var items []string
	for i, line := range bytes.Split(bytes.TrimSpace(body), []byte("\n")) {
		var a struct {
			Create struct {
				ID string `json:"_id"`
			}
		}
		if i%2 == 1 {
			continue
		}
		if err := json.Unmarshal(line, &a); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		seq, hash, _ := strings.Cut(a.Create.ID, "-")
		status := http.StatusCreated
		if e.docs[seq] != "" {
			status = http.StatusConflict
		}
		e.docs[seq] = hash
		items = append(items, fmt.Sprintf(`{"create":{"status":%d}}`, status))
	}
	if mood == 2 {
		panic(http.ErrAbortHandler) // it has them, and does not say so
	}
	fmt.Fprintf(w, `{"errors":false,"items":[%s]}`, strings.Join(items, ","))
}

// same waits until a receiver has what the log has.
func same(t *testing.T, d *harness.Daemon, has func() map[string]string) {
	t.Helper()
	var want, got map[string]string
	defer func() {
		if t.Failed() {
			t.Logf("%d records came of %d\n%s", len(got), len(want), d.Log())
		}
	}()
	until(t, "the receiver has the log", func() bool {
		want, got = logged(t, d), has()
		for seq, hash := range want {
			if got[seq] != hash {
				return false
			}
		}
		return len(got) == len(want)
	})
}

// attempt has a sandbox make records, with bytes that would break a receiver's lines.
func attempt(t *testing.T, d *harness.Daemon, name string) {
	d.Call(t, name, "exec", "--", "sh", "-c", "cat '/nowhere/]\" \\ \n12 <0>1 {\"seq\":1}'; cat /etc/shadow; ./x$RANDOM")
}

// TestForwardKilled: a daemon is killed with records on their way to a receiver that fails in each way; none is lost, and none is another.
func TestForwardKilled(t *testing.T) {
	t.Parallel()
	e := newElastic(t)
	e.moody = true
	d := harness.W.PrepareDaemon(t)
	forwardTo(t, d, "{name: search, elastic: \""+e.URL+"\"}")
	d.Start(t)
	create(t, d, "box", shell)
	for range 8 {
		for range 4 {
			attempt(t, d, "box")
		}
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		d.Kill()
		d.Start(t)
	}
	e.mu.Lock()
	e.moody = false
	e.mu.Unlock()
	same(t, d, e.has)
	d.Verify(t)
}

// rsyslogd is a real one: it writes the text of each message to a file, before it reads the next.
type rsyslogd struct {
	cmd       *exec.Cmd
	conf, out string
}

func (r *rsyslogd) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(tool(t, "rsyslogd"), "-n", "-i", "NONE", "-f", r.conf)
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (r *rsyslogd) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// has are the records in its file. A kill may have torn a line, which came again then.
func (r *rsyslogd) has(t *testing.T) map[string]string {
	t.Helper()
	got := map[string]string{}
	f, err := os.Open(r.out)
	if err != nil {
		return got
	}
	defer f.Close()
	for in := bufio.NewReader(f); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return got
		}
		if json.Valid([]byte(line)) {
			seq, hash := identity(t, line)
			got[seq] = hash
		}
	}
}

// TestForwardRsyslog: a real rsyslog, over TCP and over TLS with our certificate, is down at the start, and killed in between; it has
// all of the log in the end, as it was written.
func TestForwardRsyslog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := harness.W.CA.Files(t, dir, "127.0.0.25")
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, harness.W.CA.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		name, at := "plain", "tcp://127.0.0.25:5140"
		input := `module(load="imtcp" keepalive="on")
input(type="imtcp" address="127.0.0.25" port="5140" ruleset="keep")
`
		if secure {
			name = "tls"
			input = fmt.Sprintf(`global(defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.25" port="6514" ruleset="keep")
`, ca, cert, key)
			at = "tls://127.0.0.25:6514"
		}
		r := &rsyslogd{conf: filepath.Join(dir, name+".conf"), out: filepath.Join(dir, name+".jsonl")}
		text := "global(maxMessageSize=\"256k\" workDirectory=\"" + dir + "\")\n" + input +
			"template(name=\"text\" type=\"string\" string=\"%msg%\\n\")\n" +
			"ruleset(name=\"keep\" queue.type=\"direct\") { action(type=\"omfile\" file=\"" + r.out + "\" template=\"text\" asyncWriting=\"off\") }\n"
		if err := os.WriteFile(r.conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := harness.W.PrepareDaemon(t)
		forwardTo(t, d, fmt.Sprintf("{name: siem, syslog: %q%s}", at, map[bool]string{true: fmt.Sprintf(", ca: %q, cert: %q, key: %q", ca, cert, key)}[secure]))
		d.Start(t)
		create(t, d, "box", shell)
		attempt(t, d, "box")
		c, ctx := dial(t, d)
		var info api.Info
		until(t, "the daemon says that nobody is there", func() bool {
			var err error
			if info, err = c.Info(ctx); err != nil {
				t.Fatal(err)
			}
			return len(info.Forward) == 1 && strings.Contains(info.Forward[0].Error, "refused")
		})
		if f := info.Forward[0]; f.Name != "siem" || f.Kind != "syslog" || f.Seq != 0 || f.Lag == 0 {
			t.Errorf("%+v", f)
		}
		for range 3 {
			r.start(t)
			for range 3 {
				attempt(t, d, "box")
				time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			}
			r.kill()
			attempt(t, d, "box")
		}
		r.start(t)
		same(t, d, func() map[string]string { return r.has(t) })
		r.kill()
	}
}
