package dialect

import "strings"

// Receipt is what the answer to a request needs of it. Prompts are large and streams are long: nothing else of the request stays in
// memory for it.
func (r *Request) Receipt() *Request {
	n := &Request{Dialect: r.Dialect, Operation: r.Operation, Model: strings.Clone(r.Model), Stream: r.Stream}
	n.wantUsage, n.base64 = r.wantUsage, r.base64
	for _, t := range r.Tools {
		if t.Custom || t.Namespace != "" {
			n.Tools = append(n.Tools, Tool{Name: strings.Clone(t.Name), Namespace: strings.Clone(t.Namespace), Custom: t.Custom})
		}
	}
	if r.Dialect == OpenAIResponses && r.tree != nil {
		t := obj()
		for _, k := range repeated {
			t.set(k, r.tree.get(k))
		}
		n.tree, _ = parse(t.append(nil)) // texts of its own
	}
	return n
}
