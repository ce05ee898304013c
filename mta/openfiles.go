package mta

import (
	"cmp"
	"fmt"

	"meta1/mta/store"
)

// What is open at most, in file descriptors.
const (
	// filesOfSession: the connection, and a content file.
	filesOfSession = 2
	// filesOfDelivery: the connection, and the content file that is sent. Its connection
	// may be kept, and the next one is to another host.
	filesOfDelivery = 3
	// filesOfAll: the lock, logs, maps, name servers, services, and the connections to
	// the control socket and for metrics.
	filesOfAll = 160
	// unlimited stands for a threads_max of 0.
	unlimited = 10_000
	// fewest is what threads_max and deliveries_max are not lowered below.
	fewest = 10
)

// fitOpenFiles lowers threads_max and deliveries_max to what the limit on open files
// allows, so that neither a store nor the sessions ever find it reached, and says what
// it has lowered. raise raises the limit to what is wanted as far as it can, and returns
// it.
func fitOpenFiles(c *Config, raise func(wanted uint64) uint64) (lowered []string, err error) {
	fixed := fixedFiles(c)
	wanted, least := fixed, fixed+fewest*filesOfDelivery+len(c.Servers)*fewest*filesOfSession
	for _, s := range c.Servers {
		wanted += cmp.Or(s.Server.ThreadsMax, unlimited) * sessionFiles(s)
		least += fewest * (sessionFiles(s) - filesOfSession)
	}
	wanted += c.Queue.SMTPC.DeliveriesAtOnce * filesOfDelivery
	limit := raise(uint64(wanted))
	if limit >= uint64(wanted) {
		return nil, nil
	}
	if limit < uint64(least) {
		return nil, fmt.Errorf("only %d open files are allowed, and at least %d are needed: raise the limit (ulimit -n, LimitNOFILE=), %d are enough for this configuration",
			limit, least, wanted)
	}
	fit := func(name string, v *int) {
		most := cmp.Or(*v, unlimited)
		n := max(int(uint64(most)*(limit-uint64(fixed))/uint64(wanted-fixed)), min(fewest, most))
		if n < most {
			lowered = append(lowered, fmt.Sprintf("%s is %d instead of %d: only %d open files are allowed, %d are wanted", name, n, *v, limit, wanted))
			*v = n
		}
	}
	for _, s := range c.Servers {
		fit(s.Of.Section+" threads_max", &s.Server.ThreadsMax)
	}
	fit("qmgr deliveries_max", &c.Queue.SMTPC.DeliveriesAtOnce)
	return lowered, nil
}

// fixedFiles are open whatever the load is.
func fixedFiles(c *Config) int {
	stores := 1 // the queue
	if c.Resolver.Greylist.Present {
		stores++
	}
	files := filesOfAll + stores*store.Descriptors + len(c.Servers) + len(c.Services)
	for _, s := range c.Servers {
		if s.Server.MilterPresent {
			files++ // one connection to the policy milter for all sessions
		}
	}
	return files
}

// sessionFiles are those of a session: milters have a connection each.
func sessionFiles(s *ServerSection) int {
	n := filesOfSession + len(s.Server.Milters) // one connection to each
	if len(s.Server.PolicyServices) > 0 {       // one at a time
		n++
	}
	return n
}
