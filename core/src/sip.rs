//! The bridge between SIP over WebSocket and SIP over UDP (RFC 3261, RFC 7118): a transaction-stateful proxy that knows
//! no dialogs.
//!
//! ```text
//!  browser              flow                     trunk              mediaserver
//!  ------- WebSocket -> from_flow --\      /--> Out::Trunk -- UDP -> ----------
//!                                    bridge
//!  ------- <- WebSocket -- Out::Flow --/      \-- from_trunk <- UDP - ----------
//! ```
//!
//! Each browser is a flow (RFC 5626). The URIs of ours that its dialogs and registrations carry (Record-Route, Path,
//! Contact) name it by an authenticated token, and that is all the state that a dialog needs here. Each request is a
//! transaction, since the browser's side is reliable and the mediaserver's is not: whatever must be repeated over UDP is
//! repeated here, and nothing ever over a WebSocket.
//!
//! `wire::sip` reads and edits messages, `check` says whether they may pass, `rewrite` what changes in them, `local` what
//! we say ourselves. `transaction` is the state machine, `trunk` with `health` and `link` what is known of a
//! mediaserver; `transactions`, `flows`, `register` and `trunks` carry out what happens to transactions, browsers,
//! registrations and mediaservers. `from_flow` and `from_trunk` bring it together for requests, `responses` for what comes
//! back; `failover` tries another address, and `ghosts` ends what a browser has left behind.

mod branch;
pub mod bridge;
mod check;
mod failover;
mod flow;
mod flows;
mod from_flow;
mod from_trunk;
mod ghosts;
mod health;
mod home;
mod label;
mod limit;
mod link;
mod local;
mod names;
mod refusals;
mod register;
mod responses;
mod rewrite;
mod strip;
mod token;
mod transaction;
mod transactions;
mod trunk;
mod trunks;

#[cfg(test)]
mod tests;

pub use bridge::{Bridge, FlowId, Full, Opening, Out};
pub use link::LinkId;
pub use trunks::Question;
