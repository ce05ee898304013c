package trial

// maxrssPerMiB is the unit of getrusage(2), which is the byte here.
const maxrssPerMiB = 1 << 20
