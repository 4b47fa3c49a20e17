package birth

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
)

// netlink messages (include/uapi/linux/netlink.h, rtnetlink.h, netfilter/nfnetlink.h).
const (
	netlinkRoute     = 0
	netlinkNetfilter = 12

	newLink    = 16
	deleteLink = 17
	setLink    = 19
	newAddress = 20
	newRoute   = 24

	headerSize    = 16
	maxNetMessage = 4096 // messages of a batch that are looked at
)

// network is what was asked of rtnetlink.
type network struct {
	interfaces []string
	addresses  []string
	routes     []string
}

// parseNetlink reads the messages of one send to rtnetlink, as far as they are there.
func parseNetlink(b []byte) (n network) {
	for range maxNetMessage {
		if len(b) < headerSize {
			break
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < headerSize {
			break
		}
		n.route(binary.NativeEndian.Uint16(b[4:]), b[headerSize:min(size, len(b))])
		next := (size + 3) &^ 3
		if next >= len(b) {
			break
		}
		b = b[next:]
	}
	return n
}

func (n *network) route(kind uint16, body []byte) {
	switch kind {
	case newLink, setLink:
		const info, name = 16, 3 // IFLA_IFNAME
		if s := attribute(body, info, name); s != nil {
			s, _, _ := bytes.Cut(s, []byte{0})
			n.interfaces = append(n.interfaces, printable(s))
		}
	case newAddress:
		const info, address, local = 8, 1, 2
		ip := attribute(body, info, local)
		if ip == nil {
			ip = attribute(body, info, address)
		}
		if a, ok := netip.AddrFromSlice(ip); ok && len(body) > 1 {
			n.addresses = append(n.addresses, a.String()+"/"+strconv.Itoa(int(body[1])))
		}
	case newRoute:
		const info, destination, gateway = 12, 1, 5
		to := "default"
		if a, ok := netip.AddrFromSlice(attribute(body, info, destination)); ok && len(body) > 1 {
			to = a.String() + "/" + strconv.Itoa(int(body[1]))
		}
		if a, ok := netip.AddrFromSlice(attribute(body, info, gateway)); ok {
			to += " via " + a.String()
		}
		n.routes = append(n.routes, to)
	}
}

// attribute finds one behind the family's own header of info bytes.
func attribute(body []byte, info int, kind uint16) []byte {
	if len(body) < info {
		return nil
	}
	for body = body[info:]; len(body) >= 4; {
		size := int(binary.NativeEndian.Uint16(body))
		if size < 4 || size > len(body) {
			return nil
		}
		if binary.NativeEndian.Uint16(body[2:])&0x3fff == kind {
			return body[4:size]
		}
		next := (size + 3) &^ 3
		if next >= len(body) {
			return nil
		}
		body = body[next:]
	}
	return nil
}

// printable keeps what a certificate may show of a name that somebody chose.
func printable(b []byte) string {
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, b))
}
