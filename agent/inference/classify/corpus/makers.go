package corpus

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

var makers map[string]func(*generator) string

func init() {
	makers = map[string]func(*generator) string{
		"card": func(g *generator) string { return label("card", g.card()) }, "iban": func(g *generator) string { return label("iban", g.iban()) },
		"ssn":      func(g *generator) string { return label("ssn", g.ssn("-")) },
		"ssn-bare": func(g *generator) string { return label("ssn", g.ssn(pick(g, []string{"", " ", "-"}))) },
		"mail":     func(g *generator) string { return label("e-mail", g.mail()) }, "phone": func(g *generator) string { return label("phone", g.phone()) },
		"person": func(g *generator) string { return label("person", pick(g, firsts)+" "+pick(g, lasts)) },
		"first":  func(g *generator) string { return label("person", pick(g, firsts)) }, "last": func(g *generator) string { return label("person", pick(g, lasts)) },
		"address": func(g *generator) string { return label("address", g.address()) }, "birth": func(g *generator) string { return label("birth-date", g.date()) },
		"ip": func(g *generator) string { return label("ip", g.ip()) }, "mac": func(g *generator) string { return label("mac", g.mac()) },
		"token": func(g *generator) string { return label("credential", g.token()) }, "password": func(g *generator) string { return label("credential", g.password()) },
		"urlpass": func(g *generator) string { return label("credential", g.from(alnum, 9)+g.digits(1)) },
		"hexkey":  func(g *generator) string { return label("credential", g.from(hexa, 40)) }, "pem": func(g *generator) string { return label("credential", g.pem()) },
		"b64key": func(g *generator) string { return label("credential", g.from(alnum, 43)+"=") },
		"user":   func(g *generator) string { return strings.ToLower(pick(g, firsts)) }, "host": func(g *generator) string { return pick(g, hosts) },
		"bic": func(g *generator) string {
			return label("bank", g.from(upper, 4)+pick(g, []string{"DE", "FR", "GB", "US", "NL", "CH", "JP", "BR"})+g.from(upper+"23456789", 2)+pick(g, []string{"", "XXX", g.digits(3)}))
		},
		"account": func(g *generator) string { return label("bank", g.digits(8+g.IntN(5))) }, "routing": func(g *generator) string { return label("bank", g.routing()) },
		"btc": func(g *generator) string { return label("crypto", g.bitcoin()) }, "eth": func(g *generator) string { return label("crypto", "0x"+g.from(hexa, 40)) },
		"drug": func(g *generator) string { return label("medical", pick(g, drugs)) }, "disease": func(g *generator) string { return label("medical", pick(g, diseases)) },
		"icd": func(g *generator) string { return label("medical", pick(g, icds)) }, "mrn": func(g *generator) string { return label("medical", g.digits(7+g.IntN(3))) },
		"marking": func(g *generator) string { return label("marking", pick(g, marks)) },
		"nhs":     func(g *generator) string { return label("id", g.nhs()) }, "steuer": func(g *generator) string { return label("id", pick(g, steuerIDs)) },
		"nino": func(g *generator) string {
			return label("id", pick(g, []string{"AB", "CE", "JK", "PW", "SX"})+g.spaced(g.digits(6), 2)+pick(g, []string{"A", "B", "C", "D"}))
		},
		"dni": func(g *generator) string { return label("id", g.dni()) }, "bsn": func(g *generator) string { return label("id", g.bsn()) },
		"cpf": func(g *generator) string { return label("id", g.cpf()) }, "pesel": func(g *generator) string { return label("id", g.pesel()) },
		"nir": func(g *generator) string { return label("id", g.nir()) }, "cnid": func(g *generator) string { return label("id", g.chinese()) },
		"aadhaar": func(g *generator) string { return label("id", pick(g, aadhaars)) }, "cf": func(g *generator) string { return label("id", pick(g, codici)) },
		"pan": func(g *generator) string {
			return label("id", g.from(upper, 3)+"P"+g.from(upper, 1)+g.digits(4)+g.from(upper, 1))
		},
		"sin": func(g *generator) string { return label("id", g.sin()) },
		// What only looks like it.
		"uuid": func(g *generator) string {
			return fmt.Sprintf("%s-%s-4%s-a%s-%s", g.from(hexa, 8), g.from(hexa, 4), g.from(hexa, 3), g.from(hexa, 3), g.from(hexa, 12))
		},
		"sha": func(g *generator) string { return g.from(hexa, pick(g, []int{7, 8, 12, 40, 64})) }, "order": (*generator).order,
		"n": func(g *generator) string { return fmt.Sprint(1 + g.IntN(999)) }, "nn": func(g *generator) string { return fmt.Sprint(1000 + g.IntN(900000)) },
		"version": func(g *generator) string {
			return fmt.Sprintf("%d.%d.%d", g.IntN(30), g.IntN(40), g.IntN(200)) + pick(g, []string{"", "-rc.1", "-beta.3", "+build.77", ".1"})
		},
		"stamp": func(g *generator) string {
			return fmt.Sprintf("20%02d-%02d-%02d%s%02d:%02d:%02d", 10+g.IntN(17), 1+g.IntN(12), 1+g.IntN(28), pick(g, []string{"T", " "}), g.IntN(24), g.IntN(60), g.IntN(60)) + pick(g, []string{"", "Z", ".331Z", "+02:00"})
		},
		"epoch": func(g *generator) string {
			return fmt.Sprint(1_600_000_000+g.IntN(200_000_000)) + pick(g, []string{"", "000", "123456"})
		},
		"day": (*generator).date, "word": func(g *generator) string { return pick(g, nouns) }, "file": func(g *generator) string {
			return pick(g, nouns) + pick(g, []string{".go", ".py", ".ts", "@2x.png", ".tar.gz"})
		},
		"float": func(g *generator) string { return fmt.Sprintf("%d.%s", g.IntN(500), g.digits(1+g.IntN(12))) },
		"b64": func(g *generator) string {
			return base64.StdEncoding.EncodeToString([]byte(g.from(hexa, 9) + string(rune(200+g.IntN(50))) + g.from(hexa, 12)))
		},
		"sri": func(g *generator) string {
			sum := sha256.Sum256([]byte(g.digits(9)))
			return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
		},
		"isbn": func(g *generator) string {
			return "978-" + g.digits(1) + "-" + g.digits(4) + "-" + g.digits(4) + "-" + g.digits(1)
		},
	}
}

