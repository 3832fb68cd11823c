// Package chart tests what the chart makes of values, which takes Helm and no cluster:
// the whole of it for some, which is kept in testdata, and of each that its Pods are
// closed and its rights are named. `go test -update` writes testdata anew.
package chart
