//go:build e2e

package test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/sha1" // the WebSocket handshake's
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The servers that clients of the presets talk to: of each protocol what one client asks for, and nothing more.

// zipped packs files given as name, text, name, text.
func zipped(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = io.WriteString(w, files[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pipIndex is a simple index (PEP 503) with one wheel.
func pipIndex(t *testing.T) http.Handler {
	const wheel, info = "padder-1.0.0-py3-none-any.whl", "padder-1.0.0.dist-info/"
	packed := zipped(t, "padder.py", "def pad(s, n): return s.rjust(n)\n", info+"METADATA", "Metadata-Version: 2.1\nName: padder\nVersion: 1.0.0\n",
		info+"WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n", info+"RECORD", "padder.py,,\n"+info+"METADATA,,\n"+info+"WHEEL,,\n"+info+"RECORD,,\n")
	return files(map[string][]byte{
		"/simple/padder/": fmt.Appendf(nil, "<!DOCTYPE html><a href=\"/%s#sha256=%x\">%s</a>", wheel, sha256.Sum256(packed), wheel),
		"/" + wheel:       packed,
	})
}

// goProxy is a module proxy with one module.
func goProxy(t *testing.T) http.Handler {
	const at, in = "/example.test/padder/@v/v1.0.0", "example.test/padder@v1.0.0/"
	return files(map[string][]byte{
		at + ".info": []byte(`{"Version":"v1.0.0","Time":"2020-01-01T00:00:00Z"}`),
		at + ".mod":  []byte("module example.test/padder\n"),
		at + ".zip":  zipped(t, in+"go.mod", "module example.test/padder\n", in+"padder.go", "package padder\n"),
	})
}

// debText stands for a package: apt-get downloads, and does not look inside.
const debText = "not really a package"

// aptArchive is an archive with one package.
func aptArchive(*testing.T) http.Handler {
	packages := fmt.Sprintf("Package: padder\nVersion: 1.0\nArchitecture: all\nMaintainer: test\nFilename: pool/padder_1.0_all.deb\nSize: %d\nSHA256: %x\nDescription: pads\n",
		len(debText), sha256.Sum256([]byte(debText)))
	release := fmt.Sprintf("Suite: stable\nCodename: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: amd64 all\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages\n",
		sha256.Sum256([]byte(packages)), len(packages))
	return files(map[string][]byte{
		"/debian/dists/stable/InRelease":                  []byte(release),
		"/debian/dists/stable/Release":                    []byte(release),
		"/debian/dists/stable/main/binary-amd64/Packages": []byte(packages),
		"/debian/pool/padder_1.0_all.deb":                 []byte(debText),
	})
}

// files serves each path's bytes.
func files(at map[string][]byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := at[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/") {
			w.Header().Set("Content-Type", "text/html")
		}
		_, _ = w.Write(b) // a client that went away misses nothing
	})
}

// telegram answers getMe.
var telegram = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if !strings.HasSuffix(r.URL.Path, "/getMe") {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, `{"ok":true,"result":{"id":123,"is_bot":true,"first_name":"Claw","username":"claw_bot"}}`)
})

// discordAPI says where the gateway is.
var discordAPI = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if !strings.HasSuffix(r.URL.Path, "/gateway/bot") {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, `{"url":"wss://gateway-for-js.discord.gg","shards":1,"session_start_limit":{"total":1000,"remaining":999,"reset_after":1000,"max_concurrency":1}}`)
})

// discordGateway speaks as much of the gateway as brings a bot to READY: hello, then an answer to identify.
var discordGateway = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" {
		http.Error(w, "a WebSocket is expected", http.StatusUpgradeRequired)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]))
	sendText(conn, `{"op":10,"d":{"heartbeat_interval":41250},"s":null,"t":null}`)
	for {
		text, err := readText(buf.Reader)
		if err != nil {
			return // the client has what it came for
		}
		var m struct{ Op int }
		if json.Unmarshal(text, &m) == nil && m.Op == 2 {
			sendText(conn, `{"op":0,"s":1,"t":"READY","d":{"v":10,"user":{"id":"123","username":"claw_bot","discriminator":"0","avatar":null,"bot":true},`+
				`"guilds":[],"session_id":"x","resume_gateway_url":"wss://gateway-for-js.discord.gg","application":{"id":"123","flags":0},"shard":[0,1]}}`)
		}
	}
})

// sendText writes one unmasked text frame (RFC 6455, 5.2).
func sendText(w io.Writer, s string) {
	head := []byte{0x81, byte(len(s))}
	if len(s) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(len(s)))
	}
	_, _ = w.Write(append(head, s...)) // a client that went away misses nothing
}

// readText reads one masked frame of a client.
func readText(r *bufio.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := uint16(head[1] & 0x7f)
	if size == 126 {
		if err := binary.Read(r, binary.BigEndian, &size); err != nil {
			return nil, err
		}
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return nil, err
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	for i := range text {
		text[i] ^= mask[i%4]
	}
	return text, nil
}

// gatewayClient opens a WebSocket with what every node has, and shows the first message.
const gatewayClient = `
const req = require('https').request('https://gateway.discord.gg/?v=10&encoding=json', { headers: {
  Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' } })
req.on('upgrade', (res, socket) => socket.once('data', d => {
  console.log('hello op', JSON.parse(d.subarray(2)).op)
  socket.destroy()
}))
req.on('error', e => { console.error(e); process.exit(1) })
req.end()
`
