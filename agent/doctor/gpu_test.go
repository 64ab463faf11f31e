package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestNVIDIADevices: only display controllers of NVIDIA's are GPUs that a driver is missing for.
func TestNVIDIADevices(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if found := nvidiaDevices(dir); found != nil {
		t.Errorf("of none: %q", found)
	}
	for name, is := range map[string][2]string{
		"0000:01:00.0": {"0x10de\n", "0x030200\n"}, // a GPU without a display
		"0000:02:00.0": {"0x10de\n", "0x030000\n"}, // one with
		"0000:02:00.1": {"0x10de\n", "0x040300\n"}, // its sound
		"0000:03:00.0": {"0x8086\n", "0x030000\n"}, // somebody else's
	} {
		device := filepath.Join(dir, name)
		if err := os.Mkdir(device, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"vendor": is[0], "class": is[1]} {
			if err := os.WriteFile(filepath.Join(device, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if found := nvidiaDevices(dir); !slices.Equal(found, []string{"0000:01:00.0", "0000:02:00.0"}) {
		t.Errorf("found %q", found)
	}
}
