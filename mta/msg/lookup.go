package msg

// LookupQ asks SMAR, which owns the maps, for the entry of a key in a declared map: an
// account and its password, for one.
type LookupQ struct {
	Map string // the name under which section smar declares it
	Key string
}

// LookupA answers LookupQ. Value may be a secret: no trace and no log has it.
type LookupA struct {
	Value string
	Found bool
	// Err says why it is not known whether there is an entry; "" if it is.
	Err string
}
