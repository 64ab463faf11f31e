package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

func newPublish(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:   "publish [ADDRESS:]PORT INSIDE",
		Short: "Reach a server in it from a port of the host",
		Long: `publish lets connections to a port of the host reach the server that listens on port INSIDE in the sandbox, on loopback.
Without ADDRESS it is the host's 127.0.0.1. It lasts until unpublish, over restarts.

Exit status: 0 published, 1 not, 2 wrong usage.`,
		Example:           "  nemoclaw " + name + " publish 8080 3000\n  nemoclaw " + name + " publish 192.0.2.1:8080 3000",
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		host, err := parseHost(args[0])
		if err != nil {
			return usage(err)
		}
		port, err := parsePort(args[1])
		if err != nil {
			return usage(err)
		}
		p, err := d.Publish(cmd.Context(), name, api.Published{Host: host, Port: port})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s reaches port %d of %s\n", text.Escape(p.Host), p.Port, name)
		return nil
	})
}

func newUnpublish(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:     "unpublish [ADDRESS:]PORT",
		Short:   "Take a published port back",
		Long:    "unpublish ends what publish began, and the connections through it.\n\nExit status: 0 it is taken back, 1 not, 2 wrong usage.",
		Example: "  nemoclaw " + name + " unpublish 8080",
		Args:    usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completed(cmd, func(ctx context.Context, d *api.Client) (words []string, err error) {
				list, err := d.Published(ctx, name)
				for _, p := range list {
					words = append(words, p.Host)
				}
				return words, err
			})
		},
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		host, err := parseHost(args[0])
		if err != nil {
			return usage(err)
		}
		if err := d.Unpublish(cmd.Context(), name, host); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: taken back\n", host)
		return nil
	})
}

// parsePublished reads [ADDRESS:]PORT:INSIDE.
func parsePublished(s string) (api.Published, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return api.Published{}, fmt.Errorf("--publish %q: want [ADDRESS:]PORT:INSIDE, such as 8080:3000", s)
	}
	host, err := parseHost(s[:i])
	if err != nil {
		return api.Published{}, fmt.Errorf("--publish %q: %w", s, err)
	}
	port, err := parsePort(s[i+1:])
	if err != nil {
		return api.Published{}, fmt.Errorf("--publish %q: %w", s, err)
	}
	return api.Published{Host: host, Port: port}, nil
}

// parseHost reads [ADDRESS:]PORT; the address is 127.0.0.1 when it is left out.
func parseHost(s string) (string, error) {
	if !strings.Contains(s, ":") {
		s = "127.0.0.1:" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q: want [ADDRESS:]PORT, such as 8080, 127.0.0.1:8080 or [::1]:8080", s)
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("%q: %s is no address of the host", s, host)
	}
	n, err := parsePort(port)
	if err != nil {
		return "", err
	}
	return netip.AddrPortFrom(a, n).String(), nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q: want a number from 1 to 65535", s)
	}
	return uint16(n), nil
}
