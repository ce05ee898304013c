package settings

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"meta1/mta/smtp"
)

// hostnameTime bounds the search for our own name.
const hostnameTime = time.Second

// canonical finds the full name of a host; net.Resolver.LookupCNAME does.
type canonical func(ctx context.Context, host string) (string, error)

// OwnHostname is the fully qualified name of this host: that of the system if it
// has a dot, else what the system finds for it in /etc/hosts or DNS, else the plain
// name. It is what serve takes with a configuration that sets no hostname. It takes at most a second.
func OwnHostname(ctx context.Context) string {
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	ctx, cancel := context.WithTimeout(ctx, hostnameTime)
	defer cancel()
	return qualify(ctx, name, (&net.Resolver{PreferGo: true}).LookupCNAME)
}

func qualify(ctx context.Context, name string, lookup canonical) string {
	name = strings.TrimSuffix(name, ".")
	if smtp.CheckDomain(name) != nil {
		return "localhost"
	}
	if strings.Contains(name, ".") {
		return name
	}
	full, err := lookup(ctx, name)
	full = strings.TrimSuffix(full, ".")
	if err != nil || smtp.CheckDomain(full) != nil || !strings.Contains(full, ".") || strings.HasPrefix(full, "localhost.") {
		return name
	}
	return full
}
