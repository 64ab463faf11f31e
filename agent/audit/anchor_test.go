package audit

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnchors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "anchor")
	toFile, err := OpenAnchor(file)
	if err != nil {
		t.Fatal(err)
	}
	var posted []byte
	code := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posted, _ = io.ReadAll(r.Body)
		w.Header().Set("Location", "http://192.0.2.1/")
		w.WriteHeader(code)
	}))
	defer server.Close()
	toServer, err := OpenAnchor(server.URL + "/secret")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, anchor := range []func([]byte) error{toFile, toServer} {
			if err := anchor([]byte("line\n")); err != nil {
				t.Error(err)
			}
		}
	}
	if got := string(read(t, file)); got != "line\nline\n" || string(posted) != "line\n" {
		t.Errorf("the file has %q, the server got %q", got, posted)
	}
	code = http.StatusFound // a server can't send it elsewhere
	if err := toServer([]byte("line\n")); err == nil || !strings.Contains(err.Error(), "answered 302") || strings.Contains(err.Error(), "secret") {
		t.Errorf("sent elsewhere: %v", err)
	}
	server.Close()
	if err := toServer(nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a server that is gone: %v", err)
	}
	if _, err := OpenAnchor(filepath.Join(file, "below")); err == nil {
		t.Error("a file that can't be was taken")
	}
}
