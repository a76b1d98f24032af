//! Who is the client, and what is the upstream told about it? Nothing that a client says about itself is believed; what
//! a trusted proxy says is.

use core::{net::IpAddr, str};

use arrayvec::ArrayVec;
use bytes::BytesMut;
use ipnet::IpNet;

use super::write;
use crate::wire::http1::{Fields, Name, trim};

/// Proxies in front of us that are looked through. One or two are usual.
const HOPS_MAX: usize = 8;

/// The address of the client: the peer of the connection or, when that is a trusted proxy, the last address that a
/// trusted proxy put into `X-Forwarded-For` for somebody who is none.
pub fn client_address(peer: IpAddr, trusted: &[IpNet], fields: &Fields<'_>) -> IpAddr {
    let hops = hops(peer, trusted, fields);
    hops.last().copied().unwrap_or(peer)
}

/// Adds `X-Real-IP`, the client, and `X-Forwarded-For`, the client and the trusted proxies that it came through.
pub(super) fn write_fields(peer: IpAddr, trusted: &[IpNet], fields: &Fields<'_>, out: &mut BytesMut) {
    let hops = hops(peer, trusted, fields);
    let client = hops.last().copied().unwrap_or(peer);
    out.extend_from_slice(b"X-Real-IP: ");
    write::address(out, client);
    out.extend_from_slice(b"\r\nX-Forwarded-For: ");
    write::address(out, client);
    for hop in hops.iter().rev().skip(1) {
        out.extend_from_slice(b", ");
        write::address(out, *hop);
    }
    out.extend_from_slice(b"\r\n");
}

/// The peer, then whoever is before it, as far as it was told by somebody trusted; the last is the client.
fn hops(peer: IpAddr, trusted: &[IpNet], fields: &Fields<'_>) -> ArrayVec<IpAddr, HOPS_MAX> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let values = fields.all(Name::XForwardedFor).rev();
    let mut told = values.flat_map(|value| value.rsplit(|byte| *byte == b',')).map(address);
    let mut hops = ArrayVec::new();
    let mut teller = peer.to_canonical();
    hops.push(teller);
    while is_trusted(teller)
        && !hops.is_full()
        && let Some(Some(hop)) = told.next()
    {
        hops.push(hop);
        teller = hop;
    }
    hops
}

fn address(entry: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = str::from_utf8(trim(entry)).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http1::{Limits, trailer_section};

    /// `forwarded_for` holds the values of `X-Forwarded-For` fields.
    fn check(peer: &str, forwarded_for: &[&str], expected: &[&str]) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let lines: String = forwarded_for
            .iter()
            .map(|value| format!("x-Forwarded-FOR: {value}\r\n"))
            .collect();
        let text = format!("{lines}\r\n");
        let limits = Limits::new(0, 8192, 100);
        let (fields, _) = trailer_section(text.as_bytes(), &limits).unwrap().unwrap();
        let peer: IpAddr = peer.parse().unwrap();
        assert_eq!(
            client_address(peer, &trusted, &fields).to_string(),
            expected[0],
            "{forwarded_for:?}"
        );
        let mut out = BytesMut::new();
        write_fields(peer, &trusted, &fields, &mut out);
        let written = format!(
            "X-Real-IP: {}\r\nX-Forwarded-For: {}\r\n",
            expected[0],
            expected.join(", ")
        );
        assert_eq!(out, written.as_bytes());
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        check("192.0.2.1", &[], &["192.0.2.1"]);
        check("192.0.2.1", &["127.0.0.1"], &["192.0.2.1"]);
        check("10.0.0.1", &[], &["10.0.0.1"]);
        check("10.0.0.1", &["192.0.2.1"], &["192.0.2.1", "10.0.0.1"]);
        check("10.0.0.1", &["127.0.0.1, 192.0.2.1"], &["192.0.2.1", "10.0.0.1"]);
        check(
            "10.0.0.1",
            &["127.0.0.1", "192.0.2.1\t,  10.0.0.2"],
            &["192.0.2.1", "10.0.0.2", "10.0.0.1"],
        );
        check(
            "10.0.0.1",
            &["10.0.0.3, 10.0.0.2"],
            &["10.0.0.3", "10.0.0.2", "10.0.0.1"],
        );
        check("2001:db8::1", &["2001:db9::2"], &["2001:db9::2", "2001:db8::1"]);
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        check("10.0.0.1", &["192.0.2.1, unknown"], &["10.0.0.1"]);
        check("10.0.0.1", &["192.0.2.1,"], &["10.0.0.1"]);
        check("10.0.0.1", &["192.0.2.1, \u{e9}, 10.0.0.2"], &["10.0.0.2", "10.0.0.1"]);
    }

    #[test]
    fn mapped_addresses_are_their_own() {
        check("::ffff:192.0.2.1", &["127.0.0.1"], &["192.0.2.1"]);
        check("::ffff:10.0.0.1", &["::ffff:192.0.2.1"], &["192.0.2.1", "10.0.0.1"]);
    }

    #[test]
    fn the_search_is_bounded() {
        let many = ["10.0.0.2"; 100].join(", ");
        check(
            "10.0.0.1",
            &[&many],
            &[
                "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.1",
            ],
        );
    }
}
