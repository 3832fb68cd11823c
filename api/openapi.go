package api

import _ "embed"

//go:embed openapi.yaml
var openAPI string

// OpenAPI is the description of the control plane's HTTP API, as YAML. The
// server answers with it at /v1/openapi.yaml.
func OpenAPI() string { return openAPI }
