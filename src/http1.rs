//! Sans-I/O HTTP/1.1 for a client: encode a request, parse a response incrementally; every buffer capped.
