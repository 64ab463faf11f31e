package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// routed is the policy of a sandbox whose router asks the model server at an address, with a key.
const routed = harness.Files + `process:
  allow:
    - {command: /workspace/bench}
inference:
  cloud: {model: corp/big, api: openai, url: "http://%s", key: {file: %q}}
  classes: {pii: redact}
`

// ways are the contestants: a URL each, and the worker that asks there.
type ways struct {
	who     []string
	workers []*worker
	urls    []string
	pids    []int // of the processes in between; 0: none
}

const chat, messages = "/v1/chat/completions", "/v1/messages"

// peer is the column that one is compared with; 0: with none.
var peers = []int{0, 0, 0, 2, 1, 2}

// openWays starts a model server, and everything that stands in front of it. A contestant with TLS is compared with HAProxy with TLS.
func (b *bench) openWays() *ways {
	front, _ := harness.W.Addr()
	other, _ := harness.W.Addr()
	to := fmt.Sprintf("127.0.0.%d:8000", front.As4()[3]) // elsewhere the router would want TLS
	b.background("/proc/self/exe", "model", to)
	dir := b.TempDir()
	cert, key, conf := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key"), filepath.Join(dir, "haproxy.cfg")
	b.keepCertificate(cert)
	b.Must(os.WriteFile(key, []byte("sk-of-the-bench\n"), 0o600))
	b.Must(os.WriteFile(conf, fmt.Appendf(nil, `global
  maxconn 8192
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend f
  bind %[1]s:80
  bind %[1]s:443 ssl crt %[2]s alpn http/1.1
  default_backend s
backend s
  server s1 %[3]s
`, front, cert, to), 0o600))
	haproxy := b.background("haproxy", "-db", "-q", "-f", conf)
	relay := b.background("/proc/self/exe", "relay", other.String()+":443", "http://"+to, cert)
	harness.W.DNS.Set("front.bench.test", front)
	harness.W.DNS.Set("other.bench.test", other)
	for _, a := range []string{to, front.String() + ":80", front.String() + ":443", other.String() + ":443"} {
		b.waitFor(a)
	}
	s := b.box(fmt.Sprintf(routed, to, key), "/workspace/bench", "work")
	inside := b.startWorker("nemoclaw", s.Cmd)
	outside := exec.Command("/proc/self/exe", "work")
	ca := filepath.Join(dir, "ca.pem")
	b.Must(os.WriteFile(ca, harness.W.CA.PEM, 0o600))
	outside.Env = append(os.Environ(), "SSL_CERT_FILE="+ca)
	native := b.startWorker("native", outside)
	return &ways{
		who:     []string{"direct, http", "HAProxy, http", "HAProxy, https", "Go's ReverseProxy, https", "nemoclaw, http", "nemoclaw, https"},
		workers: []*worker{native, native, native, native, inside, inside},
		urls:    []string{"http://" + to, "http://front.bench.test", "https://front.bench.test", "https://other.bench.test", "http://inference.local", "https://inference.local"},
		pids:    []int{0, haproxy, haproxy, relay, s.Cmd.Process.Pid, s.Cmd.Process.Pid},
	}
}

