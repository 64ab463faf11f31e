import ctypes, mmap, os, zlib
def load(path):
    try:
        ctypes.CDLL(path)
        print('loaded', path)
    except OSError:
        print('refused', path)
code = open('/workspace/mine.so', 'rb').read()
fd = os.memfd_create('mine')
os.write(fd, code)
os.link('/workspace/mine.so', '/workspace/linked.so')
for path in 'libz.so.1', '/workspace/lib/ours.so', '/workspace/mine.so', '/workspace/linked.so', '/proc/self/fd/%d' % fd:
    load(path)
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
print('end')
EOF`)
	stdout, stderr, status := m.Run("cd /srv/work && nemoclaw run --policy ../listed.yaml -- python3 load.py | sed s,fd/.*,fd/N,")
	if want := "loaded libz.so.1\\nloaded /workspace/lib/ours.so\\nrefused /workspace/mine.so\\nrefused /workspace/linked.so\\nrefused /proc/self/fd/N\\nend\\n"; status != 0 || stdout != want {
		t.Errorf("status %d\\n%s\\nwant\\n%s\\n%s", status, stdout, want, stderr)
	}
	records := m.Must(`grep '"action":"map"' /var/log/nemoclaw/audit/run.jsonl`)
	for _, want := range []string{`"object":"/workspace/mine.so"`, `"object":"/workspace/linked.so"`, `"object":"memfd:mine"`} {
		if !strings.Contains(records, want) || !strings.Contains(records, `/listed.yaml:7"`) {
			t.Errorf("no record with %s:\\n%s", want, records)
		}
	}
}

// TestAttacks: what''')
sub('test/levels_test.go','''by: "nothing yet", refused: "not supported by this version", policy: process("  map: listed\\n")}''','''by: "needs level full", refused: "full", policy: process("  map: listed\\n")}''')
