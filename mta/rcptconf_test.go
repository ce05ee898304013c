package mta

import (
	"testing"

	"meta1/maps"
	"meta1/queue"
)

func TestRcptConfSteps(t *testing.T) {
	for _, c := range []struct {
		conf queue.SMTPCConfig
		want maps.Steps
	}{
		{queue.SMTPCConfig{RcptConfFlags: []string{"domain"}}, 0},
		{queue.SMTPCConfig{LookupRcptConf: true, RcptConfFlags: []string{"domain", "dot"}}, maps.Domain | maps.Dot},
		{queue.SMTPCConfig{LookupRcptConf: true, RcptConfFlags: []string{"full_address", "no_star"}}, maps.FullAddress},
	} {
		if got := rcptConfSteps(&c.conf); got != c.want {
			t.Errorf("%+v: steps %b, want %b", c.conf, got, c.want)
		}
	}
}
