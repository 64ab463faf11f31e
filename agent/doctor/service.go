package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
)

// patience is how long the daemon, a resolver and systemd have to answer.
const patience = 5 * time.Second

// dns asks each resolver for what every one knows. That none answers is no failure: an agent that only works on files needs none.
func (e *examiner) dns() Finding {
	const why = "names that a policy allows are resolved there, by the host: those sandboxes reach nothing"
	var servers []netip.AddrPort
	from := "agent.yaml"
	if e.o.Config.Resolver.IsValid() {
		servers = []netip.AddrPort{e.o.Config.Resolver}
	} else {
		from = "/etc/resolv.conf"
		conf, err := dns.ClientConfigFromFile(from)
		if err != nil {
			return warning(from+" can't be read: "+err.Error(), why, "write `nameserver ADDRESS` into it, or set resolver in agent.yaml")
		}
		for _, s := range conf.Servers {
			if a, err := netip.ParseAddr(s); err == nil {
				servers = append(servers, netip.AddrPortFrom(a, 53))
			}
		}
	}
	if len(servers) == 0 {
		return warning(from+" names no resolver", why, "write `nameserver ADDRESS` into it, or set resolver in agent.yaml")
	}
	var good, bad []string
	for _, s := range servers {
		if err := e.askRoot(s); err != nil {
			bad = append(bad, fmt.Sprintf("%s (%v)", s.Addr(), err))
		} else {
			good = append(good, s.Addr().String())
		}
	}
	switch {
	case len(good) == 0:
		return warning("no resolver of "+from+" answers: "+strings.Join(bad, ", "), why, "see that the host itself resolves names: getent hosts example.com")
	case len(bad) > 0:
		return warning(strings.Join(good, ", ")+" answers; not "+strings.Join(bad, ", "), "each name waits for those that don't", "take them out of "+from)
	}
	return ok(strings.Join(good, ", ") + " (" + from + ")")
}

// askRoot asks a resolver for the root's name servers, which only one knows that reaches the rest of the world.
func (e *examiner) askRoot(server netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	r := dnsproxy.NewResolver(dnsproxy.ResolverConfig{Servers: []netip.AddrPort{server}, Hosts: "-", Attempts: 1})
	rcode, _, err := r.Query(ctx, ".", dns.TypeNS)
	switch {
	case err != nil:
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() || ctx.Err() != nil {
			return errors.New("no answer")
		}
		return err
	case rcode == dns.RcodeServerFailure:
		return errors.New("it reaches no other")
	}
	return nil
}

const unitName = "nemoclaw-agent.service"

func (e *examiner) unit() Finding {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ok("systemd does not run here: what starts the daemon is yours to choose")
	}
	show, err := e.showUnit()
	if err != nil {
		return warning("systemd does not say: "+err.Error(), "the daemon is its unit "+unitName, "systemctl status "+unitName)
	}
	const notAfterBoot = "the daemon is not there after a reboot, nor are the sandboxes"
	state := show["ActiveState"] + " (" + show["SubState"] + ")"
	switch {
	case show["LoadState"] == "not-found":
		return warning(unitName+" is not installed", notAfterBoot, "sudo make install, then systemctl enable --now nemoclaw-agent")
	case show["LoadState"] != "loaded":
		return failed(unitName+" is "+show["LoadState"], notAfterBoot, "systemctl status "+unitName)
	case show["ActiveState"] == "failed" || show["ActiveState"] == "activating" && show["SubState"] == "auto-restart":
		return failed(unitName+": "+state+", "+show["Result"], "running sandboxes stay enforced, without a network and without answers", "journalctl -u nemoclaw-agent -n 50; then systemctl restart nemoclaw-agent")
	case show["UnitFileState"] != "enabled":
		return warning(unitName+": "+state+", "+show["UnitFileState"], notAfterBoot, "systemctl enable --now nemoclaw-agent")
	case show["ActiveState"] != "active":
		return failed(unitName+": enabled, and "+state, "running sandboxes stay enforced, without a network and without answers", "systemctl start nemoclaw-agent")
	case show["NeedDaemonReload"] == "yes":
		return warning(unitName+": "+state+"; its file is newer than what systemd knows", "a restart would start the old one", "systemctl daemon-reload")
	}
	return ok(unitName + ": enabled, " + state)
}

func (e *examiner) showUnit() (map[string]string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", unitName, "--property=LoadState,UnitFileState,ActiveState,SubState,Result,NeedDaemonReload").Output()
	if err != nil {
		return nil, err
	}
	show := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		show[key] = value
	}
	return show, nil
}

func (e *examiner) daemon() Finding {
	socket := e.o.Config.Socket
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		return warning("it does not run: there is no "+socket, "sandboxes that last are the daemon's; `nemoclaw run` needs none", start(e.o.Config))
	}
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	client := api.Dial(socket)
	defer client.Close()
	info, err := client.Info(ctx)
	var refused *api.Error
	switch {
	case errors.As(err, &refused) && refused.Code == api.Forbidden:
		return warning(refused.Message, "only who may use the daemon can ask it", "sudo nemoclaw doctor")
	case errors.Is(err, api.ErrNotRunning):
		return failed("nobody listens at "+socket, "running sandboxes stay enforced, without a network and without answers", start(e.o.Config))
	case err != nil:
		return failed(err.Error(), "it listens, and does not answer as it should", "journalctl -u nemoclaw-agent -n 50; then systemctl restart nemoclaw-agent")
	}
	found := fmt.Sprintf("version %s, level %s, %d sandbox", info.Version, info.Level, info.Sandboxes)
	if info.Sandboxes != 1 {
		found += "es"
	}
	if info.Version != e.o.Version {
		return warning(found+"; this program is "+e.o.Version, "what one of them knows the other may not", "systemctl restart nemoclaw-agent (sandboxes go on running)")
	}
	for _, r := range info.Forward {
		if r.Error != "" {
			return warning(fmt.Sprintf("%s; the receiver %s of audit records gets none, %d wait: %s", found, r.Name, r.Lag, r.Error), "the log keeps them until it does", "see that it can be reached, and takes what it is sent")
		}
	}
	return ok(found)
}

// start is how the daemon of a configuration is started.
func start(c config.Config) string {
	if _, err := os.Stat("/run/systemd/system"); err == nil && c.RunDir == config.DefaultRun {
		return "systemctl enable --now nemoclaw-agent"
	}
	return "start nemoclaw-agent as root, with the same configuration"
}
