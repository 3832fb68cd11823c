package gvisor

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

const allControllers = "cpu memory pids"

var smallBox = sandbox.Resources{CPUMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 32 << 20, Processes: 16}

// TestGroupsOnV2: wherever this process lives, the groups of sandboxes have all
// controllers and take processes, and afterwards all is as it was.
func TestGroupsOnV2(t *testing.T) {
	for _, tt := range []struct {
		name string
		// The machine: where the process 10 is, and what else is there.
		own       string
		container bool
		groups    []string
		delegated string
		on        map[string]string // controllers for the groups below

		base  string // of the groups of sandboxes
		moved string // where the process is while they are there
		stays bool   // the controllers stay on
	}{
		{name: "machine", own: "user.slice", groups: []string{"user.slice"}, on: map[string]string{"": allControllers}},
		{name: "machine where nobody turned them on", own: ""},
		{name: "container", own: "", container: true, moved: leafGroup},
		{name: "container that has them on", own: "init", container: true, groups: []string{"init"}, on: map[string]string{"": allControllers}},
		{name: "service", own: "system.slice/a.service", groups: []string{"system.slice", "system.slice/a.service"},
			on: map[string]string{"": allControllers, "system.slice": allControllers}, delegated: "system.slice/a.service",
			base: "system.slice/a.service", moved: "system.slice/a.service/" + leafGroup},
		{name: "service with a group of its own for its process", own: "system.slice/a.service/main",
			groups: []string{"system.slice", "system.slice/a.service", "system.slice/a.service/main"},
			on:     map[string]string{"": allControllers, "system.slice": allControllers}, delegated: "system.slice/a.service",
			base: "system.slice/a.service", stays: true},
		{name: "service that was not left its group", own: "system.slice/a.service", groups: []string{"system.slice", "system.slice/a.service"},
			on: map[string]string{"": allControllers, "system.slice": allControllers}},
		{name: "terminal below a user's services", own: "user/app/terminal", groups: []string{"user", "user/app", "user/app/terminal"},
			on: map[string]string{"": allControllers}, delegated: "user"},
		{name: "group that cannot be seen from here", own: "../other", on: map[string]string{"": allControllers}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := playKernel(t, allControllers, tt.container)
			for _, g := range tt.groups {
				if err := k.mkdir(filepath.Join(k.root, g)); err != nil {
					t.Fatal(err)
				}
			}
			for _, g := range append([]string{""}, tt.groups...) {
				for _, c := range strings.Fields(tt.on[g]) {
					if err := k.control(g, true, c); err != nil {
						t.Fatal(err)
					}
				}
			}
			home := tt.own
			if strings.HasPrefix(home, "..") {
				home = ""
			}
			k.marks[tt.delegated] = tt.delegated != ""
			k.set(home, "cgroup.procs", "10\n11")
			before := pictureOf(t, k)

			g := findCgroups(k.host("/"+tt.own), "agentcube-1", 1<<30)
			if err := g.open(); err != nil {
				t.Fatal(err)
			}
			if len(g.missing) > 0 {
				t.Fatalf("missing %v", g.missing)
			}
			if got := k.get(filepath.Join(tt.base, "agentcube-1"), "memory.max"); got != "1073741824" {
				t.Errorf("all sandboxes may have %s bytes", got)
			}
			lives := tt.moved
			if lives == "" {
				lives = home
			}
			if got := k.get(lives, "cgroup.procs"); got != "10\n11" {
				t.Errorf("in %s are the processes %q", lives, got)
			}
			useGroup(t, k, g, filepath.Join(tt.base, "agentcube-1", "box"), lives)
			g.removeParent()
			if tt.stays {
				before[tt.base] += "memory cpu pids"
			}
			if diff := cmp.Diff(before, pictureOf(t, k)); diff != "" {
				t.Errorf("afterwards (-before +after)\n%s", diff)
			}
		})
	}
}

