// Package address reads the addresses of Redis and Valkey servers.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Forms are the addresses that there are, for people.
const Forms = "redis://[user@]host[:port][/database], redis+cluster://[user@]host[:port],host[:port],... , " +
	"redis+sentinel://[user@]host[:port],.../name-of-the-master[/database] or redis+unix:///path/of/socket[?database=n]; " +
	"valkey for redis means the same, and rediss or valkeys that it is encrypted by TLS"

// ErrPassword says that an address holds a password, which would be shown to
// whoever sees the settings.
var ErrPassword = errors.New("must hold no password; name a file that does")

const (
	port         = "6379"
	sentinelPort = "26379"
	// maxDatabase is far more than servers have.
	maxDatabase = 1 << 16
)

// Kind is how servers are put together.
type Kind int

// The kinds.
const (
	// Single is one server; that it is part of a cluster is found out.
	Single Kind = iota
	// Cluster is one of several masters that share the keys; Hosts are some of
	// its members.
	Cluster
	// Sentinel is a master that Hosts, which watch over it, know the place of.
	Sentinel
	// Unix is one server at the socket Path.
	Unix
)

// Address is where servers are.
type Address struct {
	Kind Kind
	// Hosts are host:port.
	Hosts []string
	// Path is that of the socket, of Unix alone.
	Path string
	// Master is the name that the sentinels know their master by.
	Master string
	TLS    bool
	// User is "" where the password alone says who it is.
	User string
	// Database is the number of the database; 0 in a cluster.
	Database int
}

// Parse reads one of Forms. The text of its errors quotes nothing of an
// address that may be secret.
func Parse(text string) (Address, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return Address{}, errors.New("is not the address of a server; it has the form " + Forms)
	}
	var a Address
	family, kind, _ := strings.Cut(scheme, "+")
	switch family {
	case "redis", "valkey":
	case "rediss", "valkeys":
		a.TLS = true
	default:
		return Address{}, fmt.Errorf("has the unknown form %.20q; it has the form %s", scheme, Forms)
	}
	var known bool
	if a.Kind, known = map[string]Kind{"": Single, "cluster": Cluster, "sentinel": Sentinel, "unix": Unix}[kind]; !known || strings.HasSuffix(scheme, "+") {
		return Address{}, fmt.Errorf("has the unknown form %.20q; it has the form %s", scheme, Forms)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		if err := a.setUser(authority[:at]); err != nil {
			return Address{}, err
		}
		authority = authority[at+1:]
	}
	if a.Kind == Unix {
		return a, a.setSocket(authority, path, query)
	}
	if query != "" {
		return Address{}, errors.New("has a part after \"?\", which says nothing here")
	}
	if err := a.setHosts(authority); err != nil {
		return Address{}, err
	}
	return a, a.setPath(path)
}

func (a *Address) setUser(text string) (err error) {
	if strings.Contains(text, ":") {
		return ErrPassword
	}
	if a.User, err = url.PathUnescape(text); err != nil || a.User == "" {
		return errors.New("has a user that cannot be read")
	}
	return nil
}

func (a *Address) setSocket(authority, path, query string) error {
	if authority != "" || path == "" {
		return errors.New("names no socket, as redis+unix:///run/redis/redis.sock does")
	}
	if a.TLS {
		return errors.New("is a socket of this machine, which is not encrypted: use redis+unix")
	}
	unescaped, err := url.PathUnescape(path)
	if err != nil {
		return errors.New("has a path that cannot be read")
	}
	a.Path = "/" + unescaped
	if query == "" {
		return nil
	}
	number, ok := strings.CutPrefix(query, "database=")
	if !ok {
		return errors.New("has something other than database=n after \"?\"")
	}
	return a.setDatabase(number)
}

func (a *Address) setHosts(list string) error {
	usual := port
	if a.Kind == Sentinel {
		usual = sentinelPort
	}
	for text := range strings.SplitSeq(list, ",") {
		host, number, err := net.SplitHostPort(text)
		if err != nil { // no port, or nothing sensible
			host, number = text, usual
			if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
				host = strings.TrimSuffix(inner, "]")
			} else if strings.ContainsAny(text, "[]:") {
				host = ""
			}
		}
		if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, " \t\r\n@") {
			return fmt.Errorf("has %.100q where a host and a port belong", text)
		}
		a.Hosts = append(a.Hosts, net.JoinHostPort(host, number))
	}
	if a.Kind == Single && len(a.Hosts) > 1 {
		return errors.New("names several hosts: use redis+cluster or redis+sentinel")
	}
	return nil
}

func (a *Address) setPath(path string) error {
	path = strings.TrimSuffix(path, "/")
	switch a.Kind {
	case Cluster:
		if path != "" {
			return errors.New("names a database, of which a cluster has one")
		}
		return nil
	case Sentinel:
		name, number, numbered := strings.Cut(path, "/")
		var err error
		if a.Master, err = url.PathUnescape(name); err != nil || a.Master == "" {
			return errors.New("does not say by which name the sentinels know the master")
		}
		if !numbered {
			return nil
		}
		path = number
	}
	if path == "" {
		return nil
	}
	return a.setDatabase(path)
}

func (a *Address) setDatabase(text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxDatabase {
		return fmt.Errorf("has %.20q where the number of a database belongs", text)
	}
	a.Database = int(n)
	return nil
}

// String is the address without its user, for logs and errors.
func (a Address) String() string {
	if a.Kind == Unix {
		return a.Path
	}
	return strings.Join(a.Hosts, ",")
}
