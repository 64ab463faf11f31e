package flagerr

import (
	"errors"
	"io"
	"testing"

	"github.com/spf13/pflag"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--verdit":      `unknown flag: --verdit (did you mean "--verdict"?)`,
		"--verdit=deny": `unknown flag: --verdit (did you mean "--verdict"?)`,
		"--fol":         `unknown flag: --fol (did you mean "--follow"?)`,
		"-follow":       `unknown shorthand flag: 'f' in -follow (did you mean "--follow"?)`,
		"--json":        `unknown flag: --json (did you mean "-o json"?)`,
		"--nothing":     `unknown flag: --nothing`,
		"--secre":       `unknown flag: --secre`, // hidden
		"-x":            `unknown shorthand flag: 'x' in -x`,
		"--verdict":     `flag needs an argument: --verdict`,
	} {
		set := pflag.NewFlagSet("test", pflag.ContinueOnError)
		set.SetOutput(io.Discard)
		set.String("verdict", "", "")
		set.Bool("follow", false, "")
		set.String("secret", "", "")
		set.StringP("output", "o", "", "")
		if err := set.MarkHidden("secret"); err != nil {
			t.Fatal(err)
		}
		err := set.Parse([]string{arg})
		got := Explain(set, err)
		if got.Error() != want {
			t.Errorf("%s: %v, want %s", arg, got, want)
		}
		if !errors.Is(got, err) {
			t.Errorf("%s: the error is another: %v", arg, got)
		}
	}
}