func (g *generator) spaced(s string, n int) string {
	if g.IntN(2) == 0 {
		return s
	}
	var parts []string
	for len(s) > n {
		parts = append(parts, s[:n])
		s = s[n:]
	}
	return " " + strings.Join(append(parts, s), " ") + " "
}

func group(s, sep string, sizes ...int) string {
	var parts []string
	for _, n := range sizes {
		n = min(n, len(s))
		parts = append(parts, s[:n])
		s = s[n:]
	}
	if s != "" {
		parts = append(parts, s)
	}
	return strings.Join(parts, sep)
}

// luhn sums from the right by a table, not by arithmetic.
func luhn(s string) bool {
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 1 {
			d = [10]int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}[d]
		}
		sum += d
	}
	return sum%10 == 0
}

func (g *generator) card() string {
	x := pick(g, []struct {
		prefix string
		n      int
	}{{"4", 16}, {"4", 16}, {"51", 16}, {"53", 16}, {"55", 16}, {"2345", 16}, {"34", 15}, {"37", 15}, {"6011", 16}, {"65", 16}, {"3530", 16}, {"36", 14}, {"62", 16}})
	s := check(x.prefix+g.digits(x.n-1-len(x.prefix)), func(s string) bool { return len(s) == x.n && luhn(s) })
	switch g.IntN(4) {
	case 0:
		sep := pick(g, []string{" ", "-"})
		if x.n == 16 {
			return group(s, sep, 4, 4, 4, 4)
		}
		return group(s, sep, 4, 6)
	}
	return s
}

func mod97(s string) int64 {
	var b strings.Builder
	for _, r := range s {
		if r >= 'A' {
			fmt.Fprint(&b, int(r-'A')+10)
		} else {
			b.WriteRune(r)
		}
	}
	v, _ := new(big.Int).SetString(b.String(), 10)
	return new(big.Int).Mod(v, big.NewInt(97)).Int64()
}

