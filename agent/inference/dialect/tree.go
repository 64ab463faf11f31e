package dialect

import (
	"slices"
	"strconv"
)

// What builds and looks into trees. A nil value stands for what isn't there.

func str(s string) *value { return &value{kind: text, text: s} }

func num(n int) *value { return &value{kind: number, text: strconv.Itoa(n)} }

func boolv(b bool) *value { return &value{kind: boolean, text: strconv.FormatBool(b)} }

func arr(items ...*value) *value { return &value{kind: array, items: items} }

// texts is an array of strings, nil if there are none.
func texts(list []string) *value {
	if len(list) == 0 {
		return nil
	}
	v := arr()
	for _, s := range list {
		v.add(str(s))
	}
	return v
}

// obj makes an object of keys and values in turn; a value is a string, an int, a bool or a *value. A nil *value is left out.
func obj(pairs ...any) *value {
	v := &value{kind: object, keys: make([]string, 0, len(pairs)/2), items: make([]*value, 0, len(pairs)/2)}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.set(pairs[i].(string), pairs[i+1])
	}
	return v
}

func toValue(x any) *value {
	switch x := x.(type) {
	case string:
		return str(x)
	case int:
		return num(x)
	case bool:
		return boolv(x)
	case *value:
		return x
	}
	return nil
}

var nothing = &value{kind: null}

// set gives a member a value, in place if it is there. A nil *value changes nothing.
func (v *value) set(key string, x any) *value {
	item := toValue(x)
	if item == nil {
		return v
	}
	for i, k := range v.keys {
		if k == key {
			v.items[i] = item
			return v
		}
	}
	v.keys, v.items = append(v.keys, key), append(v.items, item)
	return v
}

// rename gives a member another key, unless another has that.
func (v *value) rename(from, to string) {
	for i, k := range v.keys {
		if k == from && v.get(to) == nil {
			v.keys[i] = to
		}
	}
}

func (v *value) add(items ...*value) *value {
	v.items = append(v.items, items...)
	return v
}

// get is a member of an object, nil when it isn't there or null.
func (v *value) get(keys ...string) *value {
	for _, key := range keys {
		if v == nil || v.kind != object {
			return nil
		}
		var found *value
		for i, k := range v.keys {
			if k == key && v.items[i].kind != null {
				found = v.items[i]
			}
		}
		v = found
	}
	return v
}

// str is the text of a string, "" for anything else.
func (v *value) str() string {
	if v == nil || v.kind != text {
		return ""
	}
	return v.string()
}

func (v *value) is(k kind) bool { return v != nil && v.kind == k }

func (v *value) isTrue() bool { return v != nil && v.kind == boolean && v.text == "true" }

// int is a whole number, 0 for anything else.
func (v *value) int() int {
	if v == nil || v.kind != number {
		return 0
	}
	if n, err := strconv.Atoi(v.text); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil || f > 1<<53 || f < -1<<53 {
		return 0
	}
	return int(f)
}

// list are the elements of an array.
func (v *value) list() []*value {
	if v == nil || v.kind != array {
		return nil
	}
	return v.items
}

// shallow is an object with the same members, to set some.
func (v *value) shallow() *value {
	c := *v
	c.keys, c.items = slices.Clone(v.keys), slices.Clone(v.items)
	return &c
}

func (v *value) clone() *value {
	if v == nil {
		return nil
	}
	c := *v
	c.keys = append([]string(nil), v.keys...)
	c.items = make([]*value, len(v.items))
	for i, item := range v.items {
		c.items[i] = item.clone()
	}
	if v.held != nil {
		c.held = &held{v.held.clone(), v.held.was}
	}
	return &c
}

// json is v as a text.
func (v *value) json() string { return string(v.append(nil)) }

// unwrap reads the JSON in the strings that hold arguments of tools, so that an escape in them hides nothing from Texts.
func (v *value) unwrap(key string) {
	if v == nil {
		return
	}
	if key == "arguments" && v.kind == text {
		if in, err := parse([]byte(v.text)); err == nil && (in.kind == object || in.kind == array) {
			v.held = &held{in, in.json()}
		}
	}
	for i, item := range v.items {
		if v.kind == object {
			key = v.keys[i]
		}
		item.unwrap(key)
	}
}
