// Package archtest holds the source tree to its own rules: which package may
// import which, who may read the environment and end the process, and that every
// package says what it is for. It has nothing but tests.
package archtest