func (g *generator) iban() string {
	x := pick(g, []struct {
		country string
		letters int
		digits  int
	}{{"DE", 0, 18}, {"GB", 4, 14}, {"FR", 0, 23}, {"ES", 0, 20}, {"NL", 4, 10}, {"CH", 0, 17}, {"PL", 0, 24}, {"SE", 0, 20}, {"NO", 0, 11}, {"AT", 0, 16}, {"BE", 0, 12}, {"IE", 4, 14}, {"PT", 0, 21}})
	body := g.from(upper, x.letters) + g.digits(x.digits)
	s := fmt.Sprintf("%s%02d%s", x.country, 98-mod97(body+x.country+"00"), body)
	if g.IntN(2) == 0 {
		return group(s, " ", 4, 4, 4, 4, 4, 4, 4, 4)
	}
	return s
}

func (g *generator) ssn(sep string) string {
	area := 1 + g.IntN(898)
	if area == 666 {
		area = 667
	}
	return fmt.Sprintf("%03d%s%02d%s%04d", area, sep, 1+g.IntN(99), sep, 1+g.IntN(9999))
}

func (g *generator) mail() string {
	first, last := strings.ToLower(pick(g, firsts)), strings.ToLower(pick(g, lasts))
	local := pick(g, []string{first + "." + last, first[:1] + last, first + "_" + g.digits(2), last + "+news", first + "-" + last, first + g.digits(4)})
	return strings.NewReplacer("ü", "u", "é", "e", "ó", "o", "í", "i", "ł", "l", "ñ", "n").Replace(local) + "@" + pick(g, hosts)
}

func (g *generator) phone() string {
	nanp := func(f string) string { return fmt.Sprintf(f, 201+g.IntN(780), 200+g.IntN(790), g.IntN(10000)) }
	switch g.IntN(10) {
	case 0:
		return nanp("(%03d) %03d-%04d")
	case 1:
		return nanp("%03d-%03d-%04d")
	case 2:
		return nanp("%03d.%03d.%04d")
	case 3:
		return nanp("+1 %03d %03d %04d")
	case 4:
		return "+44 20 7" + g.digits(3) + " " + g.digits(4)
	case 5:
		return "+49 30 " + g.digits(8)
	case 6:
		return "+33 6 " + group(g.digits(8), " ", 2, 2, 2, 2)
	case 7:
		return "0" + pick(g, []string{"20", "151", "30", "171"}) + " " + g.digits(4) + " " + g.digits(4)
	case 8:
		return nanp("+1%03d%03d%04d")
	}
	return "+91 9" + g.digits(4) + " " + g.digits(5)
}

func (g *generator) date() string {
	y, m, d := 1935+g.IntN(75), 1+g.IntN(12), 1+g.IntN(28)
	month := months[m-1]
	return pick(g, []string{fmt.Sprintf("%02d/%02d/%d", m, d, y), fmt.Sprintf("%d-%02d-%02d", y, m, d), fmt.Sprintf("%d.%d.%d", d, m, y), fmt.Sprintf("%d %s %d", d, month, y), fmt.Sprintf("%s %d, %d", month, d, y)})
}

func (g *generator) ip() string {
	if g.IntN(4) == 0 {
		return fmt.Sprintf("2001:db8:%x:%x::%x:%x", 1+g.IntN(65000), 1+g.IntN(65000), 1+g.IntN(65000), 1+g.IntN(65000))
	}
	return fmt.Sprintf("%d.%d.%d.%d", pick(g, []int{10, 23, 52, 81, 93, 104, 145, 172, 185, 192, 203, 212}), g.IntN(256), 1+g.IntN(255), 1+g.IntN(254))
}

func (g *generator) mac() string {
	return group(g.from(hexa, 12), pick(g, []string{":", ":", "-"}), 2, 2, 2, 2, 2, 2)
}

