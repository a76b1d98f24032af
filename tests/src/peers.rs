//! Who talks to the edge? Browsers, TURN clients, mediaservers and web servers, each without any code of the edge.

pub mod cutter;
pub mod http;
pub mod http_client;
pub mod ip_witness;
pub mod media;
pub mod mediaserver;
pub mod phone;
pub mod relay_client;
pub mod sip;
pub mod sip_browser;
pub mod sipp;
pub mod stream;
pub mod stun;
pub mod turn_client;
pub mod udp_peer;
pub mod upstream;
pub mod websocket;
