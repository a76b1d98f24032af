//! Who lives in the world? Browsers, telephones, mediaservers, web servers, TURN clients, their peers, and attackers.

pub mod attacker;
pub mod browser;
pub mod mediaserver;
pub mod peer;
pub mod phone;
pub mod tcp_relay;
pub mod tunnel;
pub mod turn_client;
pub mod upstream;
