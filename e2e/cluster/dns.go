package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serveDNS answers <service>.<namespace>.svc.cluster.local from the API server, and
// from what that said last while it is away, as a cluster's DNS does. The machine's
// own programs, such as Alertmanager, resolve by it too.
func (c *Cluster) serveDNS(ctx context.Context) error {
	conf := "nameserver " + dnsIP + "\nsearch svc.cluster.local cluster.local\n"
	_ = os.Remove("/etc/resolv.conf") // a link on some machines; /etc is an overlay here
	if err := os.WriteFile("/etc/resolv.conf", []byte(conf), 0o644); err != nil {
		return fmt.Errorf("point the resolver at the cluster's DNS: %w", err)
	}
	conn, err := net.ListenPacket("udp", net.JoinHostPort(dnsIP, "53"))
	if err != nil {
		return fmt.Errorf("listen for DNS: %w", err)
	}
	c.stops = append(c.stops, func() { _ = conn.Close() })
	// A cluster that is left up outlives the scenarios' time.
	ctx = context.WithoutCancel(ctx)
	go func() {
		buf := make([]byte, 1500)
		known := map[string]net.IP{}
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			if reply, err := c.resolve(ctx, buf[:n], known); err == nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	return nil
}

func (c *Cluster) resolve(ctx context.Context, query []byte, known map[string]net.IP) ([]byte, error) {
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
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			svc, err := c.Client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
			switch {
			case err == nil:
				known[name] = net.ParseIP(svc.Spec.ClusterIP)
			case apierrors.IsNotFound(err):
				delete(known, name)
			}
			if ip, ok := known[name]; ok {
				m.RCode = dnsmessage.RCodeSuccess
				if ip != nil && q.Type == dnsmessage.TypeA {
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
