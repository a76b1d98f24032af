//! How is `[metrics]` read: where numbers and health are asked for?

use core::net::{Ipv4Addr, SocketAddr};

use super::{
    addresses,
    reader::{Reader, Transport, Value},
    section::Section,
};
use crate::config::Metrics;

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Metrics> {
    let mut section = Section::new(cx, "[metrics]", value)?;
    let listen = section.given_or(cx, "listen", DEFAULT, |cx, value| {
        let address = addresses::socket_address(cx, value)?;
        cx.listen(Transport::Tcp, address, value.span().start);
        Some(address)
    });
    section.finish(cx);
    Some(Metrics { listen: listen? })
}

const DEFAULT: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
