package loader

import (
	"errors"
	"strings"
	"testing"
)

// TestWhyStaticIsForPersons: the reason that they read names no function of a library.
func TestWhyStaticIsForPersons(t *testing.T) {
	t.Parallel()
	got := WhyStatic(errors.New("program fire: load program: operation not permitted (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"))
	if !strings.HasSuffix(got, "program fire: load program: operation not permitted") {
		t.Error(got)
	}
}
