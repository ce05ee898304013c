package tlsconf

import (
	"context"
	"log/slog"
	"time"
)

// The times of Run.
const (
	lookEvery   = time.Minute         // between two looks at the files
	settleTime  = 5 * time.Second     // for whoever replaces files one after the other
	remindEvery = 24 * time.Hour      // between two warnings
	expireSoon  = 14 * 24 * time.Hour // how early a certificate that expires is told
)

// Run takes renewed files by itself and warns once a day of what expires, until ctx ends.
func (p *Provider) Run(ctx context.Context, log *slog.Logger) error {
	log = log.With(slog.String("section", p.deps.Name))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	p.remind(ctx, log)
	reminded := p.deps.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if p.renewed() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settleTime):
			}
			p.renew(ctx, log)
		}
		if now := p.deps.Now(); now.Sub(reminded) >= remindEvery {
			p.remind(ctx, log)
			reminded = now
		}
	}
}

// renewed reports that a file is no longer as it was when it was last read, also if that
// did not go well.
func (p *Provider) renewed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return changed(p.deps.Files, p.last.stamps)
}

// renew takes renewed files and tells it.
func (p *Provider) renew(ctx context.Context, log *slog.Logger) {
	if err := p.Reload(); err != nil {
		log.LogAttrs(ctx, slog.LevelError, "renewed TLS files cannot be used: the old ones stay in use", slog.Any("error", err))
		return
	}
	for _, c := range p.Certificates() {
		log.LogAttrs(ctx, slog.LevelInfo, "TLS files were renewed", slog.String("file", c.File), slog.Time("expires", c.Expires))
	}
}

// remind tells what has expired, what soon will, and that the newest files cannot be used.
func (p *Provider) remind(ctx context.Context, log *slog.Logger) {
	now := p.deps.Now()
	for _, c := range p.Certificates() {
		level, text := slog.LevelWarn, "a TLS certificate is about to expire"
		switch {
		case now.After(c.Expires):
			level, text = slog.LevelError, "a TLS certificate has expired"
		case now.Before(c.Expires.Add(-expireSoon)):
			continue
		}
		log.LogAttrs(ctx, level, text, slog.String("file", c.File), slog.Time("expires", c.Expires))
	}
	for _, c := range p.now.Load().crls {
		if c.Expired(now) {
			log.LogAttrs(ctx, slog.LevelError, "a CRL has expired: certificates of its CA are not verified",
				slog.String("file", c.file), slog.String("issuer", c.Issuer()), slog.Time("expires", c.NextUpdate()))
		}
	}
	p.mu.Lock()
	err := p.last.err
	p.mu.Unlock()
	if err != nil {
		log.LogAttrs(ctx, slog.LevelError, "the newest TLS files cannot be used: the old ones are in use", slog.Any("error", err))
	}
}

// Certificate is one of our certificates.
type Certificate struct {
	File    string
	Expires time.Time // the first of its chain
}

// Certificates are those that are in use.
func (p *Provider) Certificates() []Certificate {
	l := p.now.Load()
	list := make([]Certificate, 0, len(l.pairs))
	for i := range l.pairs {
		list = append(list, Certificate{l.pairs[i].file, l.pairs[i].expiry()})
	}
	return list
}
