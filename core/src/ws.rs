//! WebSocket on the server's side (RFC 6455).
