package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

func newGPUs() *cobra.Command {
	return showing(&cobra.Command{
		Use:   "gpus",
		Short: "List the host's GPUs, what they do and who uses them",
		Long: `gpus shows every NVIDIA GPU of the host as its driver sees it: health, load, memory, power, temperature, the instances that
it is parted into (MIG), and each process on it with the sandbox that it is in. A policy names a GPU by its number or UUID:
devices.gpus. A figure that a GPU does not know is shown as "-". That there is no GPU, no driver, or nothing that asks it is
no error.

Exit status: 0 shown, 1 the driver can't be asked, or the daemon can't, 2 wrong usage.`,
		Example: "  nemoclaw gpus\n  nemoclaw gpus -o json | jq '.gpus[].processes[] | select(.sandbox)'",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (api.GPUs, error) {
		return d.GPUs(cmd.Context())
	}, func(cmd *cobra.Command, g api.GPUs) error {
		switch {
		case g.State == api.GPUsBroken:
			return fmt.Errorf("the GPUs can't be looked at: %s; nemoclaw doctor --gpu looks closer", g.Reason)
		case g.State == api.GPUsAbsent:
			fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: no GPUs: %s; nemoclaw doctor --gpu looks closer\n", text.Escape(g.Reason))
			return nil
		}
		return showGPUs(cmd.OutOrStdout(), g)
	})
}

func showGPUs(out io.Writer, g api.GPUs) error {
	fmt.Fprintf(out, "driver %s, CUDA %s\n", text.Escape(g.Driver), text.Escape(g.CUDA))
	t := newTable(out, "GPU", "NAME", "HEALTH", "BUSY", "MEMORY", "POWER", "TEMP", "UUID")
	for _, d := range g.GPUs {
		t.row(d.Index, d.Name, d.Health, percent(d.Busy), gpuMemory(d.Memory), watts(d.Power, d.PowerLimit), celsius(d.Temperature), d.UUID)
		for _, in := range d.Instances {
			t.row("", fmt.Sprintf("  instance %d/%d", in.GPUInstance, in.ComputeInstance), "", "", gpuMemory(in.Memory), "", "", in.UUID)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, d := range g.GPUs {
		for _, problem := range d.Problems {
			fmt.Fprintf(out, "GPU %d: %s\n", d.Index, text.Escape(problem))
		}
		if e := d.ECC; e != nil && e.Corrected > 0 {
			fmt.Fprintf(out, "GPU %d: %s of its memory, all corrected\n", d.Index, count(int(e.Corrected), "error", "errors"))
		}
		for _, x := range d.XIDs {
			kind := fmt.Sprintf("XID %d", x.Code)
			if x.Code < 0 {
				kind = "another XID"
			}
			fmt.Fprintf(out, "GPU %d: the driver reported %s %s\n", d.Index, kind, count(int(x.Times), "time", "times"))
		}
	}
	return showGPUProcesses(out, g)
}

func showGPUProcesses(out io.Writer, g api.GPUs) error {
	t := newTable(out, "PID", "GPU", "SANDBOX", "KIND", "BUSY", "MEMORY")
	found := false
	for _, d := range g.GPUs {
		for _, p := range d.Processes {
			on, kind, box := fmt.Sprint(d.Index), "compute", "-"
			for _, in := range d.Instances {
				if in.UUID == p.Instance {
					on = fmt.Sprintf("%d (%d/%d)", d.Index, in.GPUInstance, in.ComputeInstance)
				}
			}
			if p.Graphics {
				kind = "graphics"
			}
			if p.Sandbox != "" {
				box = p.Sandbox
			}
			t.row(p.PID, on, box, kind, percent(p.Busy), sizeOrNot(p.Memory))
			found = true
		}
	}
	if !found {
		return nil
	}
	fmt.Fprintln(out)
	return t.flush()
}

func percent(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprintf("%d%%", *n)
}

func sizeOrNot(n *int64) string {
	if n == nil {
		return "-"
	}
	return size(*n)
}

func gpuMemory(m api.GPUMemory) string {
	if m.Total == 0 {
		return "-"
	}
	s := size(m.Used) + " of " + size(m.Total)
	if m.Unified {
		s += ", the host's"
	}
	return s
}

func watts(now, limit *int64) string {
	var parts []string
	for _, mw := range []*int64{now, limit} {
		if mw != nil {
			parts = append(parts, fmt.Sprintf("%.0f W", float64(*mw)/1000))
		}
	}
	if now == nil || len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " of ")
}

func celsius(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprintf("%d °C", *n)
}
