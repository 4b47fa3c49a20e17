package cluster

import (
	"context"
	"fmt"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serveDNS answers <service>.<namespace>.svc.cluster.local from the API server,
// as a cluster's DNS would.
func (c *Cluster) serveDNS(ctx context.Context) error {
	conn, err := net.ListenPacket("udp", net.JoinHostPort(dnsIP, "53"))
	if err != nil {
		return fmt.Errorf("listen for DNS: %w", err)
	}
	c.stops = append(c.stops, func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			if reply, err := c.resolve(ctx, buf[:n]); err == nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	return nil
}

func (c *Cluster) resolve(ctx context.Context, query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	m.RCode = dnsmessage.RCodeNameError
	if len(m.Questions) == 1 {
		q := m.Questions[0]
		name, ok := strings.CutSuffix(strings.TrimSuffix(q.Name.String(), "."), ".svc.cluster.local")
		if service, namespace, two := strings.Cut(name, "."); ok && two {
			svc, err := c.Client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
			if err == nil {
				m.RCode = dnsmessage.RCodeSuccess
				if ip := net.ParseIP(svc.Spec.ClusterIP); ip != nil && q.Type == dnsmessage.TypeA {
					m.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5},
						Body:   &dnsmessage.AResource{A: [4]byte(ip.To4())},
					}}
				}
			}
		}
	}
	return m.Pack()
}
