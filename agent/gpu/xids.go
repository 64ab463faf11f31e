package gpu

import (
	"math"
	"slices"

	"github.com/nemoclaw/nemoclaw/api"
)

// maxCodes is how many kinds of errors are counted apart of one device; maxCounted how many devices are counted.
const (
	maxCodes   = 32
	maxCounted = 256
)

// otherCode is what kinds beyond those are counted as.
const otherCode = -1

// xids counts the errors that the driver reported, over all helpers. Its zero value has none.
type xids []counted

type counted struct {
	index int
	uuid  string
	list  []api.GPUXID
}

// add counts what a helper heard since it was last asked.
func (x *xids) add(list []XID) {
	for _, e := range list {
		i := slices.IndexFunc(*x, func(c counted) bool { return c.uuid == e.UUID })
		if i < 0 {
			if len(*x) == maxCounted {
				continue
			}
			i = len(*x)
			*x = append(*x, counted{uuid: e.UUID})
		}
		c := &(*x)[i]
		c.index = e.Index
		code := otherCode
		if e.Code <= math.MaxInt32 {
			code = int(e.Code)
		}
		j := slices.IndexFunc(c.list, func(k api.GPUXID) bool { return k.Code == code })
		if j < 0 && len(c.list) >= maxCodes {
			code = otherCode
			j = slices.IndexFunc(c.list, func(k api.GPUXID) bool { return k.Code == code })
		}
		if j < 0 {
			j = len(c.list)
			c.list = append(c.list, api.GPUXID{Code: code})
		}
		c.list[j].Times += e.Times
	}
}

// fill says of each device what was counted. One that does not answer any more is known by its number.
func (x *xids) fill(list []api.GPU) {
	for i := range list {
		d := &list[i]
		at := slices.IndexFunc(*x, func(c counted) bool {
			return c.uuid == d.UUID || d.UUID == "" && c.index == d.Index
		})
		d.XIDs = nil
		if at >= 0 {
			d.XIDs = slices.Clone((*x)[at].list)
		}
	}
}
