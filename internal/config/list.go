package config

import (
	"errors"
	"strings"
)

// List is several words, written with commas in between.
type List []string

// Set implements pflag.Value.
func (l *List) Set(text string) error {
	var out List
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.Trim(word, " "); word == "" || strings.ContainsAny(word, " \t\r\n") {
			return errors.New("it has to be words with commas in between")
		}
		out = append(out, word)
	}
	*l = out
	return nil
}

// String implements pflag.Value.
func (l *List) String() string { return strings.Join(*l, ",") }

// Type implements pflag.Value.
func (l *List) Type() string { return "list" }
