//! Does the WebSocket for SIP keep to RFC 6455? The cases of the Autobahn test suite that apply to a server without
//! extensions, by their numbers, against the built edge. What Autobahn has echoed is a SIP request here, and its answer.

use edgeward_tests::{
    peers::websocket::{Frame, WebSocketClient},
    scene::Scene,
    word,
};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Put before an opcode without the last bit: more fragments follow.
const TEXT_BEGINS: u8 = 0x01;
const BINARY_BEGINS: u8 = 0x02;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
/// The largest message that the edge takes.
const LARGEST: usize = 65_536;

/// What the edge says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Pong(Vec<u8>),
    /// The answer to a request, as text or binary.
    Answer(u8),
    Close(Option<u16>),
}

use Said::{Answer, Close, Pong};

#[test]
fn cases_1_framing() {
    let autobahn = Autobahn::new();
    for (kind, family) in [(TEXT, "1.1"), (BINARY, "1.2")] {
        // Nothing but line ends is no request, and lets the connection live.
        for (number, length) in [(1, 0), (2, 125), (3, 126), (4, 127), (5, 128)] {
            let lines = b"\r".repeat(length);
            autobahn.check(&format!("{family}.{number}"), [frame(kind, &lines)], &[]);
        }
        for (number, length) in [(6, LARGEST - 1), (7, LARGEST)] {
            let request = frame(kind, &request(length));
            autobahn.check(&format!("{family}.{number}"), [request], &[Answer(kind)]);
        }
        let request = frame(kind, &request(LARGEST));
        autobahn.check(&format!("{family}.8"), request.chunks(997), &[Answer(kind)]);
    }
}

#[test]
fn cases_2_pings_and_pongs() {
    let autobahn = Autobahn::new();
    let pong = |payload: &[u8]| Pong(payload.into());
    autobahn.check("2.1", [frame(PING, b"")], &[pong(b"")]);
    autobahn.check("2.2", [frame(PING, b"Hello, world!")], &[pong(b"Hello, world!")]);
    let bytes = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    autobahn.check("2.3", [frame(PING, &bytes)], &[pong(&bytes)]);
    let longest = [0xfe; 125];
    autobahn.check("2.4", [frame(PING, &longest)], &[pong(&longest)]);
    autobahn.check("2.5", [frame(PING, &[0xfe; 126])], &[Close(Some(1002))]);
    autobahn.check("2.6", frame(PING, &longest).chunks(1), &[pong(&longest)]);
    autobahn.check("2.7", [frame(PONG, b"")], &[]);
    autobahn.check("2.8", [frame(PONG, b"unsolicited")], &[]);
    autobahn.check(
        "2.9",
        [frame(PONG, b"unsolicited"), frame(PING, b"ping")],
        &[pong(b"ping")],
    );
    let pings: Vec<_> = (0..10).map(|number| frame(PING, &[number])).collect();
    let pongs: Vec<_> = (0..10).map(|number| pong(&[number])).collect();
    autobahn.check("2.10", &pings, &pongs);
    autobahn.check("2.11", pings.concat().chunks(1), &pongs);
}

#[test]
fn cases_3_and_4_what_is_reserved() {
    let autobahn = Autobahn::new();
    let broken = [Answer(TEXT), Close(Some(1002))];
    for bits in 1..=7 {
        let wrong = frame(TEXT | bits << 4, &request(300));
        let frames = [frame(TEXT, &request(300)), wrong, frame(PING, b"never read")];
        autobahn.check(&format!("3.{bits}"), frames, &broken);
    }
    for (family, opcodes) in [("4.1", 3..=7), ("4.2", 11..=15)] {
        for (number, opcode) in (1..).zip(opcodes) {
            let wrong = frame(0x80 | opcode, b"reserved");
            let frames = [frame(TEXT, &request(300)), wrong, frame(PING, b"never read")];
            autobahn.check(&format!("{family}.{number}"), frames, &broken);
        }
    }
}

