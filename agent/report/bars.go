package report

import "fmt"

// A slice is one bar of a bar chart: what it is of, and its parts.
type slice struct {
	name  Text
	parts []uint64
}

// bars draws horizontal bars, stacked by kinds.
func bars(id, title, of string, kinds []Key, list []slice) *Chart {
	if len(list) == 0 {
		return nil
	}
	const rowHeight, nameWidth, sumWidth = 26.0, 330.0, 90.0
	ch := &Chart{ID: id, Title: title, Width: chartWidth, Height: rowHeight*float64(len(list)) + 6}
	if len(kinds) > 1 {
		ch.Keys = kinds
	}
	ch.Table = Table{Title: title, Heads: heads(of)}
	for _, k := range kinds {
		ch.Table.Heads = append(ch.Table.Heads, Head{k.Words, true})
	}
	var most, all uint64
	for _, s := range list {
		sum := uint64(0)
		for _, p := range s.parts {
			sum += p
		}
		most, all = max(most, sum), all+sum
	}
	scale := (chartWidth - nameWidth - sumWidth) / float64(max(most, 1))
	for i, s := range list {
		y, x, sum := rowHeight*float64(i)+3, nameWidth, uint64(0)
		cells := []any{s.name}
		name := ""
		code := false
		for _, p := range s.name {
			name += p.Words
			code = code || p.Foreign
		}
		for j, p := range s.parts {
			cells = append(cells, p)
			if p > 0 {
				w := max(scale*float64(p), 1)
				ch.Bars = append(ch.Bars, Bar{x, y + 3, w, rowHeight - 8, kinds[j].Kind, fmt.Sprintf("%s: %s %s", name, number(p), kinds[j].Words)})
				x += w
				sum += p
			}
		}
		ch.Table.row(cells...)
		ch.Labels = append(ch.Labels, Label{X: nameWidth - 8, Y: y + 16, Anchor: "end", Words: within(name, 44), Code: code},
			Label{X: x + 8, Y: y + 16, Anchor: "start", Words: number(sum)})
	}
	ch.Desc = fmt.Sprintf("%s: %s in all; the longest bar is %s.", title, number(all), number(most))
	return ch
}

// within cuts words that are escaped already.
func within(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most/2-1]) + "..." + string(r[len(r)-most/2+2:])
}
