package classify

import (
	_ "embed"
	"math/bits"
	"strings"
	"sync"
)

// near is what a word says of the text around it.
type near uint64

const (
	nCard near = 1 << iota
	nIBAN
	nSSN
	nTax
	nID
	nPhone
	nBirth
	nPatient // a person's health is spoken of
	nDose
	nRecord
	nInsurance
	nAccount
	nRouting
	nSwift
	nPassport
	nLicence
	nKey
	nWallet
	nNot // a number of something else: an order, a build
	nVersion
	nUK
	nDE
	nFR
	nES
	nPL
	nNL
	nBE
	nSE
	nNordic
	nIN
	nBR
	nCN
	nJP
	nKR
	nAU
	nCA
	nTR
	nMail // an address to send to
	nBank
	nCode // programs and their output
	nICD
	nSort
	nOwn    // mine, hers: words that tie a disease to somebody
	numNear = iota
)

// act is what is tried where a word stands.
type act uint32

const (
	aTitle act = 1 << iota
	aIntro
	aFirst
	aStreet    // stands behind the name of a street
	aStreetPre // stands before it
	aUnit
	aBox
	aPassword
	aSecret
	aToken
	aMarking
	aDrug
	aDisease
	aSeed
	aDict
	aBearer
	aOrdinary // a first name that is a word or a place, too
	aHeading  // of what is confidential, in capitals
	aSwift
	aResidence // an address stands behind it
	aStreetMid // stands between the name of a street and the number
	aForces    // post of the American forces
	aZip
	aBoxAlone
)

type word struct {
	text  string
	near  near
	act   act
	seed  uint16 // its place in the list of BIP 39
	dict  []phrase
	marks []string // the markings that begin with it
}

// wordTable finds words by the hash that the scanner makes of them as it goes. It is built once, and copied when rules add to it.
type wordTable struct {
	bloom bloom  // of words that mean something by themselves
	seeds bloom  // of those of BIP 39, which only many of make a phrase
	slots []slot // open addressing
	words []word
}

// slot is a word's hash, and its place in words, +1.
type slot struct {
	hash hash
	word int32
}

// hash is a word's, of its small letters: one rotation for each, since the scanner makes it of every word there is, and a product.
type hash uint64

func (h hash) add(small uint8) hash { return hash(bits.RotateLeft64(uint64(h), 5)) ^ hash(small) }

func (h hash) sum() hash { return h * 0x9e3779b97f4a7c15 }

func hashOf(s string) hash {
	var h hash
	for i := 0; i < len(s); i++ {
		h = h.add(lower[s[i]])
	}
	return h.sum()
}

// bloom is what most words are told by that mean nothing.
type bloom [1 << 10]uint64

func (b *bloom) add(h hash)      { b[h>>54] |= 1 << (h >> 48 & 63) }
func (b *bloom) has(h hash) bool { return b[h>>54]>>(h>>48&63)&1 != 0 }

// find is nil for a word that isn't in the table.
func (t *wordTable) find(h hash, s string) *word {
	mask := hash(len(t.slots) - 1)
	for i := h >> 32 & mask; ; i = (i + 1) & mask {
		slot := &t.slots[i]
		if slot.word == 0 {
			return nil
		}
		if slot.hash == h {
			if w := &t.words[slot.word-1]; sameFold(w.text, s) {
				return w
			}
		}
	}
}

// look is the word's meaning, of one that the scanner did not hash. A word of BIP 39 alone is none.
func (t *wordTable) look(s string) *word {
	h := hashOf(s)
	if !t.bloom.has(h) {
		return nil
	}
	return t.find(h, s)
}

// sameFold compares a word of the table with one of a text, ASCII letters in any case.
func sameFold(plain, s string) bool {
	if len(plain) != len(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if lower[s[i]] != plain[i] {
			return false
		}
	}
	return true
}

func (t *wordTable) add(text string, n near, a act) *word {
	h := hashOf(text)
	if a == aSeed {
		t.seeds.add(h)
	} else {
		t.bloom.add(h)
	}
	if w := t.find(h, text); w != nil {
		w.near |= n
		w.act |= a
		return w
	}
	if (len(t.words)+1)*2 > len(t.slots) {
		t.grow()
	}
	t.words = append(t.words, word{text: text, near: n, act: a})
	t.place(slot{h, int32(len(t.words))})
	return &t.words[len(t.words)-1]
}

