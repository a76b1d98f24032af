//! The torture tests of RFC 4475 and RFC 5118, with what a proxy like this one must make of each.
//!
//! The messages are those of the archive in appendix A of RFC 4475, and of the text of RFC 5118; there, three miscounted
//! values of Content-Length are corrected.

use super::*;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It passes, with every field that is not ours to change as it came.
    Passes,
    /// It is answered.
    Answered(u16),
}

use Fate::{Answered, Passes};

macro_rules! messages {
    ($folder:literal: $($name:literal $fate:expr,)*) => {
        &[$(($name, include_bytes!(concat!("../../wire/sip/torture/", $folder, "/", $name, ".dat")), $fate)),*]
    };
}

const RFC4475: &[(&str, &[u8], Fate)] = messages! { "rfc4475":
    // Section 3.1.1: valid.
    "wsinv" Passes,
    "intmeth" Passes,
    "esc01" Passes,
    "escnull" Passes,
    "esc02" Passes,
    "lwsdisp" Passes,
    "longreq" Passes,
    "semiuri" Passes,
    "transports" Passes,
    "mpart01" Passes,
    // Section 3.1.2: invalid. What may be wrong with a message that we do not look at, passes.
    "badinv01" Answered(400),
    "clerr" Answered(400),
    "ncl" Answered(400),
    "scalar02" Answered(400),
    "quotbal" Answered(400),
    "ltgtruri" Answered(400),
    "lwsruri" Answered(400),
    "lwsstart" Answered(400),
    "trws" Answered(400),
    "escruri" Answered(400),
    "baddate" Passes,
    "badaspec" Answered(400),
    "baddn" Answered(400),
    "badvers" Answered(505),
    "mismatch01" Answered(400),
    "mismatch02" Answered(400),
    // Section 3.2: transactions.
    "badbranch" Passes,
    // Section 3.3: semantics.
    "insuf" Answered(400),
    "unkscm" Answered(416),
    "novelsc" Answered(416),
    "unksm2" Passes,
    "bext01" Answered(420),
    "invut" Passes,
    "regaut01" Passes,
    "multi01" Answered(400),
    "mcl01" Answered(400),
    // To OPTIONS, RFC 3261 section 16.3 lets a proxy answer itself.
    "zeromf" Answered(200),
    "cparam01" Passes,
    "cparam02" Passes,
    "regescrt" Passes,
    "sdp01" Passes,
    // Section 3.4: RFC 2543.
    "inv2543" Passes,
};

const RFC5118: &[(&str, &[u8], Fate)] = messages! { "rfc5118":
    "ipv6-good" Passes,
    "ipv6-bad" Answered(400),
    "port-ambiguous" Passes,
    "port-unambiguous" Passes,
    "via-received-param-with-delim" Passes,
    "via-received-param-no-delim" Passes,
    "ipv6-in-sdp" Passes,
    "mult-ip-in-header" Passes,
    "mult-ip-in-sdp" Passes,
    "ipv4-mapped-ipv6" Passes,
    "ipv6-bug-abnf-3-colons" Passes,
    "ipv6-correct-abnf-2-colons" Passes,
};

/// Two depend on where they come from.
const DBLREQ: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/dblreq.dat");
const REGBADCT: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/regbadct.dat");
/// And these are responses.
const UNREASON: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/unreason.dat");
const NOREASON: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/noreason.dat");
const BIGCODE: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/bigcode.dat");
const SCALARLG: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/scalarlg.dat");
const BCAST: &[u8] = include_bytes!("../../wire/sip/torture/rfc4475/bcast.dat");

#[test]
fn from_a_browser() {
    for (name, message, fate) in RFC4475.iter().chain(RFC5118) {
        from_browser(name, message, *fate);
    }
    from_browser("dblreq", DBLREQ, Answered(400));
    from_browser("regbadct", REGBADCT, Answered(400));
}

#[test]
fn from_a_mediaserver() {
    for (name, message, fate) in RFC4475.iter().chain(RFC5118) {
        // One has a strict router in its Route, which therefore gets to be its Request-URI.
        let message = without(message, b"Route: <sip:127.0.0.1:5080>\r\n");
        from_mediaserver(name, &message, &message, *fate);
    }
    let first = DBLREQ.len() - 450;
    from_mediaserver("dblreq", DBLREQ, &DBLREQ[..first], Passes);
    from_mediaserver("regbadct", REGBADCT, REGBADCT, Passes);
}

