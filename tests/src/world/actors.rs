//! Who lives in the world? Browsers, telephones, mediaservers, web servers, TURN clients, their peers, and attackers.

pub mod browser;
pub mod mediaserver;
pub mod peer;
pub mod phone;
pub mod turn_client;
pub mod upstream;
