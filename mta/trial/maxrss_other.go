//go:build !darwin

package trial

// maxrssPerMiB is the unit of getrusage(2), which is the KiB here.
const maxrssPerMiB = 1 << 10
