//! The bridge between SIP over WebSocket and SIP over UDP (RFC 3261, RFC 7118): a transaction-stateful proxy that knows
//! no dialogs. Each browser is a flow; its own URIs carry an authenticated flow token, and that is all the state that a
//! dialog needs here.

mod branch;
pub mod bridge;
mod check;
mod flow;
mod flows;
mod from_flow;
mod from_trunk;
mod home;
mod limit;
mod local;
mod names;
mod register;
mod rewrite;
mod token;
mod transaction;
mod transactions;
mod trunk;

#[cfg(test)]
mod tests;

pub use bridge::{Bridge, FlowId, Full, Opening, Out};
