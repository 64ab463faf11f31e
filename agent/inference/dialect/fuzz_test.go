package dialect

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// seed adds the files of testdata.
func seed(f *testing.F, pattern string) {
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		f.Fatal(pattern, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for d := range servers {
			f.Add(byte(d), b)
		}
	}
}

// A request that is read is one that encoding/json reads too, shows itself whole in Texts, and is written so that it can be
// read again and shows the same.
func FuzzRequest(f *testing.F) {
	seed(f, "requests/*.json")
	f.Fuzz(func(t *testing.T, n byte, body []byte) {
		d := callers[int(n)%len(callers)]
		op := Generate
		if n > 128 {
			op = Embed
		}
		r, err := ReadRequest(d, op, Path(d, op), body)
		if err != nil {
			return
		}
		v, err := parse(body)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, body, v)
		r.Unseen()
		for _, to := range servers {
			path, out, err := r.Write(to)
			if err != nil {
				continue
			}
			if to == Gemini || Path(to, op) == "" {
				continue
			}
			again, err := ReadRequest(to, op, path, out)
			if err != nil {
				t.Fatalf("%s to %s: %v\n%s\n%s", d, to, err, body, out)
			}
			if to == d && len(again.Texts()) != len(r.Texts()) {
				t.Fatalf("%s: %d texts became %d\n%s", d, len(r.Texts()), len(again.Texts()), out)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	seed(f, "answers/*.json")
	f.Fuzz(func(t *testing.T, n byte, body []byte) {
		d := servers[int(n)%len(servers)]
		if e, err := ReadEmbeddings(d, body); err == nil {
			for _, to := range callers {
				_, _ = e.Write(to, &Request{Dialect: to})
			}
		}
		if m, err := ReadModels(d, body); err == nil {
			for _, to := range callers {
				if _, err := WriteModels(to, m); err != nil {
					t.Fatal(err)
				}
			}
		}
		ErrorMessage(body)
		a, err := ReadAnswer(d, body)
		if err != nil {
			return
		}
		for _, to := range callers {
			out, err := a.Write(to, &Request{Dialect: to})
			if err != nil {
				continue
			}
			if _, err := ReadAnswer(to, out); err != nil {
				t.Fatalf("%s to %s: %v\n%s", d, to, err, out)
			}
		}
	})
}

// Whatever a server streams, the stream that goes on is one that can be read, up to where it failed.
func FuzzStream(f *testing.F) {
	seed(f, "streams/*.txt")
	f.Fuzz(func(t *testing.T, n byte, stream []byte) {
		d := servers[int(n)%len(servers)]
		for _, to := range callers {
			var b bytes.Buffer
			e := NewEncoder(to, &b, &Request{Dialect: to, Model: "m"})
			src := NewRewriter(NewDecoder(d, bytes.NewReader(stream)), restore("[[N1]]", "Ann"))
			if err := pipe(src, e); err != nil {
				continue
			}
			if d == to {
				continue
			}
			dec := NewDecoder(to, &b)
			for {
				_, err := dec.Next()
				if err == io.EOF { //nolint:errorlint // nothing wraps it
					break
				}
				if err != nil {
					t.Fatalf("%s to %s: %v\n%s", d, to, err, stream)
				}
			}
		}
	})
}
