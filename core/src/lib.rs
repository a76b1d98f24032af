//! The pure core of Edgeward: HTTP proxying, SIP bridging and TURN as state machines.
//!
//! Bytes and time go in, bytes and actions come out. Nothing here opens a socket, reads a clock, starts a thread or
//! draws a random number of its own; a run is a function of the configuration, the seed and the inputs.
//!
//! A runtime drives one [`Shard`] on each of its threads, through the vocabulary of [`action`].

#![forbid(unsafe_code)]

extern crate alloc;

mod access;
pub mod action;
pub mod config;
mod conn;
pub mod cx;
pub mod http;
mod limit;
mod refusal;
pub mod rng;
mod shard;
pub mod sip;
pub mod slab;
pub mod stats;
pub mod time;
mod timers;
pub mod tls;
mod token;
pub mod turn;
pub mod wire;
pub mod ws;

pub use shard::Shard;
