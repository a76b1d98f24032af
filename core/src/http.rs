//! HTTP/1.1 as a server towards browsers and as a client towards upstreams, strict on both sides (RFC 9110, RFC 9112).
//!
//! A [`Server`] reads requests and writes responses of one connection, a [`Client`] the other way round. Whoever owns
//! both connections carries items from one to the other; nothing is forwarded as it came, everything is written anew
//! from what was understood. [`route`] decides what a request may do, without any state.
//!
//! ```text
//! browser bytes -> Server::next -> Request -> route -> Client::request -> upstream bytes
//!                                  Body, End        -> Client::body, end
//! browser bytes <- Server::respond, body, end <- Response, Body, End <- Client::next <- upstream bytes
//!                  Server::inform             <- Informational
//!                  Server::switch             <- Switched             then both are tunnels
//! ```
//!
//! The head of a request can be written before its upstream is connected: a `Client` made for the exchange writes into
//! a buffer that is sent, or sent once more, when there is a connection.

mod answer;
mod body;
mod client;
mod date;
mod fields;
mod forwarded;
mod health;
mod pool;
mod request;
mod route;
mod server;
mod target;
mod upgrade;
mod write;

pub use answer::Answer;
pub use body::BodyLength;
pub use client::{Client, ClientItem, Forward, UpstreamError};
pub use forwarded::client_address;
pub use health::{Health, Standing};
pub use pool::Pool;
pub use request::{Method, Request};
pub use route::{Decision, route};
pub use server::{Item, Reject, Server};
pub use target::{ArgumentError, Authority, Target};
pub use upgrade::Accept;

use crate::{config::HttpLimits, wire::http1};

/// What the tokenizer needs to know of the limits.
fn head_limits(limits: &HttpLimits) -> http1::Limits {
    http1::Limits::new(limits.line_bytes_max, limits.head_bytes_max, limits.fields_max)
}

#[cfg(test)]
mod tests;
