//go:build vm

package vm

import (
	"regexp"
	"strconv"
	"testing"
)

// scraper prints what the daemon shows to Prometheus.
const scraper = `python3 -c "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"`

// numbers are the series of a metric in what was scraped, by their one label.
func numbers(t *testing.T, text, metric string) map[string]float64 {
	t.Helper()
	list := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^`+metric+`\{[a-z]+="([^"]*)"\} (.*)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		list[m[1]] = n
	}
	return list
}

// metrics: the maps and programs of level full are in the metrics, and what is shown of them is what happens: maps fill with a sandbox and
// are empty of it afterwards, programs run when something is tried, and are measured only while the administrator has the kernel do so.
func metrics(t *testing.T, m *Machine) {
	m.Must(`mkdir -p /srv/work /etc/nemoclaw && touch /etc/resolv.conf /srv/hosts && echo text >/srv/work/file && chown -R 4242:4242 /srv/work && echo "metrics: 9464" >/etc/nemoclaw/agent.yaml
		cat >/srv/box.yaml <<'EOF'
enforcement: full
filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
  deny: [{path: /workspace/none, permissions: [read, write]}]
process:
  allow: [{command: sh}, {command: cat}]
EOF`)
	defer m.Must("rm -r /etc/nemoclaw; echo 0 >/proc/sys/kernel/bpf_stats_enabled")
	m.Must(agentCommand)
	scrape := func() string { return m.Must(scraper) }
	entries := func(text string) map[string]float64 { return numbers(t, text, "nemoclaw_bpf_map_entries") }

	empty := entries(scrape())
	m.Must("nemoclaw create box --policy /srv/box.yaml --workspace /srv/work")
	before := scrape()
	held, room := entries(before), numbers(t, before, "nemoclaw_bpf_map_capacity")
	for name, n := range held {
		if n > room[name] || room[name] == 0 {
			t.Errorf("the map %s has %v entries in a room of %v", name, n, room[name])
		}
	}
	for _, name := range []string{"nodes", "names"} {
		if held[name] <= empty[name] {
			t.Errorf("the map %s had %v entries without a sandbox, and has %v with one", name, empty[name], held[name])
		}
	}

	m.Must("echo 1 >/proc/sys/kernel/bpf_stats_enabled")
	m.Must("nemoclaw box exec -- sh -c 'cat file'")
	was := scrape()
	m.Must("nemoclaw box exec -- sh -c 'for i in 1 2 3 4 5 6 7 8 9; do cat file; done'")
	is := scrape()
	for _, metric := range []string{"nemoclaw_bpf_program_runs_total", "nemoclaw_bpf_program_run_seconds_total"} {
		first, then := numbers(t, was, metric), numbers(t, is, metric)
		for _, name := range []string{"file_open", "bprm_check_security", "exec"} {
			if then[name] <= first[name] {
				t.Errorf("%s of %s was %v and is %v", metric, name, first[name], then[name])
			}
		}
		if metric == "nemoclaw_bpf_program_runs_total" && then["file_open"] < first["file_open"]+9 {
			t.Errorf("nine files were opened, and file_open ran %v times, then %v", first["file_open"], then["file_open"])
		}
		t.Logf("%s of %d programs; of file_open %v, then %v", metric, len(then), first["file_open"], then["file_open"])
	}
	m.Must("echo 0 >/proc/sys/kernel/bpf_stats_enabled")
	stopped := numbers(t, scrape(), "nemoclaw_bpf_program_runs_total")["file_open"]
	m.Must("nemoclaw box exec -- sh -c 'cat file'")
	if n := numbers(t, scrape(), "nemoclaw_bpf_program_runs_total")["file_open"]; n != stopped || n == 0 {
		t.Errorf("nothing is measured any more, and file_open ran %v times, then %v", stopped, n)
	}

	m.Must("nemoclaw destroy --yes box")
	for name, n := range entries(scrape()) {
		if n > empty[name] {
			t.Errorf("the map %s has %v entries after the sandbox, and had %v before", name, n, empty[name])
		}
	}
	m.Must("kill $(cat /srv/pid) && tail --pid $(cat /srv/pid) -f /dev/null")
}