#[test]
fn responses() {
    // RFC 4475 sections 3.1.1.12 and 3.1.1.13: any reason phrase, or none.
    assert_eq!(response(UNREASON, "INVITE"), 1);
    assert_eq!(response(NOREASON, "INVITE"), 0, "100 goes one hop only");
    let ringing = String::from_utf8_lossy(NOREASON).replace("SIP/2.0 100 ", "SIP/2.0 180 ");
    assert_eq!(response(ringing.as_bytes(), "INVITE"), 1);
    // Sections 3.1.2.5 and 3.1.2.19: numbers that fit nowhere.
    assert_eq!(response(SCALARLG, "INVITE"), 0);
    assert_eq!(response(BIGCODE, "INVITE"), 0);
    // Section 3.3.10: to somebody else.
    let mut world = World::new(Reach::Path);
    assert_eq!(world.raw(|bridge, cx| bridge.from_trunk(cx, mediaserver(0), BCAST)), []);
}

fn without(message: &[u8], part: &[u8]) -> Vec<u8> {
    match message.windows(part.len()).position(|window| window == part) {
        Some(at) => [&message[..at], &message[at + part.len()..]].concat(),
        None => message.to_vec(),
    }
}

fn from_browser(name: &str, message: &[u8], fate: Fate) {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let sent = world.raw(|bridge, cx| bridge.from_flow(cx, flow, message));
    check(name, &sent, message, fate, true);
}

/// `part` is what of the datagram belongs to the message.
fn from_mediaserver(name: &str, datagram: &[u8], part: &[u8], fate: Fate) {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let path = fields(&world.register(flow, "x1@a.invalid"), "Path")[0].to_owned();
    let route = format!("Route: {path}\r\n");
    let line_end = datagram
        .windows(2)
        .position(|window| window == b"\r\n")
        .expect("a line")
        + 2;
    let routed = [&datagram[..line_end], route.as_bytes(), &datagram[line_end..]].concat();
    let sent = world.raw(|bridge, cx| bridge.from_trunk(cx, mediaserver(0), &routed));
    check(name, &sent, part, fate, false);
}

fn check(name: &str, sent: &[(bool, Vec<u8>)], message: &[u8], fate: Fate, up: bool) {
    let forwarded: Vec<_> = sent.iter().filter(|(trunk, _)| *trunk == up).collect();
    let answers: Vec<_> = sent
        .iter()
        .filter(|(trunk, bytes)| *trunk != up && !bytes.starts_with(b"SIP/2.0 100 "))
        .collect();
    match (fate, &forwarded[..], &answers[..]) {
        (Passes, [(_, forwarded)], []) => assert_eq!(foreign(forwarded), foreign(message), "{name}"),
        (Answered(status), [], [(_, answer)]) => {
            let line = format!("SIP/2.0 {status} ");
            assert!(answer.starts_with(line.as_bytes()), "{name}: {}", answer.escape_ascii());
        }
        _ => panic!("{name}: {fate:?} expected, {sent:?}"),
    }
}

/// Start line, fields that a proxy leaves alone, and body.
pub(super) fn foreign(message: &[u8]) -> Vec<Vec<u8>> {
    const OURS: [&str; 9] = [
        "via",
        "v",
        "max-forwards",
        "max-breadth",
        "route",
        "record-route",
        "path",
        "supported",
        "content-length",
    ];
    let head = message
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an end of the header")
        + 2;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for line in message[..head].split_inclusive(|byte| *byte == b'\n') {
        match parts.last_mut() {
            Some(field) if matches!(line[0], b' ' | b'\t') => field.extend_from_slice(line),
            _ => parts.push(line.to_vec()),
        }
    }
    parts.retain(|field| {
        let name = field.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
        !OURS.contains(&name.as_str())
    });
    parts.push(message[head..].to_vec());
    parts
}

/// How many messages a response that fits a transaction of ours makes for the browser.
fn response(message: &[u8], method: &str) -> usize {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let request = lines(&[
        &format!("{method} sip:200@xivo SIP/2.0"),
        "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bKt1",
        "From: <sip:alice@xivo>;tag=1",
        "To: <sip:200@xivo>",
        "Call-ID: t-1",
        &format!("CSeq: 35 {method}"),
    ]);
    let forwarded = world.browser(flow, &request).pop().expect("it is forwarded").trunk();
    let via = format!("Via: {}\r\n", fields(&forwarded, "Via")[0]);
    let line_end = message.windows(2).position(|window| window == b"\r\n").expect("a line") + 2;
    let ours = [&message[..line_end], via.as_bytes(), &message[line_end..]].concat();
    let sent = world.raw(|bridge, cx| bridge.from_trunk(cx, mediaserver(0), &ours));
    assert!(sent.iter().all(|(_, bytes)| bytes.starts_with(&message[..line_end])));
    sent.len()
}
