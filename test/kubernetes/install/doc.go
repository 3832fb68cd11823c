// Package install installs the chart on a node, with images that were built here, and
// uses what is installed as its users do: with the Python SDK and the Go client, as
// service accounts.
package install
