package settings

// OwnSection is where meta1 itself logs.
const OwnSection = "mta"

// OwnLog are the options of meta1 itself.
func (c *Config) OwnLog() *Common {
	return &Common{Section: OwnSection, LogLevel: c.QueueOf.LogLevel, Log: c.Log}
}

// ShareLog gives the section log of all to those sections that have none.
func (c *Config) ShareLog() {
	for _, of := range c.Commons() {
		if !of.Log.Present {
			of.Log = c.Log
		}
	}
}
