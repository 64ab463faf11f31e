package dnsproxy

import "bytes"

// bodyReader finds the end of a message's body. Its zero value is a body that has ended.
type bodyReader struct {
	state   bodyState
	left    int64 // bytes of the length-delimited body or of the present chunk
	strict  bool  // a request's: no chunk extensions
	trailer int   // bytes of trailers seen
}

type bodyState uint8

const (
	bodyDone bodyState = iota
	bodyLength
	bodyUntilClose
	bodyChunkSize
	bodyChunkData
	bodyChunkEnd
	bodyTrailer
)

const maxTrailer = 16 << 10 // bytes of all trailers together

func lengthBody(n int64) bodyReader {
	if n == 0 {
		return bodyReader{}
	}
	return bodyReader{state: bodyLength, left: n}
}

func chunkedBody(strict bool) bodyReader {
	return bodyReader{state: bodyChunkSize, strict: strict}
}

// feed reads as much of the body as b holds and returns how many bytes may be forwarded. Bytes it leaves over are the start
// of a line that is not complete: they must come again, with more behind them. An error is final.
func (r *bodyReader) feed(b []byte) (n int, err error) {
	for {
		rest := b[n:]
		switch r.state {
		case bodyDone:
			return n, nil
		case bodyUntilClose:
			return len(b), nil
		case bodyLength, bodyChunkData:
			take := min(int64(len(rest)), r.left)
			r.left -= take
			n += int(take)
			if r.left > 0 {
				return n, nil
			}
			if r.state == bodyLength {
				r.state = bodyDone
			} else {
				r.state = bodyChunkEnd
			}
		case bodyChunkEnd:
			if len(rest) > 0 && rest[0] != '\r' || len(rest) > 1 && rest[1] != '\n' {
				return n, badRequest("a chunk is longer than its size says")
			}
			if len(rest) < 2 {
				return n, nil
			}
			n += 2
			r.state = bodyChunkSize
		default: // a line
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				if len(rest) > maxLine {
					return n, badRequest("a chunk-size or trailer line is longer than %d bytes", maxLine)
				}
				return n, nil
			}
			line, _, err := cutLine(rest[:end+1])
			if err != nil {
				return n, err
			}
			if err := r.line(line); err != nil {
				return n, err
			}
			n += end + 1
		}
	}
}

// line takes in a chunk-size or trailer line.
func (r *bodyReader) line(line []byte) error {
	if r.state == bodyChunkSize {
		size, err := parseChunkSize(line, r.strict)
		if err != nil {
			return err
		}
		if size == 0 {
			r.state = bodyTrailer
		} else {
			r.state, r.left = bodyChunkData, size
		}
		return nil
	}
	if len(line) == 0 {
		r.state = bodyDone
		return nil
	}
	if r.trailer += len(line); r.trailer > maxTrailer {
		return badRequest("the trailers are longer than %d bytes", maxTrailer)
	}
	name, _, err := splitField(line)
	if err != nil {
		return err
	}
	for _, bad := range []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "authorization", "te", "trailer"} {
		if isField(name, bad) {
			return badRequest("a trailer may not be %q", bad)
		}
	}
	return nil
}

// parseChunkSize reads "HEX" and, unless strict, chunk extensions and padding after it. Extensions of requests are refused:
// nobody sends them but those who want two parsers to disagree.
func parseChunkSize(line []byte, strict bool) (int64, error) {
	var size int64
	i := 0
	for ; i < len(line); i++ {
		c := line[i]
		var d byte
		switch {
		case '0' <= c && c <= '9':
			d = c - '0'
		case 'a' <= c && c <= 'f':
			d = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			d = c - 'A' + 10
		default:
			if strict || i == 0 || c != ';' && c != ' ' && c != '\t' {
				return 0, badRequest("a chunk size is not a plain hexadecimal number")
			}
			return size, nil
		}
		if i == 15 { // 60 bits: sums cannot overflow
			return 0, badRequest("a chunk size has more than 15 digits")
		}
		size = size<<4 | int64(d)
	}
	if i == 0 {
		return 0, badRequest("a chunk size is empty")
	}
	return size, nil
}
