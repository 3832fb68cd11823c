package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Hosts are names of machines, written as a list with commas.
type Hosts []string

// Set implements pflag.Value: each name, or address, is without port.
func (h *Hosts) Set(text string) error {
	var out Hosts
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.Trim(name, " "); !isHost(name) {
			return fmt.Errorf("%q is not the name of a host, such as cube.example", name)
		}
		out = append(out, name)
	}
	*h = out
	return nil
}

// String implements pflag.Value.
func (h *Hosts) String() string { return strings.Join(*h, ",") }

// Type implements pflag.Value.
func (h *Hosts) Type() string { return "hosts" }

// isHost reports whether text is a name as DNS has them, or an IP address.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	if len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		odd := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, odd) {
			return false
		}
	}
	return true
}
