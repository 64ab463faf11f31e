package gpu

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/nemoclaw/nemoclaw/api"
)

// What a helper is asked, and what it answers: frames of a length (four bytes, big-endian) and JSON, one answer for each
// question, in order. Both ends are of one version; a field that is not known is an error.
type (
	// Question is one question to a helper.
	Question struct {
		Op Op `json:"op"`
	}
	// Answer is what it says. Absent and Error exclude the rest.
	Answer struct {
		Absent string          `json:"absent,omitempty"` // what is not there
		Error  string          `json:"error,omitempty"`  // why the driver can't be asked
		GPUs   *api.GPUs       `json:"gpus,omitempty"`   // to Look
		Proofs []api.CUDAProof `json:"proofs,omitempty"` // to Prove
		XIDs   []XID           `json:"xids,omitempty"`   // to Look: those since the last look
	}
	// XID is how often an error was reported of a device, which by now may not tell its UUID any more.
	XID struct {
		Index int    `json:"index"`
		UUID  string `json:"uuid"`
		Code  uint64 `json:"code"`
		Times uint64 `json:"times"`
	}
	// Op is what is asked.
	Op string
)

// The questions.
const (
	Look  Op = "look"  // which devices are there, and what do they do
	Prove Op = "prove" // does CUDA compute on each of them
)

// maxFrame bounds a frame: hosts have tens of devices, and some thousand processes on them.
const maxFrame = 4 << 20

// WriteFrame writes one frame.
func WriteFrame(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxFrame {
		return fmt.Errorf("a frame of %d bytes, at most %d are possible", len(text), maxFrame)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// ReadFrame reads one frame. io.EOF says that there is none.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("a frame of %d bytes, at most %d are possible", n, maxFrame)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return fmt.Errorf("a frame ended early: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("a frame that is not understood: %w", err)
	}
	return nil
}
