package classify

import (
	"slices"
	"strings"
)

// kinds are all that is recognised without rules.
var kinds = func() []string {
	k := strings.Fields(`card iban bank-account routing sort-code swift crypto-address crypto-key seed-phrase e-mail phone address person first-name birth-date
		passport driving-licence ip mac medical-record health-insurance drug diagnosis icd-10 marking private-key password secret url-password jwt
		aws-key google-key uk-nino es-dni es-nie fi-hetu it-cf mx-curp in-pan sg-nric`)
	for _, f := range formats {
		k = append(k, f.kind)
	}
	for _, of := range idsOf {
		for _, x := range of.ids {
			k = append(k, x.kind)
		}
	}
	slices.Sort(k)
	return slices.Compact(k)
}()

// Kinds are the kinds of matches that are recognised without rules, in order.
func Kinds() []string { return slices.Clone(kinds) }

func known(kind string) bool {
	_, ok := slices.BinarySearch(kinds, kind)
	return ok
}
