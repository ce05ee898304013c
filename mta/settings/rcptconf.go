package settings

import (
	"slices"

	"meta1/maps"
	"meta1/queue/conf"
)

// RcptConfSteps are the lookups that qmgr's lookup_rcpt_conf and
// rcpt_conf_lookup_flags ask of the resolver (README 3.8, item 16g and h); 0 for none.
func RcptConfSteps(c *conf.SMTPCConfig) maps.Steps {
	if !c.LookupRcptConf {
		return 0
	}
	var steps maps.Steps
	for word, step := range map[string]maps.Steps{
		"full_address": maps.FullAddress, "detail_plus": maps.DetailPlus, "detail_star": maps.DetailStar,
		"star": maps.Star, "domain": maps.Domain, "dotsubdomain": maps.DotSubdomain, "dot": maps.Dot,
	} {
		if slices.Contains(c.RcptConfFlags, word) {
			steps |= step
		}
	}
	return steps
}
