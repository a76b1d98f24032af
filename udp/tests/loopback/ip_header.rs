//! Does the poller carry what IP headers say, and what ICMP messages say? Raw sockets look, where they are allowed.

use std::{
    fs,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use edgeward_core::action::{Egress, Icmp, IoKind, IpFields, Prefix, Source};
use edgeward_udp::{Event, Options, Poller, bind_shared};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{CLIENTS, PATIENCE, any, drive, failed, relay, take};

/// Expedited forwarding (RFC 3246), ECT(0), and both with CE.
const CLASSES: [u8; 4] = [0, 0xb8, 0x02, 0xbb];

#[test]
fn dscp_and_ecn_come_in_and_go_out() -> io::Result<()> {
    for host in [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let Ok(client) = UdpSocket::bind((host, 0)) else {
            // There are systems without IPv6.
            continue;
        };
        let mut poller = Poller::new(Options::default())?;
        let listener = bind_shared((host, 0).into())?;
        let to = listener.local_addr()?;
        poller.add(CLIENTS, listener)?;
        let end = poller.bind(relay(0, 0), (host, 0).into()).map_err(failed)?;
        for class in CLASSES {
            let options = SockRef::from(&client);
            match host {
                IpAddr::V4(_) => options.set_tos_v4(class.into())?,
                IpAddr::V6(_) => options.set_tclass_v6(class.into())?,
            }
            client.send_to(b"marked", to)?;
        }
        // Each goes to another socket of the poller, which looks at it a second time.
        let mut seen = [vec![], vec![]];
        drive(
            &mut poller,
            |event, egress| {
                let Event::Datagrams { socket, runs } = event else {
                    panic!("{event:?}")
                };
                let is_end = socket != CLIENTS;
                for (index, run) in (0..).zip(runs) {
                    for range in run.segments() {
                        seen[usize::from(is_end)].push(run.fields.traffic_class);
                        if !is_end {
                            egress.push_with(run.fields, socket, end, None, Prefix::NONE, Source::Run(index, range));
                        }
                    }
                }
            },
            |counters| counters.received == 8,
        )?;
        assert_eq!(seen, [CLASSES, CLASSES], "{host}");
    }
    Ok(())
}

#[test]
fn df_is_set_where_it_is_asked_for_and_nothing_else_changes() -> io::Result<()> {
    let Some(mut witness) = raw(Protocol::UDP)? else {
        return Ok(());
    };
    let ttl: u8 = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    let mut poller = Poller::new(Options::default())?;
    poller.bind(relay(0, 0), any()).map_err(failed)?;
    let peer = UdpSocket::bind(any())?;
    let mut egress = Egress::default();
    egress.made.resize(5, b'x');
    let wanted = [false, true, true, false, true].map(|dont_fragment| IpFields {
        traffic_class: 0x28,
        dont_fragment,
    });
    for (len, fields) in (1..).zip(wanted) {
        // Each is longer than the one before, so that none of them join.
        let payload = Source::Made(0..len);
        egress.push_with(fields, relay(0, 0), peer.local_addr()?, None, Prefix::NONE, payload);
    }
    poller.send(&mut egress);
    assert_eq!(poller.counters().sent, 5);
    let mut packet = [0; 100];
    for fields in wanted {
        let packet = loop {
            let len = witness.read(&mut packet)?;
            if packet[22..24] == peer.local_addr()?.port().to_be_bytes() {
                break &packet[..len];
            }
        };
        let dont_fragment = packet[6] & 0x40 != 0;
        let (seen, seen_ttl) = (
            IpFields {
                traffic_class: packet[1],
                dont_fragment,
            },
            packet[8],
        );
        assert_eq!((seen, seen_ttl), (fields, ttl));
    }
    Ok(())
}

#[test]
fn what_the_first_link_does_not_take_whole_is_reported_once() -> io::Result<()> {
    let Ok(peer) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return Ok(());
    };
    peer.set_read_timeout(Some(PATIENCE))?;
    let to = peer.local_addr()?;
    let mut poller = Poller::new(Options::default())?;
    let at = poller
        .bind(relay(0, 0), (Ipv6Addr::LOCALHOST, 0).into())
        .map_err(failed)?;
    // The loopback interface takes 65,536 bytes, 48 of which are headers.
    send(&mut poller, to, 65_500, true);
    assert_eq!(poller.counters().dropped_refused, 1);
    let icmp = Icmp {
        kind: 2,
        code: 0,
        mtu: 65_536,
    };
    assert_eq!(reports(&mut poller, 1)?, [(to, IoKind::MessageSize, Some(icmp))]);
    send(&mut poller, to, 1000, true);
    send(&mut poller, to, 65_500, false);
    for len in [1000, 65_500] {
        assert_eq!(take(&peer)?, (vec![7; len], at));
    }
    assert_eq!(poller.counters().errors, 1);
    Ok(())
}