#[test]
fn cases_5_fragments() {
    let autobahn = Autobahn::new();
    let broken = &[Close(Some(1002))];
    autobahn.check("5.1", [frame(0x09, b"frag"), frame(ENDS, b"ment")], broken);
    autobahn.check("5.2", [frame(0x0a, b"frag"), frame(ENDS, b"ment")], broken);
    let whole = request(300);
    let (first, last) = whole.split_at(100);
    let answered = &[Answer(TEXT)];
    let two = [frame(TEXT_BEGINS, first), frame(ENDS, last)];
    autobahn.check("5.3", &two, answered);
    autobahn.check("5.5", two.concat().chunks(1), answered);
    let ping = frame(PING, b"pongme");
    let between = [two[0].clone(), ping.clone(), two[1].clone()];
    let expected = &[Pong(b"pongme".into()), Answer(TEXT)];
    autobahn.check("5.6", &between, expected);
    autobahn.check("5.8", between.concat().chunks(1), expected);
    let nothing = [frame(ENDS, b"nothing to continue"), frame(TEXT, &request(300))];
    autobahn.check("5.9", &nothing, broken);
    autobahn.check("5.11", nothing.concat().chunks(1), broken);
    let nothing = [frame(GOES_ON, b"nothing to continue"), frame(TEXT, &request(300))];
    autobahn.check("5.12", &nothing, broken);
    autobahn.check("5.14", nothing.concat().chunks(1), broken);
    let behind = [
        two[0].clone(),
        two[1].clone(),
        frame(GOES_ON, b"of nothing"),
        frame(TEXT, b""),
    ];
    autobahn.check("5.15", &behind, &[Answer(TEXT), Close(Some(1002))]);
    autobahn.check("5.16", [frame(GOES_ON, b"x"), frame(TEXT_BEGINS, b"y")], broken);
    autobahn.check("5.18", [frame(TEXT_BEGINS, first), frame(TEXT, last)], broken);
    let parts: Vec<&[u8]> = whole.chunks(75).collect();
    let five = [
        frame(BINARY_BEGINS, parts[0]),
        frame(GOES_ON, parts[1]),
        ping.clone(),
        frame(GOES_ON, parts[2]),
        frame(GOES_ON, b""),
        ping,
        frame(ENDS, parts[3]),
    ];
    let pong = Pong(b"pongme".into());
    autobahn.check("5.19", five, &[pong.clone(), pong, Answer(BINARY)]);
}

#[test]
fn cases_6_text_is_utf8() {
    let autobahn = Autobahn::new();
    let subject = |subject: &[u8]| {
        let text = String::from_utf8(request(300)).expect("text");
        let (head, rest) = text.split_once("\r\n").expect("a request");
        [head.as_bytes(), b"\r\nSubject: ", subject, b"\r\n", rest.as_bytes()].concat()
    };
    let valid =
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!! \u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5} \u{10ffff}";
    autobahn.check("6.2.1", [frame(TEXT, &subject(valid.as_bytes()))], &[Answer(TEXT)]);
    let bytes = subject(valid.as_bytes());
    let fragments = (0..).zip(bytes.chunks(1)).map(|(place, byte)| match place {
        0 => frame(TEXT_BEGINS, byte),
        _ => frame(GOES_ON, byte),
    });
    autobahn.check("6.2.3", fragments.chain([frame(ENDS, b"")]), &[Answer(TEXT)]);
    for (case, invalid) in [
        (
            "6.3.1",
            &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..],
        ),
        ("6.8.1", b"\xf8\x88\x80\x80\x80"),
        ("6.10.1", b"\xc0\xaf"),
        ("6.14.1", b"\x80"),
        ("6.20.1", b"\xed\xa0\x80"),
    ] {
        autobahn.check(case, [frame(TEXT, &subject(invalid))], &[Close(Some(1007))]);
    }
    // As soon as it is wrong, and not at the end of the message.
    autobahn.check(
        "6.4.1",
        [frame(TEXT_BEGINS, b"\xce\xba"), frame(GOES_ON, b"\xf4\x90")],
        &[Close(Some(1007))],
    );
}

#[test]
fn cases_7_closing() {
    let autobahn = Autobahn::new();
    let normal = &[Close(Some(1000))];
    autobahn.check(
        "7.1.1",
        [frame(TEXT, &request(300)), close(1000, "")],
        &[Answer(TEXT), Close(Some(1000))],
    );
    autobahn.check("7.1.2", [close(1000, ""), close(1000, "")], normal);
    autobahn.check("7.1.3", [close(1000, ""), frame(PING, b"late")], normal);
    autobahn.check("7.1.4", [close(1000, ""), frame(TEXT, &request(300))], normal);
    autobahn.check(
        "7.1.5",
        [frame(TEXT_BEGINS, b"frag"), close(1000, ""), frame(ENDS, b"ment")],
        normal,
    );
    autobahn.check("7.3.1", [frame(CLOSE, b"")], &[Close(None)]);
    autobahn.check("7.3.2", [frame(CLOSE, b"a")], &[Close(Some(1002))]);
    autobahn.check("7.3.3", [close(1000, "")], normal);
    autobahn.check("7.3.5", [close(1000, &"*".repeat(123))], normal);
    autobahn.check("7.3.6", [close(1000, &"*".repeat(124))], &[Close(Some(1002))]);
    autobahn.check("7.5.1", [frame(CLOSE, b"\x03\xe8\xed\xa0\x80")], &[Close(Some(1007))]);
    for (number, code) in (1..).zip([
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ]) {
        autobahn.check(&format!("7.7.{number}"), [close(code, "")], &[Close(Some(code))]);
    }
    for (number, code) in (1..).zip([0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535]) {
        autobahn.check(&format!("7.9.{number}"), [close(code, "")], &[Close(Some(1002))]);
    }
}

