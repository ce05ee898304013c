// Package e2e tests meta1 as its users meet it: the built binary, with real
// files, sockets and processes, and with peers that are not ours (Postfix, its
// smtp-source and smtp-sink, programs that read DSNs, swaks, Docker). It holds
// tests only.
//
// TestMain builds the binary once. Each test has its own directory, ports and
// processes, and a limit on its time; what it started it ends by process id.
// Most tests run without rights; those that mount a file system or change the
// user need root and fail without it, and so do those whose peer is missing:
// "make test" installs the peers. The test of the container alone is skipped
// where no Docker engine answers.
//
// The layers of the packages (ARCHITECTURE.md) are checked here as well.
package e2e
