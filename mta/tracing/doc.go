// Package tracing tells an OpenTelemetry collector what became of messages, and how long each stage took:
// one trace for each message, with a span for the message, below it those for its reception, each check of
// it, its waits in the queue, and each attempt to deliver it.
//
// The modules call Sampled and Record of a Tracer, which never wait; a nil Tracer traces nothing. Run sends what was
// recorded by OTLP/HTTP in its JSON encoding. The official library would do the same: it adds eleven megabytes
// to a program that has net/http already, most of it gRPC and protocol buffers that this needs none of.
//
// The trace of a message, and the span of the message itself, follow from the message's id, so that nothing
// needs to be stored for them: attempts after a restart belong to the same trace, and whether a message is traced
// is decided alike by every module.
package tracing
