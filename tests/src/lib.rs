//! Clients, servers and helpers for the black-box tests.
