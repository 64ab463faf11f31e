package loader

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootNow returns nanoseconds of CLOCK_BOOTTIME, the clock of the programs: it goes on while the machine sleeps, so
// that a grant for an hour ends after an hour.
func bootNow() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // every kernel since 2.6.39 has it
	}
	return uint64(ts.Nano())
}

// deadline turns a time into the programs' clock; the zero time is never. A time that has passed gives 1, which is
// over, not 0, which would be never.
func deadline(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	left := time.Until(t)
	now := bootNow()
	if left <= 0 && uint64(-left) >= now {
		return 1
	}
	return now + uint64(left)
}

// wallTime turns a time of the programs' clock into wall-clock time.
func wallTime(boot uint64) time.Time {
	return time.Now().Add(-time.Duration(bootNow() - boot))
}
