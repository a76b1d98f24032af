//! HTTP/1.1 as a server towards browsers and as a client towards upstreams, strict on both sides (RFC 9110, RFC 9112).
