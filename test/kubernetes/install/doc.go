// Package install installs the chart on a node, with images that were built here, and
// uses what is installed as its users do: with the Python SDK and the Go client, as
// service accounts. The end-to-end tests that need no machine of their own are run
// there as they are; see [e2e.Anywhere].
package install