func (g *generator) address() string {
	n := 1 + g.IntN(2000)
	us := fmt.Sprintf("%d %s %s", n, pick(g, streets), pick(g, []string{"Street", "St", "Avenue", "Ave", "Road", "Lane", "Drive", "Blvd", "Court", "Way", "Terrace"}))
	switch g.IntN(7) {
	case 0, 1:
		return us
	case 2:
		return us + fmt.Sprintf(", %s, %s %05d", pick(g, towns), pick(g, []string{"IL", "CA", "NY", "TX", "WA", "OR"}), 10000+g.IntN(80000))
	case 3:
		return fmt.Sprintf("%s %d", pick(g, []string{"Hauptstraße", "Bahnhofstr.", "Gartenweg", "Lindenallee", "Schillerplatz", "Kerkstraat", "Storgatan", "Vestergade"}), 1+g.IntN(150))
	case 4:
		return fmt.Sprintf("%d rue de %s", 1+g.IntN(120), pick(g, []string{"Rivoli", "la République", "la Paix", "l'Église", "Bretagne"}))
	case 5:
		return fmt.Sprintf("%s %d", pick(g, []string{"Via Garibaldi", "Calle Mayor", "Via Roma", "Calle de Alcalá", "Avenida da Liberdade", "Rua Augusta", "Piazza Navona"}), 1+g.IntN(120))
	}
	return fmt.Sprintf("P.O. Box %d", 10+g.IntN(9000))
}

