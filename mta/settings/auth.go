package settings

import "meta1/confparse"

// checkAuth checks that the maps are declared that sections auth name, and warns of
// servers for submission to which nobody can authenticate.
func (c *Config) checkAuth(r *confparse.Report) {
	for _, s := range c.Logins() {
		if name := s.Auth.PasswordMap; name != "" && !c.Resolver.Declares(name) {
			r.Errorf(s.Path+"/password_map", "map %q is not declared in section smar", name)
		}
	}
	for _, s := range c.Servers {
		if !s.Server.AuthPresent {
			if s.Server.Flags.Submission {
				r.Warnf(s.Of.Section+"/submission", "section %s has the flag submission and no section auth: only clients that may relay for their address can send", s.Of.Section)
			}
			continue
		}
		for option, name := range map[string]string{"password_map": s.Server.Auth.PasswordMap, "sender_login": s.Server.Auth.SenderLogin} {
			if name != "" && !c.Resolver.Declares(name) {
				r.Errorf(s.Of.Section+"/auth/"+option, "map %q is not declared in section smar", name)
			}
		}
	}
}
