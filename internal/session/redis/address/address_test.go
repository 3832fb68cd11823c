package address_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/session/redis/address"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]address.Address{
		"redis://localhost":            {Hosts: []string{"localhost:6379"}},
		"valkey://localhost:7000/3":    {Hosts: []string{"localhost:7000"}, Database: 3},
		"rediss://cube@10.0.0.1/":      {Hosts: []string{"10.0.0.1:6379"}, TLS: true, User: "cube"},
		"valkeys://a%40b@[::1]:6380/0": {Hosts: []string{"[::1]:6380"}, TLS: true, User: "a@b"},
		"redis://[fe80::1]":            {Hosts: []string{"[fe80::1]:6379"}},
		"redis+cluster://a,b:7001,[::2]:7002": {
			Kind: address.Cluster, Hosts: []string{"a:6379", "b:7001", "[::2]:7002"},
		},
		"valkeys+sentinel://u@s1,s2:5000/my%20master/2": {
			Kind: address.Sentinel, Hosts: []string{"s1:26379", "s2:5000"}, Master: "my master", TLS: true, User: "u", Database: 2,
		},
		"redis+sentinel://s1/mymaster":             {Kind: address.Sentinel, Hosts: []string{"s1:26379"}, Master: "mymaster"},
		"redis+unix:///run/redis.sock":             {Kind: address.Unix, Path: "/run/redis.sock"},
		"valkey+unix://u@/run/a%20b?database=4":    {Kind: address.Unix, Path: "/run/a b", User: "u", Database: 4},
		"redis+cluster://redis.cube.svc.local:80/": {Kind: address.Cluster, Hosts: []string{"redis.cube.svc.local:80"}},
	} {
		got, err := address.Parse(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Parse(%q): %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "is not the address",
		"localhost:6379":                 "is not the address",
		"http://localhost":               "unknown form",
		"redis+http://localhost":         "unknown form",
		"redis+://localhost":             "unknown form",
		"redis://":                       "host and a port",
		"redis://:6379":                  "host and a port",
		"redis://host:0":                 "host and a port",
		"redis://host:65536":             "host and a port",
		"redis://host:redis":             "host and a port",
		"redis://a b":                    "host and a port",
		"redis://::1":                    "host and a port",
		"redis://[::1":                   "host and a port",
		"redis://a,b":                    "several hosts",
		"redis+cluster://a,,b":           "host and a port",
		"redis+cluster://a/1":            "database",
		"redis://a/x":                    "database",
		"redis://a/-1":                   "database",
		"redis://a/1/2":                  "database",
		"redis://a/99999999999":          "database",
		"redis://a?skip_verify=true":     "\"?\"",
		"redis+sentinel://a":             "the sentinels",
		"redis+sentinel://a/m/x":         "database",
		"redis+unix://run/redis.sock":    "names no socket",
		"redis+unix:///":                 "names no socket",
		"rediss+unix:///run/redis.sock":  "not encrypted",
		"redis+unix:///run/r.sock?db=1":  "database=n",
		"redis://@host":                  "user",
		"redis://%zz@host":               "user",
		"redis://user:hunter2@host:6379": "no password",
		"redis://:hunter2@host:6379":     "no password",
	} {
		got, err := address.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %+v, %v, want an error that says %q", text, got, err, want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the password: %v", err)
		}
		if want == "no password" != errors.Is(err, address.ErrPassword) {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}