#[test]
fn icmp_messages_are_reported_as_they_came() -> io::Result<()> {
    let Some(router) = raw(Protocol::ICMPV4)? else {
        return Ok(());
    };
    // What the kernel learns of a path it keeps for minutes: nobody else uses this one.
    let host = Ipv4Addr::from(0x7f40_0000 | std::process::id() & 0x003f_ffff);
    let peer = UdpSocket::bind((host, 0))?;
    let to = peer.local_addr()?;
    let mut poller = Poller::new(Options::default())?;
    let at = poller.bind(relay(0, 0), any()).map_err(failed)?;
    // "Fragmentation needed" is told after a datagram of the other kind as well, and costs that one nothing.
    let cases = [
        (true, 3, 4, 1400, IoKind::MessageSize),
        (false, 3, 4, 1400, IoKind::MessageSize),
        (false, 3, 1, 0, IoKind::Unreachable),
        (false, 3, 13, 0, IoKind::Unreachable),
        (false, 11, 0, 0, IoKind::Unreachable),
    ];
    for (dont_fragment, kind, code, mtu, expected) in cases {
        send(&mut poller, to, 10, dont_fragment);
        assert_eq!(take_from(&peer)?, (10, at));
        router.send_to(&icmp(kind, code, mtu, at, to), &SocketAddr::from((at.ip(), 0)).into())?;
        let icmp = Icmp {
            kind,
            code,
            mtu: mtu.into(),
        };
        assert_eq!(reports(&mut poller, 1)?, [(to, expected, Some(icmp))]);
    }
    // The path is known to be narrow now, so the kernel itself is the router. It does not tell the port.
    let host = SocketAddr::from((host, 0));
    send(&mut poller, to, 1400, true);
    let icmp = Icmp {
        kind: 3,
        code: 4,
        mtu: 1400,
    };
    assert_eq!(reports(&mut poller, 1)?, [(host, IoKind::MessageSize, Some(icmp))]);
    send(&mut poller, to, 1400, false);
    assert_eq!(take_from(&peer)?, (1400, at));
    Ok(())
}

/// Sends one datagram from the relay.
fn send(poller: &mut Poller, to: SocketAddr, len: usize, dont_fragment: bool) {
    let fields = IpFields {
        traffic_class: 0,
        dont_fragment,
    };
    let mut egress = Egress::default();
    egress.made.resize(len, 7);
    egress.push_with(fields, relay(0, 0), to, None, Prefix::NONE, Source::Made(0..len));
    poller.send(&mut egress);
}

/// The next so many reports.
fn reports(poller: &mut Poller, count: u64) -> io::Result<Vec<(SocketAddr, IoKind, Option<Icmp>)>> {
    let mut reports = Vec::new();
    let before = poller.counters().errors;
    drive(
        poller,
        |event, _| match event {
            Event::Error {
                socket,
                peer,
                kind,
                icmp,
            } => {
                assert_eq!(socket, relay(0, 0));
                reports.push((peer, kind, icmp));
            }
            Event::Datagrams { .. } => panic!("nobody answered"),
        },
        |counters| counters.errors >= before + count,
    )?;
    Ok(reports)
}

fn take_from(socket: &UdpSocket) -> io::Result<(usize, SocketAddr)> {
    socket.set_read_timeout(Some(PATIENCE))?;
    take(socket).map(|(bytes, from)| (bytes.len(), from))
}

/// A socket that sees IP headers; says so and is none where that is not allowed.
fn raw(protocol: Protocol) -> io::Result<Option<Socket>> {
    match Socket::new(Domain::IPV4, Type::RAW, Some(protocol)) {
        Ok(socket) => {
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Some(socket))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("SKIPPED: a raw socket takes CAP_NET_RAW");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// An ICMP message about a UDP datagram from `source` to `destination`.
// RFC 792: type, code, checksum, two unused bytes, MTU (RFC 1191), then the IP header and eight bytes of what it had.
fn icmp(kind: u8, code: u8, mtu: u16, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("{address} is not of IPv4"),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend([0x45, 0, 0, 38, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    message.extend(octets(source));
    message.extend(octets(destination));
    for field in [source.port(), destination.port(), 18, 0] {
        message.extend(field.to_be_bytes());
    }
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}
