// Package docs holds the tests of our own documentation: the code blocks of
// README.md, docs/ and the SDK's README are executed against a real server of
// the tests' own, and the tables of settings and commands are held to the
// program. Run them with `make test-e2e`.
//
// The language of a block says what happens to it:
//
//   - sh: run by bash. Lines that begin with "$ " are commands, lines that begin
//     with "> " go on with them, and what follows is their output: "..." alone
//     stands for any number of lines, within a line for any text; ids, times and
//     durations may differ. A block without "$ " lines is a script. A command that
//     fails fails the test.
//   - python: run by the Python that has the SDK.
//   - yaml: a template is checked, put into the server's template folder and used
//     for a session; anything else is a configuration file.
//   - any other, such as text and console: nothing.
//
// The blocks of one page run in their order, in a directory of the page's own.
package docs
