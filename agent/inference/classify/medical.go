package classify

// medicalWord is a drug or a disease. Alone it is a word of a dictionary; with a dose, or next to somebody, it is about a person.
func (s *scanner) medicalWord(w *word, start, end int) {
	switch {
	case w.act&aDrug != 0 && s.around(start, end, nPatient|nDose):
		s.took(Medical, "drug", start, end)
	case w.act&aDrug != 0 && s.dose(end):
		s.took(Medical, "drug", start, end)
	case w.act&aDisease != 0 && s.around(start, end, nPatient|nOwn):
		s.took(Medical, "diagnosis", start, end)
	}
}

// dose is a number with mg, mcg, ml behind it.
func (s *scanner) dose(i int) bool {
	t := s.s
	end := min(len(t), i+12)
	for i < end && !digit(t[i]) {
		if class[t[i]]&bLetter != 0 {
			return false
		}
		i++
	}
	n := i
	for i < end && (digit(t[i]) || t[i] == '.') {
		i++
	}
	if n == i {
		return false
	}
	for i < end && t[i] == ' ' {
		i++
	}
	if i+2 > len(t) {
		return false
	}
	switch asciiLower(t[i : i+2]) {
	case "mg", "mc", "ml", "iu", "µg":
		return true
	}
	return false
}

// icd is a code of the International Classification of Diseases: E11.9, J45.909.
func (s *scanner) icd(start, end int) bool {
	t := s.s
	n := end - start
	if n < 3 || n > 4 || class[t[start]]&bUpper == 0 || !digit(t[start+1]) || !alnum(t[start+2]) || n == 4 && !alnum(t[start+3]) {
		return false
	}
	if n == 4 || t[start] == 'U' && t[start+1] != '0' {
		return false
	}
	if end+1 < len(t) && t[end] == '.' && alnum(t[end+1]) {
		to := end + 1
		for to < len(t) && alnum(t[to]) {
			to++
		}
		if to-end > 5 {
			return false
		}
		end = to
	}
	near := nICD
	if end-start > 3 {
		near |= nPatient | nRecord
	}
	return s.around(start, end, near) && s.took(Medical, "icd-10", start, end)
}
