package inference

import "sync"

// maxMarks is how many marks a ring has; the oldest goes.
const maxMarks = 1 << 16

// mark is a part of a hash.
type mark [16]byte

// ring is a bounded set of marks, each with bits that say of what.
type ring struct {
	mu    sync.Mutex
	known map[mark]uint64
	order []mark // the same, as a ring
	next  int
}

// of are a mark's bits; 0: it is not known.
func (r *ring) of(k mark) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[k]
}

func (r *ring) has(k mark) bool { return r.of(k) != 0 }

// add keeps marks with these bits and those that they have, and returns how many are new.
func (r *ring) add(bits uint64, list ...mark) (added int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[mark]uint64{}
	}
	for _, k := range list {
		if was, known := r.known[k]; known {
			r.known[k] = was | bits
			continue
		}
		if len(r.order) < maxMarks {
			r.order = append(r.order, k)
		} else {
			delete(r.known, r.order[r.next])
			r.order[r.next] = k
			r.next = (r.next + 1) % maxMarks
		}
		r.known[k] = bits
		added++
	}
	return added
}
