// Package otlp has the codecs whose encodings other tools read: those of the
// OpenTelemetry protocol, in protobuf.
package otlp
