//! Is what was written read as it was, and what was not written refused?

use proptest::prelude::*;

use super::*;

fn addresses() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..64)
}

fn kinds() -> impl Strategy<Value = Io> {
    prop::sample::select(vec![
        Io::Refused,
        Io::Unreachable,
        Io::TimedOut,
        Io::Reset,
        Io::MessageSize,
        Io::Other,
    ])
}

fn sockets() -> impl Strategy<Value = Socket> {
    prop_oneof![
        any::<u16>().prop_map(Socket::Turn),
        Just(Socket::Sip),
        any::<Id>().prop_map(Socket::Relay)
    ]
}

fn trains() -> impl Strategy<Value = Train> {
    let fields = (
        addresses(),
        any::<Option<IpAddr>>(),
        any::<u8>(),
        any::<bool>(),
        any::<u32>(),
        bytes(),
    );
    fields.prop_map(|(peer, local, traffic_class, dont_fragment, stride, bytes)| Train {
        peer,
        local,
        traffic_class,
        dont_fragment,
        stride,
        bytes,
    })
}

fn heard() -> impl Strategy<Value = Heard> {
    let flags = any::<[bool; 4]>();
    let agreed = (any::<Option<Vec<u8>>>(), any::<u8>(), any::<Option<(bool, String)>>());
    (bytes(), any::<u32>(), flags, agreed).prop_map(|(plain, answer_len, flags, (alpn, record_overhead, error))| {
        let [is_ready, is_peer_closed, is_failed, has_given_tickets] = flags;
        Heard {
            plain,
            answer_len,
            is_ready,
            is_peer_closed,
            is_failed,
            alpn,
            record_overhead,
            has_given_tickets,
            error,
        }
    })
}

fn events() -> impl Strategy<Value = Event> {
    let bound = prop_oneof![
        addresses().prop_map(Ok),
        Just(Err(Bind::InUse)),
        Just(Err(Bind::Failed))
    ];
    let dialed = prop_oneof![(addresses(), addresses()).prop_map(Ok), kinds().prop_map(Err)];
    prop_oneof![
        any::<(u16, [u8; 32])>().prop_map(|(shards, seed)| Event::Start { shards, seed }),
        (any::<u16>(), addresses(), addresses()).prop_map(|(on, local, peer)| Event::Accept { on, local, peer }),
        (any::<Id>(), addresses(), addresses()).prop_map(|(on, local, peer)| Event::AcceptPeer { on, local, peer }),
        (addresses(), addresses()).prop_map(|(local, peer)| Event::Adopt { local, peer }),
        any::<Id>().prop_map(Event::Resume),
        (any::<Id>(), bytes()).prop_map(|(conn, bytes)| Event::Receive { conn, bytes }),
        (sockets(), prop::collection::vec(trains(), 0..4)).prop_map(|(on, runs)| Event::Datagrams { on, runs }),
        any::<Id>().prop_map(Event::Eof),
        (any::<Id>(), kinds()).prop_map(|(conn, kind)| Event::Failed(conn, kind)),
        (any::<Id>(), dialed).prop_map(|(conn, result)| Event::Dialed(conn, result)),
        (any::<Id>(), any::<Vec<IpAddr>>()).prop_map(|(query, found)| Event::Resolved(query, found)),
        (any::<Id>(), bound).prop_map(|(relay, result)| Event::RelayBound(relay, result)),
        (sockets(), addresses(), kinds(), any::<Option<(u8, u8, u32)>>())
            .prop_map(|(on, peer, kind, icmp)| Event::SocketError { on, peer, kind, icmp }),
        any::<u32>().prop_map(Event::Parcel),
        any::<u64>().prop_map(Event::Drain),
        prop::sample::select(vec![Event::Timeout, Event::Configure, Event::End]),
    ]
}

prop_compose! {
    fn happenings()(
        numbers in any::<(u16, u64, u64, u32, u32)>(),
        event in events(),
        heard in prop::collection::vec(heard(), 0..3),
    ) -> Happened {
        let (shard, mono, unix, polled, digest) = numbers;
        Happened { shard, mono, unix, polled, digest, event, heard }
    }
}

fn recording(entries: &[Entry]) -> Vec<u8> {
    let encoded = entries.iter().map(Entry::encode);
    [title().into_bytes()]
        .into_iter()
        .chain(encoded)
        .collect::<Vec<_>>()
        .concat()
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(entry);
    }
    Ok(entries)
}

proptest! {
    #[test]
    fn what_was_written_is_read(happenings in prop::collection::vec(happenings(), 0..4)) {
        let happened = happenings.into_iter().map(|happened| Entry::Happened(Box::new(happened)));
        let entries: Vec<Entry> = happened.chain([Entry::End(End::Stopped)]).collect();
        prop_assert_eq!(read(&recording(&entries)).expect("a recording"), entries);
    }

    /// An input of the core is the same once it was written.
    #[test]
    fn an_event_that_makes_an_input_is_made_of_it(event in events()) {
        if let Some(input) = event.input() {
            prop_assert_eq!(Event::of(&input, |_| 0), event);
        }
    }

    #[test]
    fn a_changed_bit_is_found(happened in happenings(), place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = recording(&[Entry::Happened(Box::new(happened)), Entry::End(End::Full)]);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn a_part_is_no_whole(happened in happenings(), place in any::<prop::sample::Index>()) {
        let bytes = recording(&[Entry::Happened(Box::new(happened)), Entry::End(End::Slow)]);
        let end = title().len() + place.index(bytes.len() - title().len());
        prop_assert!(matches!(read(&bytes[..end]), Err(ReadError::Cut)));
    }
}

#[test]
fn another_file_is_told_from_another_format() {
    let check = |bytes: &[u8], expected: &str| {
        let error = read(bytes).expect_err("no recording").to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(b"", "this is no recording");
    check(&[0xff; 100], "this is no recording");
    check(TITLE.as_bytes(), "this is no recording");
    check(
        format!("{TITLE}2\n").as_bytes(),
        "this is a recording of format 2, and 1 is all",
    );
    check(title().as_bytes(), "the recording is cut off");
}