// keepCertificate writes a certificate for the peers' names and its key to a file.
func (b *bench) keepCertificate(file string) {
	cert, err := harness.W.CA.Config("").GetCertificate(&tls.ClientHelloInfo{ServerName: "*.bench.test"})
	b.Must(err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	b.Must(err)
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range cert.Certificate {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	b.Must(os.WriteFile(file, out, 0o600))
}

// ask has contestant i ask. path is nemoclaw's: others pass on what they are given.
func (w *ways) ask(i int, job string, n int, path string, size int, script string) []float64 {
	if i < 4 {
		path = chat
	}
	return w.workers[i].list(job, n, fmt.Sprintf("%s%s %d %s", w.urls[i], path, size, script))
}

// measureInference: a model server asked directly, through plain reverse proxies, and from inside a sandbox through the router.
func measureInference(b *bench) {
	b.measureClassify()
	w := b.openWays()
	const burst, paced = "Answer in 8 words, one each 0s please", "Answer in 60 words, one each 2ms please"
	const mail = "Write to jane.doe@example.com that it is done. "
	for _, j := range []struct {
		what, job, path string
		size, n         int
		script          string
	}{
		{"a request with 1 KB", "ask", chat, 1 << 10, 60, "Go on."},
		{"a request with 32 KB", "ask", chat, 32 << 10, 40, "Go on."},
		{"a request with 1 MB", "ask", chat, 1 << 20, 10, "Go on."},
		{"32 KB in Anthropic's dialect", "ask", messages, 32 << 10, 40, "Go on."},
		{"32 KB, an address redacted", "ask", chat, 32 << 10, 40, mail},
		{"the first word, of 1 KB", "first-word", chat, 1 << 10, 40, burst},
		{"the first word, of 32 KB", "first-word", chat, 32 << 10, 40, burst},
		{"the first word in Anthropic's dialect, of 32 KB", "first-word", messages, 32 << 10, 40, burst},
		{"a later word", "later-words", chat, 1 << 10, 2, paced},
		{"a later word, in Anthropic's dialect", "later-words", messages, 1 << 10, 2, paced},
		{"a later word, an address redacted", "later-words", chat, 1 << 10, 2, mail + paced},
	} {
		b.delay(j.what, w.who, peers, func(i int) []float64 { return w.ask(i, j.job, j.n, j.path, j.size, j.script) })
	}
	order := []int{2, 3, 5, 0}
	var who []string
	for _, i := range order {
		who = append(who, w.who[i])
	}
	b.contest(fmt.Sprintf("streams of 32 words, %d at once", atOnce), "/s", who, func(i int) float64 {
		return w.ask(order[i], "streams", 300, chat, 1<<10, "Answer in 32 words, one each 0s please")[0]
	})
	for _, size := range []int{1 << 10, 32 << 10} {
		b.measureOpen(size)
	}
}

// measureOpen: what streams that are open take in the process that passes them on.
func (b *bench) measureOpen(size int) {
	w := b.openWays()
	var is string
	for _, i := range []int{2, 3, 5} {
		use := func(n int) int64 {
			if n > 0 {
				w.ask(i, "keep-open", n, chat, size, "Answer in 2 words, one "+forever+" please")
			}
			time.Sleep(2 * time.Second) // what is done is done
			return b.fields("/proc/" + strconv.Itoa(w.pids[i]) + "/status")["RssAnon"]
		}
		none, some, most := use(0), use(200), use(1000)
		is += fmt.Sprintf(", %s %d KiB (%d among the first 200)", w.who[i], (most-none)/1000, (some-none)/200)
	}
	b.fact(fmt.Sprintf("memory of an open stream whose prompt has %d KB, of 1,000", size>>10), is[2:])
}

// measureClassify: the classifier alone, on one processor, by that processor's time.
func (b *bench) measureClassify() {
	cmd := exec.Command("/proc/self/exe", "work")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	alone := b.startWorker("native", cmd)
	var is string
	for _, kind := range []string{"prose", "code", "log", "Chinese", "messages"} {
		var speeds []float64
		for range b.rounds {
			speeds = append(speeds, alone.do("classify", 20, kind))
		}
		is += fmt.Sprintf(", %s %.0f", kind, median(speeds))
	}
	b.fact("classification of 1 MB, MB/s a core (wanted: 200)", is[2:])
}

// classifyText looks at 1 MB of a kind of text n times and returns MB a second of processor time. "messages" are prose in 1,500 parts.
func classifyText(kind string, n int) (float64, error) {
	const size = 1 << 20
	parts := []string{""}
	if kind == "messages" {
		all := text("prose", size)
		parts = nil
		for ; len(all) > 700; all = all[700:] {
			parts = append(parts, all[:700])
		}
	} else {
		parts[0] = text(kind, size)
	}
	c, err := classify.New(classify.Rules{})
	if err != nil {
		return 0, err
	}
	start := used()
	for range n {
		found, err := c.Parts(parts)
		if err != nil {
			return 0, err
		}
		if len(found) > 0 {
			return 0, fmt.Errorf("%s has something sensitive in it: %+v", kind, found[0])
		}
	}
	return float64(n*size) / (used() - start), nil
}
