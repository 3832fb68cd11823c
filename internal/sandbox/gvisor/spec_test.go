package gvisor

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestOCISpecGolden(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec sandbox.Spec
	}{
		{"default", sandbox.Spec{ID: "s-0b0f3c5e-0000-4000-8000-000000000001", Image: "python"}},
		{"root", sandbox.Spec{ID: "s-1", Image: "python", RunAsRoot: true, Workspace: "/root",
			Env:          map[string]string{"B": "2", "LANG": "de"},
			BootstrapKey: "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
			Resources:    sandbox.Resources{CPUMillis: 250, MemoryBytes: 256 << 20, DiskBytes: 10 << 20, Processes: 10}}},
		{"command", sandbox.Spec{ID: "s-2", Image: "agent", Command: []string{"/server"}, Args: []string{"--port=80"}}},
		{"user", sandbox.Spec{ID: "s-3", Image: "agent", OwnServer: true, Command: []string{"/server"}, WorkingDir: "/srv", User: &sandbox.User{UID: 1000, GID: 5}}},
	} {
		spec, err := withDefaults(tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(ociSpec(bundle{
			frame: frame{
				ImagePath: "/images/python.erofs", ImageEnv: []string{"LANG=C.UTF-8", "odd"}, AgentPath: "/agent/picod.erofs",
				Command: spec.Command, Args: spec.Args, Env: spec.Env, Resources: spec.Resources,
				RunAsRoot: spec.RunAsRoot, Workspace: spec.Workspace, Dir: spec.WorkingDir, User: spec.User,
			},
			hostname: hostname(spec.ID), rootDir: "/bundle/rootfs", netns: "/netns",
		}), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		golden := filepath.Join("testdata", tt.name+".json")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestInvalidSpecs(t *testing.T) {
	ok := sandbox.Spec{ID: "s-1", Image: "x"}
	for name, change := range map[string]func(*sandbox.Spec){
		"empty id":           func(s *sandbox.Spec) { s.ID = "" },
		"id with a slash":    func(s *sandbox.Spec) { s.ID = "../x" },
		"id too long":        func(s *sandbox.Spec) { s.ID = string(make([]byte, 64)) },
		"no image":           func(s *sandbox.Spec) { s.Image = "" },
		"relative workspace": func(s *sandbox.Spec) { s.Workspace = "work" },
		"unclean workspace":  func(s *sandbox.Spec) { s.Workspace = "/a/../b" },
		"tiny memory":        func(s *sandbox.Spec) { s.Resources.MemoryBytes = 1 },
		"negative disk":      func(s *sandbox.Spec) { s.Resources.DiskBytes = -1 },
		"negative cpu":       func(s *sandbox.Spec) { s.Resources.CPUMillis = -1 },
	} {
		s := ok
		change(&s)
		if _, err := withDefaults(s); !errors.Is(err, sandbox.ErrInvalidSpec) {
			t.Errorf("%s: err = %v, want ErrInvalidSpec", name, err)
		}
	}
}