// useGroup makes the group of a sandbox, and removes it.
func useGroup(t *testing.T, k *playedKernel, g *cgroups, path, home string) {
	t.Helper()
	if err := g.create("box", smallBox); err != nil {
		t.Fatal(err)
	}
	if err := g.limitCPU("box", smallBox, false); err != nil {
		t.Error(err)
	}
	if got := k.get(path, "cpu.max"); got != "max 100000" {
		t.Errorf("while it starts cpu.max is %q", got)
	}
	if err := g.limitCPU("box", smallBox, true); err != nil {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"memory.max": "100663296", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "1152",
		// The kernel ends one process then, as on v1, and not all of them.
		"memory.oom.group": "0",
	} {
		if got := k.get(path, file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	k.set(home, "cgroup.procs", k.get(home, "cgroup.procs")+"\n77\n78")
	if err := g.join("box", []int{77, 78, 79}); err != nil { // 79 has ended
		t.Error(err)
	}
	if diff := cmp.Diff([]int{77, 78}, g.members("box")); diff != "" {
		t.Errorf("members (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"box"}, g.ids()); diff != "" {
		t.Errorf("groups (-want +got)\n%s", diff)
	}
	k.set(path, "memory.events", "low 0\noom 3\noom_kill 2")
	k.set(path, "pids.events", "max 4")
	if g.oomKills("box") != 2 || g.forksRefused("box") != 4 {
		t.Errorf("counted %d and %d", g.oomKills("box"), g.forksRefused("box"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.remove(ctx, "box"); err == nil {
		t.Error("a group with processes was removed")
	}
	k.set(path, "cgroup.procs", "")
	if err := g.remove(t.Context(), "box"); err != nil {
		t.Error(err)
	}
}

// pictureOf is who is where, and which controllers are on.
func pictureOf(t *testing.T, k *playedKernel) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, g := range k.groups() {
		all[g] = strings.ReplaceAll(k.get(g, "cgroup.procs"), "\n", " ") + ": " + k.get(g, "cgroup.subtree_control")
	}
	return all
}

// TestGroupsMissing: what cannot be had is said, and no reason not to start.
// Before, any refusal of the kernel was the end of it.
func TestGroupsMissing(t *testing.T) {
	for _, tt := range []struct {
		name, available, processes string
		prepare                    func(k *playedKernel)
		want                       map[string]string // what is said of each that is missing
	}{
		{name: "controller not there", available: "cpu pids", processes: "10",
			want: map[string]string{"memory": "not available"}},
		{name: "process that cannot be moved", available: allControllers, processes: "10\n11",
			prepare: func(k *playedKernel) { k.stay["11"] = true },
			want:    map[string]string{"memory": "process 11", "cpu": "process 11", "pids": "process 11"}},
		{name: "process of another namespace", available: allControllers, processes: "0\n10",
			want: map[string]string{"memory": "cannot be seen", "cpu": "cannot be seen", "pids": "cannot be seen"}},
		{name: "nothing can be turned on", available: allControllers, processes: "10",
			prepare: func(k *playedKernel) { k.sealed = true },
			want:    map[string]string{"memory": "turn it on", "cpu": "turn it on", "pids": "turn it on"}},
		{name: "one is on for threads", available: allControllers, processes: "10",
			prepare: func(k *playedKernel) { k.set("", "cgroup.subtree_control", "cpu") },
			want:    map[string]string{"memory": "process 10", "cpu": "process 10", "pids": "process 10"}},
		{name: "nothing there", available: "", processes: "10",
			want: map[string]string{"memory": "not available", "cpu": "not available", "pids": "not available"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := playKernel(t, tt.available, true)
			k.set("", "cgroup.procs", tt.processes)
			if tt.prepare != nil {
				tt.prepare(k)
			}
			g := findCgroups(k.host("/"), "agentcube-1", 1<<30)
			if err := g.open(); err != nil {
				t.Fatal(err)
			}
			if len(g.missing) != len(tt.want) {
				t.Errorf("missing %v", g.missing)
			}
			for c, reason := range tt.want {
				if !strings.Contains(g.missing[c], reason) || !strings.Contains(g.missing[c], c) || strings.Contains(g.missing[c], "\n") {
					t.Errorf("%s: %q, want %q", c, g.missing[c], reason)
				}
			}
			if err := g.create("box", smallBox); err != nil {
				t.Fatal(err)
			}
			if got := len(g.dirs("box")); got != min(1, len(controllers)-len(tt.want)) {
				t.Errorf("the sandbox has %d groups", got)
			}
			if err := g.join("box", []int{10}); err != nil {
				t.Error(err)
			}
			k.set("", "cgroup.procs", tt.processes) // as far as the sandbox is concerned, it has ended
			for _, dir := range g.dirs("box") {
				k.set(k.under(dir), "cgroup.procs", "")
			}
			if err := g.remove(t.Context(), "box"); err != nil {
				t.Error(err)
			}
			g.removeParent()
			if left := childGroups(k.root); len(left) > 0 && len(tt.want) == len(controllers) {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestGroupsStay: sandboxes that an earlier process left in one place are found
// there, though this process could have another; and what somebody else has come
// to need is not taken away.
func TestGroupsStay(t *testing.T) {
	k := playKernel(t, allControllers, true)
	k.set("", "cgroup.procs", "10")
	first := findCgroups(k.host("/"), "agentcube-1", 0)
	if err := first.open(); err != nil {
		t.Fatal(err)
	}
	if err := first.create("kept", smallBox); err != nil {
		t.Fatal(err)
	}
	first.removeParent() // which is not empty
	service := filepath.Join(k.root, "a.service")
	if err := k.mkdir(service); err != nil {
		t.Fatal(err)
	}
	k.marks["a.service"] = true
	second := findCgroups(k.host("/a.service"), "agentcube-1", 0)
	if err := second.open(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kept"}, second.ids()); diff != "" {
		t.Errorf("found (-want +got)\n%s", diff)
	}
	if err := second.remove(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	second.removeParent()
	first.removeParent()
	if k.get("", "cgroup.subtree_control") == "" || k.get(leafGroup, "cgroup.procs") != "10" {
		t.Errorf("controllers were taken from the group of another: %v", pictureOf(t, k))
	}
	third := findCgroups(k.host("/a.service"), "agentcube-1", 0)
	if got := third.roots["memory"]; got != service {
		t.Errorf("with nothing left, sandboxes go to %s, want %s", got, service)
	}
}
