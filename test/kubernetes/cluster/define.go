package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// Define gives the API server the definitions of custom resources that are in the
// files *.yaml of a folder, one in each, and returns when it serves them.
func (c *Cluster) Define(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("find definitions in %s: %d files, %w", dir, len(files), err)
	}
	for _, file := range files {
		if err := c.define(ctx, file); err != nil {
			return fmt.Errorf("define %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func (c *Cluster) define(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	definition, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	var d struct {
		Spec struct {
			Group    string
			Names    struct{ Plural string }
			Versions []struct{ Name string }
		}
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		return err
	}
	err = c.call(ctx, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json.RawMessage(definition), nil)
	if err != nil {
		return err
	}
	return c.wait(ctx, d.Spec.Names.Plural, func() (bool, error) {
		for _, v := range d.Spec.Versions {
			if err := c.call(ctx, http.MethodGet, "/apis/"+d.Spec.Group+"/"+v.Name+"/"+d.Spec.Names.Plural, nil, nil); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}
