// Package tui is the console: what waits for an answer, what was decided and what the sandboxes do, on a terminal, and the keys
// that answer. It owns what is on the screen, and the promise that a key answers what its reader saw: an answer is bound to the
// request that was under the cursor, at rest, when the key went down.
//
// It talks to the daemon through package api and nothing else, decides nothing, and keeps nothing but what it was told last.
// It never shows a byte from inside a sandbox as it came, and it never draws once per event: however much happens, the
// screen is drawn some thirty times a second, and keys are taken between.
package tui

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/api"
)

// Options are what a console needs besides the daemon.
type Options struct {
	Colours bool                    // false: none, whatever the terminal can
	Shell   func(name string) error // opens a shell in a sandbox on the terminal, and returns when it has ended
	Screen  tcell.Screen            // where it is drawn; nil: the process's terminal
}

// frame is how long a drawing stays at least, while more comes.
const frame = 33 * time.Millisecond

const (
	// settle is how long something must have been on the screen, where it is, before a key can answer it: a person can't have
	// read it sooner.
	settle = 300 * time.Millisecond
	// burst is how close one key must follow another to be no person's. Pasted text comes so, where the terminal does not tell it
	// from typed text.
	burst = 20 * time.Millisecond
)

// A console is what is on the screen. All of it but the model and the queue belongs to tview's loop.
type console struct {
	*tview.Box                 // the root of what tview draws
	ctx        context.Context // ends when the console is left
	cancel     context.CancelFunc
	client     *api.Client
	model      *model
	app        *tview.Application
	theme      theme
	shell      func(string) error

	panes []pane
	focus int
	stack []view // what lies over the panes; the last one has the keys
	field *field // that is typed into, on the last line; nil: none

	ready  bool          // the screen knows what to draw where a terminal has no such character
	settle time.Duration // as the constants, but in tests
	burst  time.Duration
	last   time.Time // when the last key went down
	rushed bool      // the key that is handled came right after another

	mu    sync.Mutex
	queue []func() // to be called by tview's loop
}

// A view is what can have the keys: a pane, or what lies over the panes.
type view interface {
	draw(c canvas, focused bool)
	handle(ev *tcell.EventKey) bool // false: the key means nothing here
	click(action tview.MouseAction, x, y int)
	hints() string
}

// A typist is a view that takes text: no key but Ctrl-C is the console's own there.
type typist interface{ paste(text string) }

// Run shows the console until it is left or ctx ends. The daemon has to answer at first; from then on the console waits for it
// by itself when it goes away.
func Run(ctx context.Context, client *api.Client, o Options) error {
	info, err := client.Info(ctx)
	if err != nil {
		return err
	}
	return newConsole(ctx, client, o, info).run()
}

func newConsole(ctx context.Context, client *api.Client, o Options, info api.Info) *console {
	c := &console{
		Box: tview.NewBox(), client: client, model: newModel(), app: tview.NewApplication(), theme: newTheme(o.Colours), shell: o.Shell,
		settle: settle, burst: burst,
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.model.info = info
	c.panes = []pane{newBoxes(c), newWaiting(c), newDecisions(c)}
	c.focus = 1 // what waits for the person
	if o.Screen != nil {
		c.app.SetScreen(o.Screen)
	}
	// Pasted text comes as one piece, and answers nothing.
	c.app.EnablePaste(true).EnableMouse(true).SetInputCapture(c.interrupt).SetRoot(c, true)
	return c
}

// run shows the console until it is left.
func (c *console) run() error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.cancel()
	f := feed{client: c.client, model: c.model}
	wg.Go(func() { f.run(c.ctx) })
	go c.paint() // it may wait for tview's loop when that has ended already
	stop := context.AfterFunc(c.ctx, c.app.Stop)
	defer stop()
	if err := c.app.Run(); err != nil {
		return fmt.Errorf("no console on a terminal of the kind TERM=%q: %w; set TERM to the kind that it is, such as TERM=xterm", os.Getenv("TERM"), err)
	}
	return nil
}

// paint has the screen drawn when something changed: at once after a rest, else once in a while.
func (c *console) paint() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.model.changed:
		}
		c.app.QueueUpdateDraw(c.drain)
		pause(c.ctx, frame)
	}
}

// read reports whether what is on the screen since a time could be read before a key that went down at another.
func (c *console) read(since, at time.Time) bool { return !c.rushed && at.Sub(since) >= c.settle }

// later has f called by tview's loop. It never waits.
func (c *console) later(f func()) {
	c.mu.Lock()
	c.queue = append(c.queue, f)
	c.mu.Unlock()
	c.model.touch()
}

func (c *console) drain() {
	c.mu.Lock()
	queue := c.queue
	c.queue = nil
	c.mu.Unlock()
	for _, f := range queue {
		f()
	}
}

// ask calls the daemon beside the loop, and then, in the loop, what it returns.
func (c *console) ask(call func(ctx context.Context) func()) {
	go func() {
		ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
		defer cancel()
		if then := call(ctx); then != nil && c.ctx.Err() == nil {
			c.later(then)
		}
	}()
}

// open puts a view over the others.
func (c *console) open(v view) { c.stack = append(c.stack, v) }

// close takes the uppermost view away.
func (c *console) close() {
	if len(c.stack) > 0 {
		c.stack = c.stack[:len(c.stack)-1]
	}
}

// drop takes a view away, wherever it lies.
func (c *console) drop(v view) {
	for i := range c.stack {
		if c.stack[i] == v {
			c.stack = append(c.stack[:i], c.stack[i+1:]...)
			return
		}
	}
}

// top is the view that has the keys.
func (c *console) top() view {
	if len(c.stack) > 0 {
		return c.stack[len(c.stack)-1]
	}
	return c.panes[c.focus]
}

// PasteHandler takes pasted text to where text is typed, and nowhere else.
func (c *console) PasteHandler() func(string, func(tview.Primitive)) {
	return func(text string, _ func(tview.Primitive)) {
		if c.field != nil {
			c.field.paste(text)
		} else if t, ok := c.top().(typist); ok {
			t.paste(text)
		}
	}
}

// MouseHandler takes clicks and the wheel. They select and scroll; they never answer.
func (c *console) MouseHandler() func(tview.MouseAction, *tcell.EventMouse, func(tview.Primitive)) (bool, tview.Primitive) {
	return func(action tview.MouseAction, ev *tcell.EventMouse, _ func(tview.Primitive)) (bool, tview.Primitive) {
		switch action {
		case tview.MouseLeftDown, tview.MouseLeftDoubleClick, tview.MouseScrollUp, tview.MouseScrollDown:
		default:
			return false, nil
		}
		x, y := ev.Position()
		if len(c.stack) > 0 {
			c.top().click(action, x, y)
			return true, nil
		}
		for i, p := range c.panes {
			if p.covers(x, y) {
				c.focus = i
				p.click(action, x, y)
			}
		}
		return true, nil
	}
}