func (t *wordTable) place(s slot) {
	mask := hash(len(t.slots) - 1)
	i := s.hash >> 32 & mask
	for t.slots[i].word != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

func (t *wordTable) grow() {
	t.slots = make([]slot, max(2*len(t.slots), 64))
	for i := range t.words {
		t.place(slot{hashOf(t.words[i].text), int32(i + 1)})
	}
}

// addAll adds words that are separated by blanks. Letters outside ASCII are kept in all the cases that they are written in.
func (t *wordTable) addAll(list string, n near, a act) {
	for _, w := range strings.Fields(list) {
		for _, spelling := range spellings(w) {
			t.add(spelling, n, a)
		}
	}
}

func spellings(w string) []string {
	small := asciiLower(w)
	for i := 0; i < len(w); i++ {
		if w[i] >= 0x80 {
			return []string{small, asciiLower(strings.ToLower(w)), asciiLower(strings.ToUpper(w)), asciiLower(title(w))}
		}
	}
	return []string{small}
}

func title(w string) string {
	for i, r := range w {
		if i > 0 {
			return strings.ToUpper(w[:i]) + strings.ToLower(w[i:])
		}
		_ = r
	}
	return strings.ToUpper(w)
}

func asciiLower(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = lower[b[i]]
	}
	return string(b)
}

func (t *wordTable) clone() *wordTable {
	c := *t
	c.slots = append([]slot(nil), t.slots...)
	c.words = append([]word(nil), t.words...)
	return &c
}

// The lists: one line for each meaning, "near card" or "act first", then words.
var (
	//go:embed words.txt
	wordsText string
	//go:embed names.txt
	namesText string
	//go:embed bip39.txt
	bip39Text string
)

// noNames are never part of a name, though they have a capital. They are the commonest words, so the scanner has them in no table.
var noNames = map[string]bool{}

var builtin = sync.OnceValue(func() *wordTable {
	t := &wordTable{}
	t.grow()
	for line := range strings.Lines(wordsText) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		meaning, list, ok := strings.Cut(line, ":")
		if !ok {
			panic("words.txt: " + line)
		}
		if meaning == "no-name" {
			for _, w := range strings.Fields(list) {
				noNames[w] = true
			}
			continue
		}
		var n near
		var a act
		for _, m := range strings.Fields(meaning) {
			if nn, ok := nearNames[m]; ok {
				n |= nn
			} else if aa, ok := actNames[m]; ok {
				a |= aa
			} else {
				panic("words.txt: " + m)
			}
		}
		t.addAll(list, n, a)
	}
	t.addAll(namesText, 0, aFirst)
	for i, w := range strings.Fields(bip39Text) {
		t.add(w, 0, aSeed).seed = uint16(i)
	}
	for m := range strings.Lines(markingsText) {
		m = strings.TrimSpace(m)
		first := m
		for i := range len(m) {
			if !wordy(m[i]) {
				first = m[:i]
				break
			}
		}
		w := t.add(first, 0, aMarking)
		w.marks = append(w.marks, m)
	}
	return t
})

var nearNames = map[string]near{
	"card": nCard, "iban": nIBAN, "ssn": nSSN, "tax": nTax, "id": nID, "phone": nPhone, "birth": nBirth, "patient": nPatient,
	"dose": nDose, "record": nRecord, "insurance": nInsurance, "account": nAccount, "routing": nRouting, "swift": nSwift,
	"passport": nPassport, "licence": nLicence, "key": nKey, "wallet": nWallet, "not": nNot, "version": nVersion, "uk": nUK,
	"de": nDE, "fr": nFR, "es": nES, "pl": nPL, "nl": nNL, "be": nBE, "se": nSE, "nordic": nNordic, "in": nIN, "br": nBR,
	"cn": nCN, "jp": nJP, "kr": nKR, "au": nAU, "ca": nCA, "tr": nTR, "mail": nMail, "bank": nBank, "code": nCode, "icd": nICD,
	"sort": nSort, "own": nOwn,
}

var actNames = map[string]act{
	"title": aTitle, "intro": aIntro, "first": aFirst, "street": aStreet, "street-pre": aStreetPre, "unit": aUnit, "box": aBox,
	"password": aPassword, "secret": aSecret, "token": aToken, "marking": aMarking, "drug": aDrug, "disease": aDisease,
	"bearer": aBearer, "ordinary": aOrdinary, "heading": aHeading, "bic": aSwift,
	"residence": aResidence, "street-mid": aStreetMid, "forces": aForces, "zip": aZip, "box-alone": aBoxAlone,
}

// lower is a byte with ASCII capitals made small.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] |= 0x20
		}
	}
	return t
}()
