// Package kubeauth knows callers by the tokens of their service accounts, and asks
// Kubernetes' own rules what they may do.
//
// A [Cluster] is an auth.Authenticator: a token is shown to the API server in a
// TokenReview, and whoever it is of is called as the API server calls them,
// "system:serviceaccount:<namespace>:<name>". It is an auth.Authorizer too: what a
// caller may do with the sessions of a template is asked in a SubjectAccessReview about
// the subresource "sessions" of the template, so that Roles and RoleBindings say it.
//
// Answers are remembered for a while, so that a request to a running session asks
// nobody, and asked for anew before that while is over, so that none waits. Tokens are
// remembered by their digests. An API server that does not answer lets nobody in whom
// it has not just let in: that is a 503.
package kubeauth
