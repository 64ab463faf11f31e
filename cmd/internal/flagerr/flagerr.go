// Package flagerr says which flag was meant where a command line has one that there is not. It never guesses for the caller: the
// line stays refused.
package flagerr

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Explain adds the nearest flag of set to an error that says that there is no such flag. Any other error is as it was.
func Explain(set *pflag.FlagSet, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	word := unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); len(letters) > 1 {
		word = letters // -follow is taken for six flags of one letter
	}
	if word == "json" && set.Lookup("output") != nil { // what many other programs call it
		return fmt.Errorf("%w (did you mean \"-o json\"?)", err)
	}
	var names []string
	set.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := policy.Nearest(word, names); near != "" {
		return fmt.Errorf("%w (did you mean \"--%s\"?)", err, near)
	}
	return err
}
