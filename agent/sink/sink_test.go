package sink

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-7": 0, "9999999": time.Hour, "x": 0, "Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second, "Thu, 01 Jan 2025 00:00:30 GMT": 0} {
		if got := (&Answer{Header: http.Header{"Retry-After": {v}}}).RetryAfter(now); got != want {
			t.Errorf("%q: %s", v, got)
		}
	}
}
