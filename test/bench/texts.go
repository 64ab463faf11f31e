package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// kinds are texts as prompts have them, with nothing sensitive in them.
var kinds = map[string]func(*rand.Rand) string{
	"prose":   func(r *rand.Rand) string { return sentences[r.IntN(len(sentences))] + " " },
	"Chinese": func(r *rand.Rand) string { return chinese[r.IntN(len(chinese))] },
	"code": func(r *rand.Rand) string {
		a, b := names[r.IntN(len(names))], names[r.IntN(len(names))]
		return fmt.Sprintf(code[r.IntN(len(code))], a, b, r.IntN(64))
	},
	"log": func(r *rand.Rand) string {
		return fmt.Sprintf("2026-11-%02dT%02d:%02d:%02d.%03dZ %s %s-%d job=%08x state=running attempt=%d elapsed=%d.%dms queue=%s\n", 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60),
			r.IntN(1000), []string{"INFO ", "DEBUG", "WARN "}[r.IntN(3)], names[r.IntN(len(names))], r.IntN(16), r.Uint32(), r.IntN(4), r.IntN(100), r.IntN(10), names[r.IntN(len(names))])
	},
}

// text is so much of a kind, the same each time.
func text(kind string, size int) string {
	r := rand.New(rand.NewPCG(uint64(size), 7))
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(kinds[kind](r))
	}
	return strings.ToValidUTF8(b.String()[:size], "")
}

var (
	names     = strings.Fields("worker store index cache shard queue buffer cursor frame layout parser scanner loader table record session window packet router signal")
	sentences = strings.Split(`The scheduler looks at each task in turn and decides whether it may run now or has to wait for another one.
When two of them want the same page at the same time, the one that asked first gets it, and the other is told to come back later.
None of this is visible to the programs themselves, which only notice that some calls take longer than others do.
It isn't a problem in practice: even on a busy machine the delay stays below what a person can see.
Please read the whole document before changing anything in this part of the system, since several of its rules look strange until the reason for them is understood.
Why does the second test fail when the first one is left out?
I tried to make the list shorter, and now the window flickers whenever it is resized.
The function returns too early, so what comes after the loop is never reached; move the check to the end.
A table with forty columns is hard to read on a small screen, and harder to print.
We agreed last week that the old format stays readable for another year, and that nothing new is written in it.
Rewrite the paragraph so that it says the same in half as many words, and keep the tone.
If the file is missing, the program should say so and name the directory in which it looked.
There are three ways to do this, and each of them has a price that shows only later.
Then the lamp went out, and for a while nobody in the room said anything.
Explain how the garbage collector knows which objects are still in use, as if to somebody who has never seen one.
Most readers will skip this chapter, which is why the warning stands at its beginning.`, "\n")
	chinese = []string{"调度程序依次查看每个任务，并决定它现在是否可以运行，或者必须等待另一个任务。\n", "如果两个任务同时需要同一页，先请求的任务会得到它，另一个则被告知稍后再来。\n",
		"请在修改系统的这一部分之前阅读整个文档，因为其中的几条规则看起来很奇怪。\n", "为什么省略第一个测试时第二个测试会失败？\n", "我们上周同意旧格式再保留一年，并且不再用它写入任何新内容。\n"}
	code = []string{`	%[1]s, err := s.%[2]s.List(ctx, r.URL.Query().Get("filter"))
	if err != nil {
		http.Error(w, fmt.Sprintf("list: %%v", err), http.StatusInternalServerError)
		return
	}
`, `	for i := 0; i < len(%[1]s); i++ {
		if %[1]s[i].Deleted || %[1]s[i].Size > maxSize<<%[3]d {
			continue // it was removed while the list was made
		}
		s.metrics.%[2]s.WithLabelValues("list", strconv.Itoa(i)).Inc()
	}
`, `// %[1]sOf finds the %[1]s that a %[2]s belongs to.
func (c *%[2]s) %[1]sOf(id string) (*%[1]s, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.known[id]; ok && found.depth < %[3]d {
		return found, nil
	}
	return nil, errNone
}
`, `const %[1]s = {"%[2]s": %[3]d, tags: ["a", "b"], position: {x: 12.5, y: -3.75}, ok: true};
`}
)
