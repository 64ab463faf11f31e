package report

import (
	"cmp"
	"slices"
)

// How much is kept, whatever a log holds. What is beyond is counted, and the report says so.
const (
	maxKinds     = 50_000 // different things of one table
	maxShare     = 1_000  // of those, of one sandbox, plane and verdict: a flood of one sandbox hides no other, nor what it was allowed
	maxSandboxes = 1_000
	maxPeople    = 5_000
	maxHours     = 24 * 366 * 2
	maxNotes     = 200 // of a list in the order of time: the last ones
	maxObject    = 400 // bytes of a name or path
	maxWord      = 200 // bytes of a rule, a program, a model
)

// A table counts things that are equal as one, and keeps a bounded number of different ones.
type table[K comparable, V any] struct {
	max, share int // share: of one owner; 0: as many as there is room for
	rows       map[K]*V
	owned      map[string]int
	over       uint64 // attempts for whose kind there was no room
}

func newTable[K comparable, V any](most, share int) *table[K, V] {
	return &table[K, V]{max: most, share: share, rows: map[K]*V{}, owned: map[string]int{}}
}

// at returns what is kept of k, which is made when it is new; nil when there is no room, and n is counted as over.
func (t *table[K, V]) at(k K, owner string, n uint64) *V {
	if v := t.rows[k]; v != nil {
		return v
	}
	if len(t.rows) >= t.max || t.share > 0 && t.owned[owner] >= t.share {
		t.over += n
		return nil
	}
	if t.share > 0 {
		t.owned[owner]++
	}
	v := new(V)
	t.rows[k] = v
	return v
}

// A row is one thing of a table.
type row[K comparable, V any] struct {
	key K
	val *V
}

// sorted lists the rows that fit, the first by less first. less is a whole order, so that the same log gives the same report.
func (t *table[K, V]) sorted(fits func(K, *V) bool, less func(a, b row[K, V]) int) []row[K, V] {
	var list []row[K, V]
	for k, v := range t.rows {
		if fits == nil || fits(k, v) {
			list = append(list, row[K, V]{k, v})
		}
	}
	slices.SortFunc(list, less)
	return list
}

// A ring keeps the last of a list, and counts all.
type ring[V any] struct {
	all  uint64
	list []V
}

func (r *ring[V]) add(v V) {
	r.all++
	if len(r.list) == maxNotes {
		copy(r.list, r.list[1:])
		r.list = r.list[:maxNotes-1]
	}
	r.list = append(r.list, v)
}

// byCount orders rows of what was seen: the most frequent first, then the earliest.
func byCount[K comparable](a, b row[K, seen]) int {
	return cmp.Or(cmp.Compare(b.val.n, a.val.n), a.val.first.Compare(b.val.first), cmp.Compare(a.val.seq, b.val.seq))
}
