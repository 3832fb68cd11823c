// Package session holds the session record and the Store that keeps it.
//
// A session is what a client has between create and delete. Its record is
// written before its sandbox is made, and outlives it: an ended session keeps
// its fate until it is purged. Stores are in the packages below; every store
// passes the suite in storetest.
package session
