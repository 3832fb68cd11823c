package template

import (
	"embed"
	"fmt"
)

//go:embed shipped/*.yaml
var shippedFiles embed.FS

// Shipped returns the templates inside the binary.
func Shipped() ([]Template, error) {
	entries, err := shippedFiles.ReadDir("shipped")
	if err != nil {
		return nil, fmt.Errorf("read shipped templates: %w", err)
	}
	var all []Template
	for _, entry := range entries {
		data, err := shippedFiles.ReadFile("shipped/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read shipped templates: %w", err)
		}
		templates, err := Parse("built in: "+entry.Name(), data, "")
		if err != nil {
			return nil, fmt.Errorf("read shipped templates: %w", err)
		}
		all = append(all, templates...)
	}
	return all, nil
}
