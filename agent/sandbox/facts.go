package sandbox

// LandlockABI returns the kernel's Landlock ABI, or why there is none that a sandbox can use.
func LandlockABI() (int, error) { return landlockABI() }

// Controllers says where the cgroup file systems are that limits are set in: v2's mount point, and those of version 1 by controller.
func Controllers() (v2 string, v1 map[string]string, err error) {
	h, err := hostHierarchies("")
	return h.v2, h.v1, err
}
