//! What is not ours to change comes out as it went in; and nothing that comes in breaks the bridge.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof, proptest},
    sample::Index,
};

use super::{
    calls::{invite, trunk_in_dialog, trunk_invite},
    torture::foreign,
    *,
};

/// A field that we know nothing of.
fn unknown() -> impl Strategy<Value = String> {
    let name = "[A-Za-z!%*_+`'~-][A-Za-z0-9.!%*_+`'~-]{0,20}";
    let value = vec(
        prop_oneof![
            "[ -~]{0,30}",
            Just("\r\n ".to_owned()),
            Just("\t".to_owned()),
            Just("\u{a0}\u{e9}\u{4e16}".to_owned()),
            Just("\"<sip:a@b;lr>,\" ;;,".to_owned()),
        ],
        0..5,
    );
    (name, "[ \t]{0,2}", value)
        .prop_map(|(name, space, value)| format!("X{name}{space}:{}\r\n", value.concat()))
        .prop_filter("an Asterisk's own is taken out", |field| {
            !field.to_ascii_lowercase().starts_with("x-asterisk-")
        })
}

/// Fields put in at random places of a message, and a body of any bytes at its end.
fn messages() -> impl Strategy<Value = (Vec<(Index, String)>, Vec<u8>)> {
    (vec((any::<Index>(), unknown()), 0..12), vec(any::<u8>(), 0..60))
}

fn mix(message: &str, (unknown, body): (Vec<(Index, String)>, Vec<u8>)) -> Vec<u8> {
    let (head, _) = message.split_once("\r\n\r\n").expect("a header");
    let mut lines: Vec<String> = head
        .split("\r\n")
        .filter(|line| !line.starts_with("Content-Length"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    for (place, field) in unknown {
        let at = 1 + place.index(lines.len());
        lines.insert(at, field);
    }
    [lines.concat().as_bytes(), b"\r\n", &body].concat()
}

proptest! {
    #[test]
    fn foreign_fields_and_bodies_pass_unchanged(up in messages(), down in messages(), answer in messages()) {
        let mut world = World::new(Reach::Path);
        let flow = world.open(1);
        let path = fields(&world.register(flow, "x1@a.invalid"), "Path")[0].to_owned();

        let message = mix(&invite("z9hG4bKi1").replace("P-Asserted-Identity", "Subject"), up);
        let sent = world.bytes(|bridge, cx| bridge.from_flow(cx, flow, &message));
        assert_eq!(foreign(&sent[0]), foreign(&message));
        let length = format!("Content-Length: {}\r\n\r\n", message.len() - position(&message, b"\r\n\r\n") - 4);
        assert!(position(&sent[0], length.as_bytes()) + length.len() == position(&sent[0], b"\r\n\r\n") + 4);

        let forwarded = String::from_utf8_lossy(&sent[0]).into_owned();
        let message = mix(&reply(&forwarded, "200 OK", ""), answer);
        let sent = world.bytes(|bridge, cx| bridge.from_trunk(cx, mediaserver(0), &message));
        assert_eq!(foreign(&sent[0]), foreign(&message));

        let message = mix(&trunk_invite(&path, "z9hG4bKm1"), down);
        let sent = world.bytes(|bridge, cx| bridge.from_trunk(cx, mediaserver(0), &message));
        assert_eq!(foreign(&sent[1]), foreign(&message));
    }

    #[test]
    fn nothing_breaks_it(steps in vec((0u8..12, any::<Index>(), any::<Index>(), vec(any::<u8>(), 0..6)), 0..60)) {
        let mut world = World::new(Reach::Contact);
        let mut flows = vec![world.open(1)];
        let mut known = vec![
            invite("z9hG4bKi1"),
            invite("z9hG4bKi1").replace("INVITE", "CANCEL"),
            register("x1@df7jal23ls0d.invalid", "60"),
            register("x1@df7jal23ls0d.invalid", "0"),
            trunk_invite("<sip:10.0.0.1;lr>", "z9hG4bKm1"),
        ];
        for (step, which, place, bytes) in steps {
            let flow = flows[which.index(flows.len())];
            let text = known[which.index(known.len())].clone();
            let sent = match step {
                0 => {
                    flows.push(world.open(flows.len() as u32 + 1));
                    Vec::new()
                }
                1 => world.call(|bridge, cx| bridge.close(cx, flow)).1,
                2 => world.call(|bridge, cx| bridge.lost(cx, flow)).1,
                3 => world.wait(Duration::from_millis(place.index(40_000) as u64)).into_iter().map(|(_, sent)| sent).collect(),
                4 => world.call(|bridge, cx| bridge.trunk_error(cx, mediaserver(0), crate::action::IoKind::Refused)).1,
                5 | 6 => world.browser(flow, &text),
                7 => world.trunk(&text),
                8 => world.browser(flow, &reply(&text, "200 OK", "")),
                9 => world.trunk(&reply(&text, ["100 Trying", "180 Ringing", "200 OK", "487 No"][place.index(4)], "")),
                10 => world.trunk(&trunk_in_dialog("BYE", 2, "z9hG4bKb1", &text)),
                _ => {
                    let mut text = text.into_bytes();
                    let at = place.index(text.len());
                    let end = (at + bytes.len()).min(text.len());
                    text.splice(at..end, bytes);
                    world.bytes(|bridge, cx| bridge.from_flow(cx, flow, &text));
                    world.bytes(|bridge, cx| bridge.from_trunk(cx, mediaserver(0), &text));
                    world.bridge.home(world.now, mediaserver(0), &text);
                    Vec::new()
                }
            };
            for sent in sent {
                if let Sent::Browser(_, text) | Sent::Trunk(_, text) = sent && known.len() < 30 && text.contains("Via: ") {
                    known.push(text);
                }
            }
        }
        // Everything ends at some time, if the browsers leave.
        for flow in flows {
            world.call(|bridge, cx| bridge.close(cx, flow));
        }
        world.wait(Duration::from_secs(1000));
        assert_eq!((world.bridge.transactions(), world.bridge.flows()), (0, 0));
    }
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes
        .windows(part.len())
        .position(|window| window == part)
        .expect("it is in there")
}
