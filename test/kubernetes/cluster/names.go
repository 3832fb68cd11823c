package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// domain is what the names of services end with.
const domain = "cluster.local"

// names tells Pods the addresses of services by their names, as the DNS of a cluster
// does: SERVICE.NAMESPACE.svc.cluster.local, and nothing else.
type names struct {
	conn net.PacketConn
	over chan struct{}
}

// startNames begins to answer on the node's address.
func (c *Cluster) startNames(ctx context.Context) error {
	var listen net.ListenConfig
	conn, err := listen.ListenPacket(ctx, "udp", net.JoinHostPort(NodeIP, "53"))
	if err != nil {
		return fmt.Errorf("serve names: %w", err)
	}
	c.names = &names{conn: conn, over: make(chan struct{})}
	go func() {
		defer close(c.names.over)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, err := c.answerName(buf[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return nil
}

// stop ends the answers.
func (n *names) stop() {
	_ = n.conn.Close()
	<-n.over
}

// answerName answers a query (RFC 1035), of which resolvers make only those with one
// question.
func (c *Cluster) answerName(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := p.Question()
	if err != nil || header.Response {
		return nil, errors.New("no query")
	}
	header.Response, header.Authoritative, header.RecursionAvailable = true, true, false
	address, err := c.addressOf(question.Name.String())
	if err != nil {
		header.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, header)
	if err := errors.Join(b.StartQuestions(), b.Question(question), b.StartAnswers()); err != nil {
		return nil, err
	}
	if address.Is4() && question.Type == dnsmessage.TypeA {
		of := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET}
		if err := b.AResource(of, dnsmessage.AResource{A: address.As4()}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// addressOf asks the API server for the address of a service.
func (c *Cluster) addressOf(name string) (netip.Addr, error) {
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(name), ".svc."+domain+"."), ".")
	if len(labels) != 2 {
		return netip.Addr{}, fmt.Errorf("%s is not the name of a service", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var service struct{ Spec struct{ ClusterIP string } }
	if err := c.call(ctx, http.MethodGet, "/api/v1/namespaces/"+labels[1]+"/services/"+labels[0], nil, &service); err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(service.Spec.ClusterIP)
}
