// Package settings is the whole configuration of an MTA: its sections, the table of options that reads them, and what a
// configuration says of paths, accounts, sections and units once it is read. It asks the host for nothing but its name, the file
// itself and the accounts that it names; what else a host must have for a configuration is checked by package mta.
package settings
