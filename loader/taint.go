package loader

import "strconv"

// Taint is how code that is not a program's own may have come into its process: by what was in its environment when it was
// executed. The zero value is no taint.
type Taint uint8

// What is not a variable, as enum taint in bpf/abi.h.
const (
	TaintNone    Taint = iota
	TaintUnknown       // how it was started was not seen
	TaintUnread        // its environment could not be read
	TaintLong          // its environment is too long to be looked through
	taintVariable
)

// variables are those that make the dynamic loader, a library or an interpreter load code from where they say. The order is
// that of bpf/environ.h.
var variables = [...]string{
	"LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GCONV_PATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES",
	"NODE_OPTIONS", "NODE_PATH", "BUN_OPTIONS",
	"PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPLATLIBDIR",
	"RUBYOPT", "RUBYLIB", "PERL5OPT", "PERL5LIB", "PERLLIB", "BASH_ENV", "LUA_INIT", "PHPRC", "PHP_INI_SCAN_DIR",
	"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "DOTNET_STARTUP_HOOKS",
}

// String returns the name of the variable, or a word in parentheses where it is none; "" for no taint.
func (t Taint) String() string {
	switch {
	case t < taintVariable:
		return [...]string{"", "(unknown)", "(unread)", "(long)"}[t]
	case int(t-taintVariable) < len(variables):
		return variables[t-taintVariable]
	}
	return "(" + strconv.Itoa(int(t)) + ")"
}
