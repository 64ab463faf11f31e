package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// asker asks a model server, or what stands in front of it, for one and the same thing.
type asker struct {
	client *http.Client
	url    string
	body   []byte
	open   []io.Closer // streams whose first word was there
}

// askers are kept with their connections.
var askers = map[string]*asker{}

// askerFor is the one that asks for arg. Its first request is made here, for the connection is no part of what is measured.
func askerFor(arg string) (*asker, error) {
	if a := askers[arg]; a != nil {
		return a, nil
	}
	a, err := newAsker(arg)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(arg, forever) {
		err = a.whole()
	}
	askers[arg] = a
	return a, err
}

// forever is the pause of a stream that is held.
const forever = "each 24h"

// newAsker reads "URL SIZE SCRIPT": a prompt of so many bytes, at the end of which the script says how to answer. What the path is of
// says in which dialect. A script that says how is asked for a stream.
func newAsker(arg string) (*asker, error) {
	var size int
	a := &asker{client: newClient(true)}
	url, rest, _ := strings.Cut(arg, " ")
	if _, err := fmt.Sscanf(rest, "%d", &size); err != nil {
		return nil, fmt.Errorf("%q: %w", arg, err)
	}
	_, script, _ := strings.Cut(rest, " ")
	a.url = url
	a.client.Timeout = 0 // streams may be held
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var messages []message
	for i := 0; size > 0; i++ { // a conversation about code and logs
		n := min(size, 8<<10)
		messages = append(messages, message{[]string{"user", "assistant"}[i%2], text([]string{"prose", "code", "prose", "log"}[i%4], n)})
		size -= n
	}
	if len(messages)%2 == 0 {
		messages = append(messages, message{Role: "user"})
	}
	messages[len(messages)-1].Content += "\n" + script
	var err error
	a.body, err = json.Marshal(map[string]any{"model": "any", "max_tokens": 1000, "stream": strings.Contains(script, "Answer in"), "messages": messages})
	return a, err
}

// ask sends the request and gives the answer as it comes.
func (a *asker) ask() (io.ReadCloser, error) {
	r, err := a.client.Post(a.url, "application/json", bytes.NewReader(a.body))
	if err != nil {
		return nil, err
	}
	if r.StatusCode != http.StatusOK {
		said, err := io.ReadAll(io.LimitReader(r.Body, 300))
		return nil, errors.Join(fmt.Errorf("%s: %s: %s", a.url, r.Status, bytes.ReplaceAll(said, []byte("\n"), []byte(" "))), err, r.Body.Close())
	}
	return r.Body, nil
}

// whole waits for the whole answer.
func (a *asker) whole() error {
	body, err := a.ask()
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// stream calls word with each word's way from the server to here; false: no more of it.
func (a *asker) stream(word func(at, sent float64) bool) (io.Closer, error) {
	body, err := a.ask()
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadSlice('\n')
		if sent, is := sentAt(line); is && !word(now(), sent) {
			return body, nil
		}
		if errors.Is(err, io.EOF) {
			return body, body.Close()
		}
		if err != nil {
			return nil, errors.Join(err, body.Close())
		}
	}
}

// asks returns what whole answers took, in microseconds.
func asks(a *asker, n int) (took []float64, err error) {
	for range n {
		start := now()
		if err := a.whole(); err != nil {
			return nil, err
		}
		took = append(took, now()-start)
	}
	return took, nil
}

// words has n streams answered, and calls word with each word's place in its stream, and when that was asked for, and the word sent and read.
func (a *asker) words(n int, word func(i int, asked, sent, at float64)) error {
	for range n {
		i, asked := 0, now()
		if _, err := a.stream(func(at, sent float64) bool {
			word(i, asked, sent, at)
			i++
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}

// firstWords returns what it took from requests to the first word, in microseconds.
func firstWords(a *asker, n int) (took []float64, err error) {
	err = a.words(n, func(i int, asked, _, at float64) {
		if i == 0 {
			took = append(took, at-asked)
		}
	})
	return took, err
}

// laterWords returns what each word but the first took from the server to here, in microseconds.
func laterWords(a *asker, n int) (took []float64, err error) {
	err = a.words(n, func(i int, _, sent, at float64) {
		if i > 0 {
			took = append(took, at-sent)
		}
	})
	return took, err
}

// keepOpen has n streams open for as long as the worker lives, and returns n.
func keepOpen(a *asker, n int) ([]float64, error) {
	for len(a.open) < n {
		s, err := a.stream(func(float64, float64) bool { return false })
		if err != nil {
			return nil, fmt.Errorf("stream %d: %w", len(a.open)+1, err)
		}
		a.open = append(a.open, s)
	}
	return []float64{float64(n)}, nil
}

// streamsPerSecond returns how many of n streams were answered a second, some at once.
func streamsPerSecond(a *asker, n int) ([]float64, error) {
	rate, err := perSecond(n, atOnce, func(left *atomic.Int64) error {
		for left.Add(-1) >= 0 {
			if _, err := a.stream(func(float64, float64) bool { return true }); err != nil {
				return err
			}
		}
		return nil
	})
	return []float64{rate}, err
}

// atOnce is how many streams there are at once where their number a second is measured.
const atOnce = 16
