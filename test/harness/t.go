package harness

// T is what the harness needs of a *testing.T; the benchmark, which is a program, has its own.
type T interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	TempDir() string
}
