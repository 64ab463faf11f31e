package risk

import (
	"strings"
	"sync"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// known are the names that a policy allows, as somebody would imitate them. Its size goes with the policy's, the cost of a look-up
// does not.
type known struct {
	owners map[string]bool   // registrable domains: example.org
	words  map[string]string // the same with dots for hyphens -> owner
	looks  map[string]string // what a brand (the first label of an owner) looks like -> owner
	near   map[string]string // brands with one character left out -> owner
	tops   map[string]bool   // top-level domains; nil where no name is allowed
}

// shortest is the length from which a brand with one character changed is more likely meant than met.
const shortest = 5

// nobodys is the brand of the domains of RFC 2606, which nobody imitates: example.com, example.org.
const nobodys = "example"

// indexes are those of the policies in force, by revision.
var indexes struct {
	sync.Mutex
	of map[string]*known
}

const maxIndexes = 256

func knownOf(c *policy.Compiled) *known {
	if c.Revision == "" {
		return newKnown(c)
	}
	indexes.Lock()
	defer indexes.Unlock()
	k := indexes.of[c.Revision]
	if k == nil {
		k = newKnown(c)
		if indexes.of == nil || len(indexes.of) >= maxIndexes {
			indexes.of = map[string]*known{}
		}
		indexes.of[c.Revision] = k
	}
	return k
}

func newKnown(c *policy.Compiled) *known {
	k := &known{owners: map[string]bool{}, words: map[string]string{}, looks: map[string]string{}, near: map[string]string{}}
	for i := range c.Network.Rules {
		r := &c.Network.Rules[i]
		name := strings.TrimLeft(r.Name, "*.")
		if r.Verdict != policy.Allow || name == "" {
			continue
		}
		if k.tops == nil {
			k.tops = map[string]bool{}
		}
		k.tops[name[strings.LastIndexByte(name, '.')+1:]] = true
		own := owner(name)
		if own == "" || k.owners[own] {
			continue
		}
		k.owners[own] = true
		put(k.words, strings.ReplaceAll(own, "-", "."), own)
		look := text.Skeleton(brand(spelt(own)))
		if brand(own) == nobodys {
			continue
		}
		put(k.looks, look, own)
		for i := range runes(look) {
			put(k.near, without(look, i), own)
		}
		put(k.near, look, own)
	}
	return k
}

// put keeps the first, so that the same policy always names the same one.
func put(m map[string]string, key, owner string) {
	if m[key] == "" {
		m[key] = owner
	}
}

// owner is the domain that somebody registered, which a name is or lies below; "" for none.
func owner(name string) string {
	own, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return ""
	}
	return own
}

func brand(owner string) string { first, _, _ := strings.Cut(owner, "."); return first }

// spelt is a name in letters.
func spelt(name string) string {
	if u, err := idna.Punycode.ToUnicode(name); err == nil {
		return u
	}
	return name
}

func runes(s string) []rune { return []rune(s) }

// without is s less its character i.
func without(s string, i int) string {
	r := runes(s)
	return string(r[:i]) + string(r[i+1:])
}

// like returns the allowed name that another is easily taken for, "" for none, and by what.
func (k *known) like(name, letters string) (allowed, how string) {
	own := owner(name)
	if own == "" || k.owners[own] {
		return "", ""
	}
	if a := k.inside(name, own); a != "" {
		return a, "only begins like it: it belongs to " + text.Host(own)
	}
	b := brand(spelt(own))
	look := text.Skeleton(b)
	switch a := k.looks[look]; {
	case a == "":
	case b == brand(spelt(a)) && len(b) >= shortest-1:
		return a, "has another ending"
	case b == brand(spelt(a)): // two letters mean many things
	default:
		return a, "looks like it"
	}
	plain := strings.ReplaceAll(look, "-", "")
	for _, a := range []string{k.looks[plain], k.looks[strings.ReplaceAll(plain, "_", "")]} {
		if a != "" {
			return a, "differs from it by a hyphen only"
		}
	}
	if len(look) < shortest {
		return "", ""
	}
	if a := k.near[look]; a != "" && a != own && len(brand(a)) >= shortest {
		return a, "differs from it by one character"
	}
	for i := range runes(look) {
		if a := k.near[without(look, i)]; a != "" && len(brand(a)) >= shortest {
			return a, "differs from it by one character"
		}
	}
	return "", ""
}

// inside returns an allowed domain that a name has before the domain that it belongs to, with dots or with hyphens:
// openai.com.evil.example, openai-com.evil.example, openai.com-evil.example.
func (k *known) inside(name, own string) string {
	suffix, _ := publicsuffix.PublicSuffix(own)
	words := strings.FieldsFunc(strings.TrimSuffix(name, suffix), func(r rune) bool { return r == '.' || r == '-' })
	for i := range words {
		for j := i + 2; j <= len(words) && j <= i+5; j++ {
			if a := k.words[strings.Join(words[i:j], ".")]; a != "" && a != own {
				return a
			}
		}
	}
	return ""
}
