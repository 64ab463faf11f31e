//go:build e2e

package audit

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAnchorSyslog: the checkpoints that the host's syslog got, with what it writes before them, find a log that was cut off.
func TestAnchorSyslog(t *testing.T) {
	// A /dev of this process's own, in which there is nothing but the socket.
	if err := unix.Mount("dev", "/dev", "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount("/dev", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	in, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log"})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	s, e := signer(t)
	anchor, err := OpenAnchor("syslog")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w, err := OpenChain(dir, "agent", "", Options{Signer: s, Anchor: anchor, Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(10) {
		if err := w.Append(record(seq + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := in.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	// <85>: authpriv.notice
	if !bytes.HasPrefix(buf[:n], []byte("<85>")) || !bytes.Contains(buf[:n], []byte("nemoclaw-audit")) {
		t.Errorf("%q", buf[:n])
	}
	file := filepath.Join(t.TempDir(), "auth.log")
	if err := os.WriteFile(file, buf[:n], 0o600); err != nil {
		t.Fatal(err)
	}
	if e.Anchors, err = ReadCheckpoints(file, e.Keys); err != nil || len(e.Anchors) != 1 || e.Anchors[0].Seq != 10 {
		t.Fatalf("%+v, %v", e.Anchors, err)
	}
	if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	// Cut off, with everything beside it.
	text := read(t, w.Path())
	if err := os.WriteFile(w.Path(), text[:bytes.LastIndexByte(text[:len(text)-1], '\n')+1], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, beside := range []string{".head", ".sig"} {
		if err := os.Remove(w.Path() + beside); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault == nil || r.Fault.Seq != 10 {
		t.Errorf("%+v, fault %v, %v", r, r.Fault, err)
	}
}
