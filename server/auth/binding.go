package auth

import (
	"github.com/xdg-go/scram"

	"meta1/mta/sasl"
)

// bindings are the types of channel binding that the channel has, with their data.
func (c *Channel) bindings() []scram.ChannelBinding {
	if c.TLS == nil || c.bound != nil {
		return c.bound
	}
	c.bound = sasl.Bindings(c.TLS, c.Own)
	return c.bound
}
