package text

// Around escapes a text with what stands before and after it, in at most limit columns of a terminal: the text is cut in its middle,
// what surrounds it at its ends, and what was cut is shown by "...".
func Around(before, s, after string, limit int) (left, middle, right string) {
	middle = Middle(s, limit)
	room := max(limit-Width(middle), 0)
	left, right = ending(before, room), beginning(after, room)
	switch half := room / 2; {
	case Width(left)+Width(right) <= room:
	case Width(left) <= half:
		right = beginning(after, room-Width(left))
	case Width(right) <= room-half:
		left = ending(before, room-Width(right))
	default:
		left, right = ending(before, half), beginning(after, room-half)
	}
	return left, middle, right
}

const dots = "..."

// beginning is as much of the start as there is room for.
func beginning(s string, room int) string {
	if shown, n := start(s, room); n == len(s) {
		return shown
	}
	if room <= len(dots) {
		return dots[:room]
	}
	shown, _ := start(s, room-len(dots))
	return shown + dots
}

// ending is as much of the end as there is room for.
func ending(s string, room int) string {
	if shown, n := end(s, room); n == len(s) {
		return shown
	}
	if room <= len(dots) {
		return dots[:room]
	}
	shown, _ := end(s, room-len(dots))
	return dots + shown
}
