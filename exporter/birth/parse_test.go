package birth

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestParseCommand(t *testing.T) {
	for _, tc := range []struct {
		file, arguments string
		want            command
	}{
		{"/usr/bin/runc", "runc --root /run/runc create --bundle /b id-1", command{"runc", "create", "id-1"}},
		{"/usr/bin/runc", "runc --root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p abc", command{"runc", "create", "abc"}},
		{"/usr/bin/crun", "/usr/bin/crun --systemd-cgroup create --bundle /b --pid-file /p abc", command{"crun", "create", "abc"}},
		{"/usr/bin/runc", "runc start abc", command{"runc", "start", "abc"}},
		{"/usr/bin/runc", "runc run -d abc", command{"runc", "run", "abc"}},
		{"/usr/bin/runc", "runc init", command{"runc", "init", ""}},
		{"/usr/bin/runc", "runc exec --process /p abc", command{"runc", "exec", ""}},
		{"/usr/bin/runc", "runc delete --force abc", command{"runc", "delete", ""}},
		{"/usr/bin/runc", "runc --version", command{"runc", "", ""}},
		{"/usr/bin/runc", "runc create", command{"runc", "create", ""}},
		{"/bin/containerd-shim-runc-v2", "containerd-shim-runc-v2 -namespace k8s.io -id abc -address /a start", command{"containerd-shim-runc-v2", "shim", "abc"}},
		{"/usr/bin/conmon", "/usr/bin/conmon --api-version 1 -c abc -u abc -r /usr/bin/crun", command{"conmon", "shim", "abc"}},
		{"/bin/containerd-shim-runc-v2", "containerd-shim-runc-v2 -id", command{"containerd-shim-runc-v2", "shim", ""}},
		{"/bin/mount", "mount -t tmpfs tmpfs /x", command{"mount", "", ""}},
		{"", "", command{".", "", ""}},
	} {
		assert.Equal(t, tc.want, parseCommand(tc.file, words(strings.ReplaceAll(tc.arguments, " ", "\x00")+"\x00")), tc.arguments)
	}
}

func TestParseCNI(t *testing.T) {
	got := parseCNI("CNI_COMMAND=ADD\x00CNI_IFNAME=eth0\x00CNI_CONTAINERID=abc\x00CNI_NETNS=/run/netns/x\x00" +
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1\x00CNI_PATH=/opt")
	assert.Equal(t, cni{"ADD", "abc", "/run/netns/x", "eth0", "u-1", "shop", "cart"}, got)
	assert.Equal(t, cni{}, parseCNI(""))
	assert.Equal(t, cni{}, parseCNI("CNI_ARGS=;;=;K8S_POD_UID\x00CNI_COMMAND"))
}

func TestChangesFirewall(t *testing.T) {
	for arguments, want := range map[string]bool{
		"iptables -t nat -A POSTROUTING -j MASQUERADE": true,
		"ip6tables-nft --insert FORWARD":               true,
		"iptables -t nat -S":                           false,
		"iptables -N CNI-1":                            false,
		"grep -A 3 x":                                  false,
	} {
		all := strings.Fields(arguments)
		assert.Equal(t, want, changesFirewall(all[0], all), arguments)
	}
}

// message is one of netlink's: a header, the family's own of info bytes, attributes.
func message(kind uint16, info []byte, attributes ...[]byte) []byte {
	body := info
	for i := 0; i+1 < len(attributes); i += 2 {
		value := attributes[i+1]
		body = binary.NativeEndian.AppendUint16(body, uint16(4+len(value)))
		body = append(append(body, attributes[i]...), value...)
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
	}
	head := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(body)))
	head = binary.NativeEndian.AppendUint16(head, kind)
	return append(append(head, make([]byte, headerSize-6)...), body...)
}

func kindOf(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }

func TestParseNetlink(t *testing.T) {
	link := message(newLink, make([]byte, 16), kindOf(13), []byte{1, 2, 3, 4}, kindOf(3), []byte("eth0\x00"))
	address := message(newAddress, []byte{2, 24, 0, 0, 0, 0, 0, 0}, kindOf(2), []byte{10, 244, 0, 4})
	route := message(newRoute, append([]byte{2, 0}, make([]byte, 10)...), kindOf(5), []byte{10, 244, 0, 1})
	subnet := message(newRoute, append([]byte{2, 16}, make([]byte, 10)...), kindOf(1), []byte{10, 244, 0, 0})
	all := append(append(append(append([]byte{}, link...), address...), route...), subnet...)
	want := network{interfaces: []string{"eth0"}, addresses: []string{"10.244.0.4/24"}, routes: []string{"default via 10.244.0.1", "10.244.0.0/16"}}
	assert.Equal(t, want, parseNetlink(all))
	assert.Equal(t, want, parseNetlink(append(all, link[:10]...)))
	assert.Equal(t, network{}, parseNetlink(link[:10]))
}

func FuzzParse(f *testing.F) {
	f.Add("runc\x00create\x00id\x00", "CNI_COMMAND=ADD\x00CNI_ARGS=K8S_POD_UID=u\x00", []byte("\x20\x00\x00\x00\x10\x00"))
	f.Add("", "", message(newLink, make([]byte, 16), kindOf(3), []byte("a\xff\x00")))
	f.Add("\x00\x00", "CNI_ARGS", message(newRoute, nil))
	f.Fuzz(func(t *testing.T, arguments, environment string, b []byte) {
		c := parseCommand("/usr/bin/runc", words(arguments))
		if c.id != "" && !strings.Contains(arguments, c.id) {
			t.Fatalf("%q is not in %q", c.id, arguments)
		}
		parseCNI(environment)
		n := parseNetlink(b)
		for _, name := range n.interfaces {
			if !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n\x1b") {
				t.Fatalf("an interface called %q", name)
			}
		}
		if len(n.interfaces)+len(n.addresses)+len(n.routes) > len(b)/headerSize+1 {
			t.Fatalf("more than %d bytes can hold: %+v", len(b), n)
		}
	})
}
