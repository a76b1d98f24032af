//! The bridge between SIP over WebSocket and SIP over UDP (RFC 3261, RFC 7118).
