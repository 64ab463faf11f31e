package classify

import (
	"crypto/sha256"
	"math/big"
	"strings"
)

const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// coin finds the keys and addresses of cryptocurrencies by their checksums.
func (s *scanner) coin(start, end int) {
	w := s.s[start:end]
	n := len(w)
	switch {
	case n == 42 && w[0] == '0' && lower[w[1]] == 'x' && allHex(w[2:]):
		if end < len(s.s) && s.s[end] == ';' && !s.around(start, end, nWallet) {
			return // a number of a program
		}
		s.took(Financial, "crypto-address", start, end)
	case (n == 66 && w[0] == '0' && lower[w[1]] == 'x' && allHex(w[2:]) || n == 64 && allHex(w)) && s.before(start, nKey, 40):
		s.took(Credentials, "crypto-key", start, end)
	case n >= 42 && n <= 62 && (strings.HasPrefix(w, "bc1") || strings.HasPrefix(w, "tb1")) && bech32(w):
		s.took(Financial, "crypto-address", start, end)
	case n >= 26 && n <= 35 && strings.IndexByte("13LDmn2", w[0]) >= 0 && base58Check(w):
		s.took(Financial, "crypto-address", start, end)
	case (n == 51 && w[0] == '5' || n == 52 && (w[0] == 'K' || w[0] == 'L')) && base58Check(w):
		s.took(Credentials, "crypto-key", start, end)
	case n == 111 && (strings.HasPrefix(w, "xprv") || strings.HasPrefix(w, "yprv") || strings.HasPrefix(w, "zprv")) && base58Check(w):
		s.took(Credentials, "crypto-key", start, end)
	}
}

func allHex(w string) bool {
	for i := range len(w) {
		if !hexByte(w[i]) {
			return false
		}
	}
	return true
}

// base58Check verifies the four bytes at the end.
func base58Check(w string) bool {
	v, k := new(big.Int), big.NewInt(58)
	zeros := 0
	for i := range len(w) {
		d := strings.IndexByte(base58, w[i])
		if d < 0 {
			return false
		}
		if d == 0 && zeros == i {
			zeros++
		}
		v.Add(v.Mul(v, k), big.NewInt(int64(d)))
	}
	raw := append(make([]byte, zeros), v.Bytes()...)
	if len(raw) < 21 {
		return false
	}
	body := raw[:len(raw)-4]
	first := sha256.Sum256(body)
	sum := sha256.Sum256(first[:])
	return string(sum[:4]) == string(raw[len(raw)-4:])
}

// bech32 verifies the six characters at the end (BIP 173 and 350).
func bech32(w string) bool {
	w = asciiLower(w)
	sum := uint32(1)
	step := func(v uint32) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ v
		for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	for _, b := range []byte(w[:2]) {
		step(uint32(b >> 5))
	}
	step(0)
	for _, b := range []byte(w[:2]) {
		step(uint32(b & 31))
	}
	for i := 3; i < len(w); i++ {
		v := strings.IndexByte("qpzry9x8gf2tvdw0s3jn54khce6mua7l", w[i])
		if v < 0 {
			return false
		}
		step(uint32(v))
	}
	return sum == 1 || sum == 0x2bc830a3
}

// seedRun is words of BIP 39 that stand one behind the other.
type seedRun struct {
	n     int
	index [24]uint16
}

// seedPhrase goes over the words around a place where some of BIP 39 were seen, as long as they are of it.
func (s *scanner) seedPhrase(end int) {
	if end <= s.seeds {
		return
	}
	t := s.s
	start := end
	for range 12 {
		from, to := wordBefore(t, start)
		if from == to || start < end && !seedGap(t, to, start) || s.seedWord(from, to) == nil {
			break
		}
		start = from
	}
	var r seedRun
	for start < len(t) {
		to := start
		for to < len(t) && class[t[to]]&bLetter != 0 {
			to++
		}
		w := s.seedWord(start, to)
		if w == nil {
			return
		}
		r.word(s, w, to)
		s.seeds = to
		for start = to; start < len(t) && start-to <= 8 && class[t[start]]&bLetter == 0; {
			start++
		}
		if !seedGap(t, to, start) {
			return
		}
	}
}

// seedWord is a word of BIP 39, or nil.
func (s *scanner) seedWord(from, to int) *word {
	if from == to || to-from > 8 {
		return nil
	}
	h := hashOf(s.s[from:to])
	if !s.c.words.seeds.has(h) {
		return nil
	}
	if w := s.c.words.find(h, s.s[from:to]); w != nil && w.act&aSeed != 0 {
		return w
	}
	return nil
}

// wordBefore is the word of letters that ends at a place or a little before it.
func wordBefore(t string, end int) (from, to int) {
	for far := max(0, end-8); end > far && class[t[end-1]]&bLetter == 0; {
		end--
	}
	from = end
	for far := max(0, end-9); from > far && class[t[from-1]]&bLetter != 0; {
		from--
	}
	return from, end
}

func (r *seedRun) word(s *scanner, w *word, end int) {
	if r.n == 24 {
		copy(r.index[:], r.index[1:])
		r.n--
	}
	r.index[r.n] = w.seed
	r.n++
	if r.n >= 12 {
		r.check(s, end)
	}
}

// seedGap is what may stand between two words of a phrase: blanks, a comma, a line's end, a number and a dot.
func seedGap(t string, from, to int) bool {
	if to-from > 8 {
		return false
	}
	for i := from; i < to; i++ {
		if class[t[i]]&bLetter != 0 {
			return false
		}
	}
	return true
}

// check tells a phrase from words that follow each other: a part of its last word is a checksum.
func (r *seedRun) check(s *scanner, end int) {
	for _, n := range [...]int{24, 21, 18, 15, 12} {
		if r.n >= n && seedSum(r.index[r.n-n:r.n]) {
			start := end
			for range n {
				start, _ = wordBefore(s.s, start)
			}
			s.add(Credentials, "seed-phrase", start, end)
			r.n = 0
			return
		}
	}
}

func seedSum(index []uint16) bool {
	var b [34]byte
	n, bits, acc := 0, 0, uint32(0)
	for _, v := range index {
		acc = acc<<11 | uint32(v)
		for bits += 11; bits >= 8; n++ {
			bits -= 8
			b[n] = byte(acc >> bits)
		}
	}
	b[n] = byte(acc << (8 - bits))
	sumBits := len(index) * 11 / 33
	entropyBytes := (len(index)*11 - sumBits) / 8
	sum := sha256.Sum256(b[:entropyBytes])
	return sum[0]>>(8-sumBits) == b[entropyBytes]>>(8-sumBits)
}
