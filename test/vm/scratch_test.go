//go:build vm

package vm

import "testing"

func TestScratch(t *testing.T) {
	Start(t, Options{Kernel: "newest", Light: true}).Test(compile(t, "./loader", "amd64"), "-test.run=TestTaint")
}
