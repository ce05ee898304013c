package dns

import (
	"fmt"
	"net/netip"

	mdns "github.com/miekg/dns"
)

// maxServers of resolv.conf are used, as in README 3.9.2 item 4a.
const maxServers = 4

// ReadResolvConf gives the name servers of a resolv.conf(5) file, at most four.
func ReadResolvConf(path string) ([]netip.Addr, error) {
	conf, err := mdns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading name servers: %w", err)
	}
	var addrs []netip.Addr
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil && len(addrs) < maxServers {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}
