package sandbox

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"
)

// interpreterOf returns the PT_INTERP of an ELF program, "" where it has none. It reads hostile bytes: a file below a
// tree that a sandbox may write.
func interpreterOf(head []byte) string {
	const headerSize, entrySize = 64, 56
	const phoff, phentsize, phnum = 32, 54, 56 // offsets in the header
	if len(head) < headerSize || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) || elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 ||
		elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return ""
	}
	first := binary.LittleEndian.Uint64(head[phoff:])
	if binary.LittleEndian.Uint16(head[phentsize:]) != entrySize {
		return ""
	}
	for i := range uint64(binary.LittleEndian.Uint16(head[phnum:])) {
		at := first + i*entrySize
		if at < first || at > uint64(len(head))-entrySize {
			return ""
		}
		if elf.ProgType(binary.LittleEndian.Uint32(head[at:])) != elf.PT_INTERP {
			continue
		}
		from, size := binary.LittleEndian.Uint64(head[at+8:]), binary.LittleEndian.Uint64(head[at+32:])
		if from > uint64(len(head)) || size > uint64(len(head))-from {
			return ""
		}
		name, _, _ := strings.Cut(string(head[from:from+size]), "\x00")
		return name
	}
	return ""
}

// shebang returns the interpreter in a script's first line, and its argument.
func shebang(head []byte) (interpreter, argument string) {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	rest, ok := bytes.CutPrefix(line, []byte("#!"))
	if !ok {
		return "", ""
	}
	interpreter, argument, _ = strings.Cut(strings.Trim(string(rest), " \t"), " ")
	return interpreter, strings.TrimSpace(argument)
}

// checkScripts warns about allowed scripts whose interpreter may not run: allowing npm does not allow node.
func (p *programs) checkScripts() error {
	for _, program := range p.list {
		if !program.Script || program.Kind == KindHelper {
			continue
		}
		missing := p.missingInterpreter(program.File)
		switch {
		case missing == "":
		case isLoader(missing):
			p.warnings = append(p.warnings, fmt.Sprintf("the command %s is a script for the dynamic loader (%s), which never runs as a command: let its first line name the program", program.Command, missing))
		default:
			p.warnings = append(p.warnings, fmt.Sprintf("the command %s is a script for %s, which is not allowed, so it can't run: add `command: %s` to process.allow",
				program.Command, missing, path.Base(missing)))
		}
	}
	return nil
}

// missingInterpreter follows a script's interpreters to the one that is not allowed; "" when all are.
func (p *programs) missingInterpreter(script *os.File) string {
	head, err := p.head(int(script.Fd()))
	for range maxShebang {
		if err != nil {
			return ""
		}
		name, argument := shebang(head)
		if name == "" {
			return ""
		}
		if path.Base(name) == "env" {
			name, _, _ = strings.Cut(strings.TrimSpace(strings.TrimPrefix(argument, "-S")), " ")
		}
		if name == "" {
			return ""
		}
		f, err := p.find(name)
		if err != nil {
			return name
		}
		_, known := p.known[f.inode]
		if known {
			head, err = p.head(f.fd)
		}
		f.close()
		if !known {
			return name
		}
		if err != nil {
			return ""
		}
	}
	return ""
}
