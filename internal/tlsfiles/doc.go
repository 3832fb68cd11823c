// Package tlsfiles makes TLS configurations, for servers and clients, from files that
// may be exchanged while they are in use.
//
// [Files.Server] and [Files.Client] are configurations of TLS 1.3. With each handshake,
// once a second at most, the files are read again; what is new is used from then on as
// a whole, if it fits together, and else what there was before. So it does not matter
// how they are exchanged: written in place, renamed, or by the links that Kubernetes
// swaps.
//
// Who is at the other end is checked by a [Peer]: a name of the DNS or a SPIFFE ID, in
// a certificate of one of the authorities. That is done in each connection, as none
// resumes another.
package tlsfiles
