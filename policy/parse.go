package policy

import (
	"fmt"
	"io"
	"os"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// Parse reads one policy. file is used in messages and rule positions only. The error is an Errors with everything
// that was found wrong, at most 20; there is never a policy beside an error.
func Parse(file string, src []byte) (*Policy, error) {
	p, _, err := parse(file, src)
	return p, err
}

// parse is Parse, with the tree that was read.
func parse(file string, src []byte) (*Policy, *yaml.Node, error) {
	c := &collector{file: file}
	root := document(c, src)
	if root == nil {
		return nil, nil, c.err()
	}
	p := &Policy{File: file}
	newDecoder(c, notSupported).mapping(root, reflect.ValueOf(p).Elem(), "")
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	return p, root, nil
}

// Load reads, parses and compiles the policy at file.
func Load(file string) (*Compiled, error) {
	src, err := readSource(file)
	if err != nil {
		return nil, err
	}
	p, err := Parse(file, src)
	if err != nil {
		return nil, err
	}
	return Compile(p)
}

// readSource reads a policy, and no more of a file that is none than tells so.
func readSource(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("policy: %w; check the path, or write a policy with `nemoclaw init`", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return src, nil
}
