package dialect

// ErrorBody is an error as a dialect's servers say it, so that the dialect's clients show the message.
func ErrorBody(d Dialect, status int, message string) []byte {
	return errorTree(d, status, message).append(nil)
}

func errorTree(d Dialect, status int, message string) *value {
	switch d {
	case Anthropic:
		return obj("type", "error", "error", obj("type", errorType(status), "message", message))
	case OllamaChat, OllamaGenerate:
		return obj("error", message)
	case Gemini:
		return obj("error", obj("code", status, "message", message, "status", geminiStatus(status)))
	}
	return obj("error", obj("message", message, "type", errorType(status), "param", nothing, "code", nothing))
}

// errorType is Anthropic's and OpenAI's word for a status. https://docs.anthropic.com/en/api/errors
func errorType(status int) string {
	switch {
	case status == 401:
		return "authentication_error"
	case status == 403:
		return "permission_error"
	case status == 404:
		return "not_found_error"
	case status == 413:
		return "request_too_large"
	case status == 429:
		return "rate_limit_error"
	case status >= 500:
		return "api_error"
	}
	return "invalid_request_error"
}

// geminiStatus is the name of a status in Google's APIs. https://cloud.google.com/apis/design/errors
func geminiStatus(status int) string {
	switch {
	case status == 401:
		return "UNAUTHENTICATED"
	case status == 403:
		return "PERMISSION_DENIED"
	case status == 404:
		return "NOT_FOUND"
	case status == 429:
		return "RESOURCE_EXHAUSTED"
	case status == 503:
		return "UNAVAILABLE"
	case status >= 500:
		return "INTERNAL"
	}
	return "INVALID_ARGUMENT"
}

// ErrorMessage is the message of a server's error, "" if it has none that is understood.
func ErrorMessage(body []byte) string {
	t, err := parse(body)
	if err != nil {
		return ""
	}
	if t.is(array) && len(t.items) > 0 { // Gemini's, at times
		t = t.items[0]
	}
	e := t.get("error")
	for _, s := range []string{e.str(), e.get("message").str(), t.get("message").str(), t.get("detail").str()} {
		if s != "" {
			return s
		}
	}
	return ""
}
