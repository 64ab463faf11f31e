package corpus

// Score counts what was found against what is there.
type Score struct {
	Found, Missed int // spans that are labelled
	Right, Wrong  int // finds, by whether they touch such a span
}

// Precision is the share of finds that are right.
func (s Score) Precision() float64 { return ratio(s.Right, s.Wrong) }

// Recall is the share of labelled spans that were found.
func (s Score) Recall() float64 { return ratio(s.Found, s.Missed) }

// F1 is the harmonic mean of both.
func (s Score) F1() float64 {
	p, r := s.Precision(), s.Recall()
	if p+r == 0 {
		return 0
	}
	return 2 * p * r / (p + r)
}

func ratio(yes, no int) float64 {
	if yes+no == 0 {
		return 1
	}
	return float64(yes) / float64(yes+no)
}

// Add counts one text: the labelled spans of a label, the finds of that label, and the spans of other labels that such a find may touch
// without being wrong (a place in an address).
func (s *Score) Add(want, got, neutral []Span) {
	for _, w := range want {
		if touches(got, w) {
			s.Found++
		} else {
			s.Missed++
		}
	}
	for _, f := range got {
		switch {
		case touches(want, f):
			s.Right++
		case !touches(neutral, f):
			s.Wrong++
		}
	}
}

func touches(spans []Span, s Span) bool {
	for _, x := range spans {
		if x.Start < s.End && s.Start < x.End {
			return true
		}
	}
	return false
}

// LabelOf is the corpus's label for a kind of the classifier's; "" for one that the corpus doesn't have.
func LabelOf(kind string) string {
	switch kind {
	case "card", "iban", "e-mail", "phone", "person", "address", "birth-date", "ip", "mac", "marking":
		return kind
	case "first-name":
		return "person"
	case "us-ssn":
		return "ssn"
	case "bank-account", "routing", "sort-code", "swift":
		return "bank"
	case "crypto-address", "crypto-key", "seed-phrase":
		return "crypto"
	case "medical-record", "health-insurance", "drug", "diagnosis", "icd-10":
		return "medical"
	case "passport", "driving-licence", "uk-nino", "es-dni", "es-nie", "fi-hetu", "it-cf", "mx-curp", "in-pan", "sg-nric", "us-itin", "us-ein", "uk-nhs", "uk-utr",
		"de-tax", "fr-nir", "pl-pesel", "nl-bsn", "be-nn", "se-pn", "dk-cpr", "no-fnr", "ch-ahv", "in-aadhaar", "br-cpf", "br-cnpj", "cn-id", "jp-mynumber", "kr-rrn",
		"au-tfn", "au-medicare", "ca-sin", "tr-kimlik", "ro-cnp", "za-id", "pt-nif":
		return "id"
	}
	return "credential"
}