// token is one in the form of some giver of tokens.
func (g *generator) token() string {
	switch g.IntN(18) {
	case 0:
		return "AKIA" + g.from(upper+"234567", 16)
	case 1:
		return "ghp_" + g.from(alnum, 36)
	case 2:
		return "github_pat_" + g.from(alnum, 22) + "_" + g.from(alnum, 59)
	case 3:
		return "glpat-" + g.from(alnum, 20)
	case 4:
		return "xoxb-" + g.digits(11) + "-" + g.digits(12) + "-" + g.from(alnum, 24)
	case 5:
		return "sk_" + "live_" + g.from(alnum, 24)
	case 6:
		return "sk-proj-" + g.from(alnum, 48)
	case 7:
		return "sk-ant-api03-" + g.from(alnum+"_", 60)
	case 8:
		return "nvapi-" + g.from(alnum, 64)
	case 9:
		return "hf_" + g.from(alnum, 34)
	case 10:
		return "npm_" + g.from(alnum, 36)
	case 11:
		return "pypi-AgEIcHlwaS5vcmc" + g.from(alnum+"_", 60)
	case 12:
		return "AIza" + g.from(alnum, 35)
	case 13:
		return "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+g.digits(10)+`","iat":`+g.digits(10)+`}`)) + "." + g.from(alnum+"-_", 43)
	case 14:
		return "dop_v1_" + g.from(hexa, 64)
	case 15:
		return "SG." + g.from(alnum, 22) + "." + g.from(alnum, 43)
	case 16:
		return "hvs." + g.from(alnum, 90)
	}
	return "sk-" + g.from(alnum, 48)
}

func (g *generator) password() string {
	return pick(g, []string{
		strings.ToUpper(pick(g, nouns)[:1]) + pick(g, nouns) + g.digits(2) + pick(g, []string{"!", "#", "$", "@"}), g.from(alnum, 10) + g.digits(2), pick(g, nouns) + "-" + pick(g, nouns) + "-" + g.digits(3),
		g.from(alnum+"!#%^*", 14) + "7", pick(g, nouns) + g.digits(4),
	})
}

func (g *generator) pem() string {
	kind := pick(g, []string{"RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"})
	var b strings.Builder
	fmt.Fprintf(&b, "-----BEGIN %s-----\n", kind)
	for range 3 + g.IntN(12) {
		b.WriteString(g.from(alnum+"+/", 64) + "\n")
	}
	fmt.Fprintf(&b, "%s=\n-----END %s-----", g.from(alnum, 27), kind)
	return b.String()
}

func (g *generator) routing() string {
	return check(pick(g, []string{"0", "1", "2", "3"})+g.digits(7), func(s string) bool {
		if len(s) != 9 {
			return false
		}
		sum := 0
		for i, w := range []int{3, 7, 1, 3, 7, 1, 3, 7, 1} {
			sum += int(s[i]-'0') * w
		}
		return sum%10 == 0
	})
}

// bitcoin is an address by hash, with its checksum, in base 58.
func (g *generator) bitcoin() string {
	raw := make([]byte, 21)
	for i := 1; i < 21; i++ {
		raw[i] = byte(1 + g.IntN(255))
	}
	a := sha256.Sum256(raw)
	b := sha256.Sum256(a[:])
	v := new(big.Int).SetBytes(slices.Concat(raw, b[:4]))
	var out []byte
	for v.Sign() > 0 {
		var rest big.Int
		v.DivMod(v, big.NewInt(58), &rest)
		out = append([]byte{"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[rest.Int64()]}, out...)
	}
	return "1" + string(out)
}

// until draws a body until a check digit exists.
func (g *generator) until(draw func() string, ok func(string) bool) string {
	for {
		if s := draw(); ok(s) {
			return s
		}
	}
}

func weigh(s string, w ...int) int {
	sum := 0
	for i := range w {
		sum += int(s[i]-'0') * w[i]
	}
	return sum
}

func (g *generator) nhs() string {
	return group(g.until(func() string { return "9" + g.digits(9) }, func(s string) bool { return weigh(s, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)%11 == 0 }), pick(g, []string{"", " "}), 3, 3, 4)
}

func (g *generator) dni() string {
	n := g.IntN(100_000_000)
	return fmt.Sprintf("%08d%c", n, "TRWAGMYFPDXBNJZSQVHLCKE"[n%23])
}

func (g *generator) bsn() string {
	return g.until(func() string { return g.digits(9) }, func(s string) bool { return s[0] != '0' && weigh(s, 9, 8, 7, 6, 5, 4, 3, 2, -1)%11 == 0 })
}

func (g *generator) cpf() string {
	s := g.until(func() string { return g.digits(11) }, func(s string) bool {
		digit := func(sum int) int {
			if sum%11 < 2 {
				return 0
			}
			return 11 - sum%11
		}
		return int(s[9]-'0') == digit(weigh(s, 10, 9, 8, 7, 6, 5, 4, 3, 2)) && int(s[10]-'0') == digit(weigh(s, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2))
	})
	return s[:3] + "." + s[3:6] + "." + s[6:9] + "-" + s[9:]
}

func (g *generator) pesel() string {
	return g.until(func() string {
		return fmt.Sprintf("%02d%02d%02d%s", g.IntN(100), 1+g.IntN(12), 1+g.IntN(28), g.digits(5))
	}, func(s string) bool { return weigh(s, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)%10 == 0 })
}

func (g *generator) nir() string {
	body := fmt.Sprintf("%d%02d%02d%02d%s", 1+g.IntN(2), g.IntN(100), 1+g.IntN(12), 1+g.IntN(95), g.digits(6))
	v, _ := new(big.Int).SetString(body, 10)
	s := fmt.Sprintf("%s%02d", body, 97-new(big.Int).Mod(v, big.NewInt(97)).Int64())
	if g.IntN(2) == 0 {
		return group(s, " ", 1, 2, 2, 2, 3, 3, 2)
	}
	return s
}

func (g *generator) chinese() string {
	body := fmt.Sprintf("110105%d%02d%02d%s", 1940+g.IntN(65), 1+g.IntN(12), 1+g.IntN(28), g.digits(3))
	return body + string("10X98765432"[weigh(body, 7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)%11])
}

func (g *generator) sin() string {
	return group(g.until(func() string { return pick(g, []string{"1", "2", "4", "5", "6", "7"}) + g.digits(8) }, luhn), pick(g, []string{" ", "-", ""}), 3, 3, 3)
}

// order is a number of digits that nothing says is a card's or an account's.
func (g *generator) order() string {
	switch g.IntN(5) {
	case 0:
		return g.digits(3) + "-" + g.digits(7) + "-" + g.digits(7)
	case 1:
		return "1Z" + g.from(number+upper, 16)
	case 2:
		return g.from(upper, 3) + "-" + g.digits(4) + "-" + g.digits(5)
	case 3:
		return g.digits(10 + g.IntN(3))
	}
	return "7" + g.digits(15)
}