#[test]
fn cases_9_and_10_limits() {
    let autobahn = Autobahn::new();
    for (kind, begins, family) in [(TEXT, TEXT_BEGINS, "9.1"), (BINARY, BINARY_BEGINS, "9.2")] {
        // Autobahn goes on to 16 MiB; SIP has a limit, and it is known from the length alone.
        let large = frame(kind, &request(LARGEST + 1));
        autobahn.check(&format!("{family}.1"), [&large[..14]], &[Close(Some(1009))]);
        let half = request(LARGEST);
        let (first, second) = half.split_at(LARGEST / 2);
        let sum = [frame(begins, first), frame(GOES_ON, second), frame(ENDS, b"x")];
        autobahn.check(&format!("{family}.2"), &sum, &[Close(Some(1009))]);
    }
    let whole = request(LARGEST);
    for (case, size) in [("9.3.1", 64), ("9.3.2", 256), ("9.3.4", 4096), ("10.1.1", 1300)] {
        let count = whole.len().div_ceil(size);
        let frames = (0..count).zip(whole.chunks(size)).map(|(place, part)| match place {
            0 => frame(TEXT_BEGINS, part),
            _ if place + 1 == count => frame(ENDS, part),
            _ => frame(GOES_ON, part),
        });
        // As many fragments as there may be, and not one more.
        autobahn.check(case, frames, &[Answer(TEXT)]);
    }
    let endless = [frame(TEXT_BEGINS, b"")]
        .into_iter()
        .chain((0..1024).map(|_| frame(GOES_ON, b"")));
    autobahn.check("9.3 (endless)", endless, &[Close(Some(1009))]);
    let many: Vec<_> = (0..100).map(|_| frame(BINARY, &request(300))).collect();
    autobahn.check("9.8", &many, &vec![Answer(BINARY); 100]);
    // RFC 6455 section 5.1: the one thing that Autobahn cannot do wrong.
    autobahn.check("not masked", [b"\x89\x00"], &[Close(Some(1002))]);
}

struct Autobahn {
    scene: Scene,
}

impl Autobahn {
    fn new() -> Self {
        Self { scene: Scene::new() }
    }

    /// Sends pieces one by one on a WebSocket of its own and compares what the edge says. Where that is no goodbye, the
    /// WebSocket must go on living.
    #[track_caller]
    fn check(&self, case: &str, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>, expected: &[Said]) {
        let handshake = self
            .scene
            .telephone(100, "/wssip")
            .with("Sec-WebSocket-Protocol", "sip");
        let mut socket = handshake.open().expect("a WebSocket");
        for piece in pieces {
            // The edge may have closed already, which shows in what it said.
            if socket.try_send_raw(piece.as_ref()).is_err() {
                break;
            }
        }
        let heard: Vec<Said> = expected.iter().map_while(|_| said(&mut socket)).collect();
        assert_eq!(heard, expected, "case {case}");
        if matches!(heard.last(), Some(Close(_))) {
            assert_eq!(socket.frame(), None, "case {case}: the connection ends");
            return;
        }
        socket.send_raw(&frame(PING, b"alive"));
        assert_eq!(said(&mut socket), Some(Pong(b"alive".into())), "case {case}");
    }
}

fn said(socket: &mut WebSocketClient) -> Option<Said> {
    let Frame { first, payload } = socket.frame()?;
    Some(match first {
        PONG => Pong(payload),
        CLOSE => Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        kind => {
            assert!(
                payload.starts_with(b"SIP/2.0 200 "),
                "{}",
                String::from_utf8_lossy(&payload)
            );
            Answer(kind)
        }
    })
}

/// A request of this length that the edge answers itself (RFC 3261 section 16.3).
fn request(length: usize) -> Vec<u8> {
    let id = word();
    let head = |body: usize| {
        format!(
            "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/WSS a.invalid;branch=z9hG4bK{id}\r\nMax-Forwards: 0\r\n\
             From: <sip:a@b>;tag=f\r\nTo: <sip:x>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: {body:5}\r\n\r\n"
        )
    };
    let body = length - head(0).len();
    [head(body).as_bytes(), &b"x".repeat(body)].concat()
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A frame as a client sends it (RFC 6455 section 5.2), with any first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0xfe);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let key = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
