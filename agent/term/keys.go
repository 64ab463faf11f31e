package term

import "time"

// settle is how long a question must have been on the screen, and the keyboard silent, before a key is an answer.
// Without it, a program that times its connection to what the person types would get its answer from a key that was
// meant for something else.
const settle = 500 * time.Millisecond

// stringLimit ends a control string whose end never came, so that it can't swallow every later key.
const stringLimit = 2 * time.Second

// keys tells a person's single keys from everything else that comes from a terminal: what was typed too early, pasted
// text, function keys, mouse movements, and the terminal's own answers to queries that the program inside has sent.
// The text of such an answer (a window title, say) can be the program's choice, so no byte of it may count.
type keys struct {
	shown time.Time // when the question was visible
	last  time.Time // when the last byte that was not an answer came
	state state
}

type state uint8

const (
	ground     state = iota
	escape           // after ESC
	sequence         // CSI or SS3: until a final byte
	message          // OSC, DCS, SOS, PM, APC: until BEL or ST
	messageEsc       // ESC within it
)

// feed takes what one read of the terminal returned and reports the key that counts, if one does.
func (k *keys) feed(b []byte, now time.Time) (key byte, ok bool) {
	if k.state != ground && now.Sub(k.last) > stringLimit {
		k.state = ground
	}
	silent := now.Sub(k.shown) >= settle && now.Sub(k.last) >= settle
	wasGround := k.state == ground
	for _, c := range b {
		k.step(c)
	}
	// A person's key comes alone: one read, one byte, no sequence before it or begun by it.
	if len(b) == 1 && wasGround && k.state == ground && silent {
		return b[0], true
	}
	k.last = now
	return 0, false
}

func (k *keys) step(c byte) {
	const esc, bel, cancel, substitute = 0x1b, 0x07, 0x18, 0x1a
	switch {
	case c == cancel || c == substitute:
		k.state = ground
	case k.state == ground:
		if c == esc {
			k.state = escape
		}
	case k.state == escape:
		switch c {
		case '[', 'O':
			k.state = sequence
		case ']', 'P', 'X', '^', '_':
			k.state = message
		case esc:
		default:
			k.state = ground
		}
	case k.state == sequence:
		if c == esc {
			k.state = escape
		} else if c >= 0x40 && c <= 0x7e {
			k.state = ground
		}
	case k.state == message:
		if c == bel {
			k.state = ground
		} else if c == esc {
			k.state = messageEsc
		}
	case k.state == messageEsc:
		if c == '\\' {
			k.state = ground
		} else if c != esc {
			k.state = message
		}
	}
}
