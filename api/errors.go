package api

import "net/http"

// Code says what kind of error it is, for programs.
type Code string

// The codes and their HTTP statuses.
const (
	Invalid      Code = "invalid"       // 400: the request can't be right
	Forbidden    Code = "forbidden"     // 403: the caller may not
	NotFound     Code = "not_found"     // 404
	Conflict     Code = "conflict"      // 409: the sandbox's state, or an expected revision, is another
	TooLarge     Code = "too_large"     // 413
	NeedsRestart Code = "needs_restart" // 422: the change can't be live, and --restart was not given
	NeedsConfirm Code = "needs_confirm" // 422: it is dangerous, and was not confirmed
	Busy         Code = "busy"          // 429: too many at once
	Internal     Code = "internal"      // 500: the daemon failed; the message says what to do

	// Of exec, as a shell tells them apart.
	CommandNotFound Code = "command_not_found" // 404: there is no such program inside
	CommandRefused  Code = "command_refused"   // 403: it may not, or can't, be executed
)

// Error is an answer that is an error. Message is for people: what was tried, why not, what to do.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Status is the HTTP status of a code.
func (c Code) Status() int {
	switch c {
	case Invalid:
		return http.StatusBadRequest
	case Forbidden, CommandRefused:
		return http.StatusForbidden
	case NotFound, CommandNotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case NeedsRestart, NeedsConfirm:
		return http.StatusUnprocessableEntity
	case Busy:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}
