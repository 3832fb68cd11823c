package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

const maxFileBytes = 1 << 20

type fileValue struct {
	text   string
	origin string // "file <path>:<line>"
}

// readFile finds and reads the configuration file: the one that was asked
// for, which must exist, or the first of the usual ones that does.
func (c *Config) readFile() (map[string]fileValue, error) {
	candidates, required := newPaths(c.env, os.Geteuid()).configFiles, false
	if asked := c.askedFile(); asked != "" {
		candidates, required = []string{asked}, true
	}
	c.file = ""
	for _, path := range candidates {
		data, err := readBounded(path)
		if errors.Is(err, fs.ErrNotExist) && !required {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read configuration file: %w", err)
		}
		c.file = path
		return c.parseFile(path, data)
	}
	return nil, nil
}

func (c *Config) askedFile() string {
	if c.flags.Changed("config") {
		return c.file
	}
	return c.env["AGENTCUBE_CONFIG"]
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return data, err
}

// parseFile takes the keys and plain values out of one YAML mapping. Which
// keys there are and what they may hold is checked by the caller.
func (c *Config) parseFile(path string, data []byte) (map[string]fileValue, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read configuration file %s: %w", filepath.Clean(path), err)
	}
	values := map[string]fileValue{}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return values, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("read configuration file %s: want lines of the form \"key: value\"", path)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		origin := fmt.Sprintf("file %s:%d", path, k.Line)
		switch {
		case values[k.Value].origin != "":
			c.problem("%s: %s: is there twice", origin, k.Value)
		case v.Kind != yaml.ScalarNode:
			c.problem("%s: %s: want one plain value", origin, k.Value)
		case v.Tag == "!!null":
			c.problem("%s: %s: has no value", origin, k.Value)
		default:
			values[k.Value] = fileValue{v.Value, origin}
		}
	}
	return values, nil
}
