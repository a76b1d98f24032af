//! Does the poller carry datagrams as it promises? Real sockets, on the loopback interface only.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use edgeward_core::{
    action::{BindError, Egress, Icmp, IoKind, Prefix, RelayId, SocketId, Source},
    slab::Key,
};
use edgeward_udp::{Buffers, Counters, Event, Options, Poller, Turn, bind_shared};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};

#[path = "loopback/ip_header.rs"]
mod ip_header;

const CLIENTS: SocketId = SocketId::Turn(0);

#[test]
fn echoes_in_order_to_each_sender() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let listener = bind_shared(any())?;
    let to = listener.local_addr()?;
    poller.add(CLIENTS, listener)?;
    let clients = [client()?, client()?];
    // More than fit one batch or one arena.
    for n in 0..200_u8 {
        for client in &clients {
            client.send_to(&[n; 20], to)?;
        }
    }
    drive(&mut poller, echo, |counters| counters.received == 400)?;
    for client in &clients {
        for n in 0..200_u8 {
            assert_eq!(take(client)?, ([b"head".as_slice(), &[n; 20]].concat(), to));
        }
    }
    assert_eq!(poller.counters().received, 400);
    assert_eq!(poller.counters().sent, 400);
    Ok(())
}

#[test]
fn relays_between_clients_and_peers() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let listener = bind_shared(any())?;
    let to = listener.local_addr()?;
    poller.add(CLIENTS, listener)?;
    let relay = relay(0, 0);
    let relayed = poller.bind(relay, any()).map_err(failed)?;
    let (client, peer) = (client()?, client()?);
    let (client_address, peer_address) = (client.local_addr()?, peer.local_addr()?);
    let mut pass = |event: Event<'_>, egress: &mut Egress| {
        let Event::Datagrams { socket, runs } = event else {
            panic!("{event:?}")
        };
        for (index, run) in runs.iter().enumerate() {
            for range in run.segments() {
                match socket {
                    CLIENTS => egress.push(
                        relay,
                        peer_address,
                        None,
                        Prefix::NONE,
                        Source::Run(index as u32, range.start + 4..range.end),
                    ),
                    _ => egress.push(
                        CLIENTS,
                        client_address,
                        None,
                        Prefix::four(*b"chan"),
                        Source::Run(index as u32, range),
                    ),
                }
            }
        }
    };
    client.send_to(b"chanpayload", to)?;
    drive(&mut poller, &mut pass, |counters| counters.sent == 1)?;
    assert_eq!(take(&peer)?, (b"payload".to_vec(), relayed));
    peer.send_to(b"answer", relayed)?;
    drive(&mut poller, &mut pass, |counters| counters.sent == 2)?;
    assert_eq!(take(&client)?, (b"chananswer".to_vec(), to));
    Ok(())
}

#[test]
fn a_merged_train_comes_and_goes_as_one() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let listener = bind_shared(any())?;
    let to = listener.local_addr()?;
    poller.add(CLIENTS, listener)?;
    let client = client()?;
    let train: Vec<u8> = (0..8_u8).flat_map(|n| [n; 1000]).chain([8; 300]).collect();
    send_train(&client, to, &train, 1000)?;
    let mut shapes = Vec::new();
    drive(
        &mut poller,
        |event, egress| {
            if let Event::Datagrams { runs, .. } = &event {
                shapes.extend(runs.iter().map(|run| (run.stride, run.bytes.len())));
            }
            echo(event, egress);
        },
        |counters| counters.received == 9,
    )?;
    assert_eq!(shapes, [(1000, 8300)]);
    assert_eq!(poller.counters().send_calls, 1);
    // The sender has `UDP_GRO` on as well, and sees that the train was not taken apart.
    let heads: Vec<u8> = train
        .chunks(1000)
        .flat_map(|datagram| [b"head", datagram].concat())
        .collect();
    assert!(take(&client)?.0 == heads);
    Ok(())
}

#[test]
fn the_largest_datagram_passes_and_so_does_an_empty_one() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let sip = bind_shared(any())?;
    let to = sip.local_addr()?;
    poller.add(SocketId::Sip, sip)?;
    let client = client()?;
    for len in [65_507 - 4, 0, 1] {
        client.send_to(&vec![7; len], to)?;
        let sent = poller.counters().sent;
        drive(&mut poller, echo, |counters| counters.sent > sent)?;
        assert_eq!(take(&client)?.0.len(), len + 4);
    }
    let mut egress = Egress::default();
    push_made(&mut egress, SocketId::Sip, client.local_addr()?, b"");
    poller.send(&mut egress);
    assert_eq!(take(&client)?, (Vec::new(), to));
    Ok(())
}

#[test]
fn answers_leave_from_the_address_that_was_asked() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let listener = bind_shared((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let port = listener.local_addr()?.port();
    poller.add(CLIENTS, listener)?;
    let client = client()?;
    for n in 1..4 {
        let to = SocketAddr::from(([127, 0, 0, n], port));
        client.send_to(b"who?", to)?;
        drive(&mut poller, echo, |counters| counters.sent == u64::from(n))?;
        assert_eq!(take(&client)?.1, to);
    }
    Ok(())
}

#[test]
fn ipv6_is_no_different() -> io::Result<()> {
    let Ok(client) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
        // There are systems without.
        return Ok(());
    };
    let mut poller = Poller::new(Options::default())?;
    let listener = bind_shared((Ipv6Addr::UNSPECIFIED, 0).into())?;
    let to = SocketAddr::from((Ipv6Addr::LOCALHOST, listener.local_addr()?.port()));
    poller.add(CLIENTS, listener)?;
    let mut locals = Vec::new();
    client.send_to(b"six", to)?;
    drive(
        &mut poller,
        |event, egress| {
            if let Event::Datagrams { runs, .. } = &event {
                locals.extend(runs.iter().map(|run| run.local));
            }
            echo(event, egress);
        },
        |counters| counters.sent == 1,
    )?;
    assert_eq!(locals, [Some(Ipv6Addr::LOCALHOST.into())]);
    assert_eq!(take(&client)?, (b"headsix".to_vec(), to));
    Ok(())
}

#[test]
fn what_nobody_took_in_time_is_counted() -> io::Result<()> {
    let small = Buffers {
        receive_bytes: 8192,
        send_bytes: 8192,
    };
    let mut poller = Poller::new(Options {
        relay: small,
        ..Options::default()
    })?;
    let at = poller.bind(relay(0, 0), any()).map_err(failed)?;
    let peer = client()?;
    for _ in 0..200 {
        peer.send_to(&[0; 1000], at)?;
    }
    let taken = |counters: Counters| counters.received > 0;
    drive(&mut poller, |_, _| {}, taken)?;
    // The kernel tells with the next one.
    peer.send_to(b"next", at)?;
    let all = |counters: Counters| counters.received + counters.dropped_unread == 201;
    drive(&mut poller, |_, _| {}, all)?;
    assert!(poller.counters().dropped_unread > 0);
    Ok(())
}

#[test]
fn a_turn_has_an_end() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let listener = bind_shared(any())?;
    let to = listener.local_addr()?;
    poller.add(CLIENTS, listener)?;
    let client = client()?;
    for _ in 0..1000 {
        client.send_to(b"x", to)?;
    }
    let mut taken = 0;
    let deadline = Instant::now() + PATIENCE;
    while taken < 1000 && Instant::now() < deadline {
        let _ = poller.turn(|_, _, _| {})?;
        let received = poller.counters().received;
        assert!(received - taken < 300);
        taken = received;
    }
    assert_eq!(taken, 1000);
    Ok(())
}

#[test]
fn a_relay_has_its_port_alone() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let at = poller.bind(relay(0, 0), any()).map_err(failed)?;
    assert_eq!(poller.bind(relay(1, 0), at), Err(BindError::InUse));
    let taken = bind_shared(any())?.local_addr()?;
    assert_ne!(at.port(), taken.port());
    let nowhere = SocketAddr::from(([203, 0, 113, 1], 0));
    assert_eq!(poller.bind(relay(1, 0), nowhere), Err(BindError::Failed));
    poller.remove(relay(0, 0));
    assert_eq!(poller.bind(relay(1, 0), at), Ok(at));
    Ok(())
}

#[test]
fn an_old_relay_is_nobody() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let (old, new) = (relay(0, 0), relay(0, 1));
    poller.bind(old, any()).map_err(failed)?;
    poller.remove(old);
    let at = poller.bind(new, any()).map_err(failed)?;
    poller.remove(old);
    let peer = client()?;
    let mut egress = Egress::default();
    for id in [old, new] {
        push_made(&mut egress, id, peer.local_addr()?, b"made");
    }
    poller.send(&mut egress);
    assert!(egress.is_empty());
    assert_eq!(take(&peer)?, (b"made".to_vec(), at));
    assert_eq!((poller.counters().sent, poller.counters().dropped_closed), (1, 1));
    Ok(())
}

#[test]
fn busy_sockets_take_turns() -> io::Result<()> {
    let mut poller = Poller::new(Options::default())?;
    let ids = [relay(0, 0), relay(1, 0)];
    let peer = client()?;
    for id in ids {
        let at = poller.bind(id, any()).map_err(failed)?;
        for _ in 0..100 {
            peer.send_to(b"x", at)?;
        }
    }
    let mut served = Vec::new();
    drive(
        &mut poller,
        |event, _| {
            if let Event::Datagrams { socket, .. } = event {
                served.push(socket);
            }
        },
        |counters| counters.received == 200,
    )?;
    assert!(served.len() > 10);
    for pair in served[..served.len() - 1].chunks_exact(2) {
        assert_ne!(pair[0], pair[1]);
    }
    Ok(())
}

#[test]
fn a_closed_peer_is_reported() -> io::Result<()> {
    // RFC 792 and RFC 4443: the port is unreachable.
    for (host, kind, code) in [
        (Ipv4Addr::LOCALHOST.into(), 3, 3),
        (IpAddr::from(Ipv6Addr::LOCALHOST), 1, 4),
    ] {
        let Ok(gone) = UdpSocket::bind((host, 0)).and_then(|gone| gone.local_addr()) else {
            // There are systems without IPv6.
            continue;
        };
        let mut poller = Poller::new(Options::default())?;
        let id = relay(0, 0);
        let at = poller.bind(id, (host, 0).into()).map_err(failed)?;
        let there = UdpSocket::bind((host, 0))?;
        there.set_read_timeout(Some(PATIENCE))?;
        let mut egress = Egress::default();
        // The report of the first one must cost no other datagram.
        for peer in [gone, there.local_addr()?] {
            push_made(&mut egress, id, peer, b"anybody?");
            poller.send(&mut egress);
        }
        assert_eq!(take(&there)?, (b"anybody?".to_vec(), at));
        let mut reports = Vec::new();
        drive(
            &mut poller,
            |event, _| match event {
                Event::Error {
                    socket,
                    peer,
                    kind,
                    icmp,
                } => reports.push((socket, peer, kind, icmp)),
                Event::Datagrams { .. } => panic!("nobody answered"),
            },
            |counters| counters.errors == 1,
        )?;
        let icmp = Icmp { kind, code, mtu: 0 };
        assert_eq!(reports, [(id, gone, IoKind::Refused, Some(icmp))]);
    }
    Ok(())
}

/// Takes turns until `done`, each time the poller is readable, through a poll set of its own as a runtime would.
fn drive(
    poller: &mut Poller,
    mut handle: impl FnMut(Event<'_>, &mut Egress),
    mut done: impl FnMut(Counters) -> bool,
) -> io::Result<()> {
    let mut outer = Poll::new()?;
    let mut events = Events::with_capacity(1);
    outer
        .registry()
        .register(&mut SourceFd(&poller.as_raw_fd()), Token(0), Interest::READABLE)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        outer.poll(&mut events, Some(PATIENCE))?;
        while poller.turn(|_, event, egress| handle(event, egress))? == Turn::More {}
        if done(poller.counters()) {
            return Ok(());
        }
    }
    panic!("nothing came: {:?}", poller.counters());
}

/// Sends all datagrams back, each with four bytes in front.
fn echo(event: Event<'_>, egress: &mut Egress) {
    let Event::Datagrams { socket, runs } = event else {
        panic!("{event:?}")
    };
    for (index, run) in runs.iter().enumerate() {
        for range in run.segments() {
            let payload = Source::Run(index as u32, range);
            egress.push(socket, run.peer, run.local, Prefix::four(*b"head"), payload);
        }
    }
}

fn push_made(egress: &mut Egress, id: SocketId, peer: SocketAddr, bytes: &[u8]) {
    let start = egress.made.len();
    egress.made.extend_from_slice(bytes);
    let range = start..egress.made.len();
    egress.push(id, peer, None, Prefix::NONE, Source::Made(range));
}

fn send_train(from: &UdpSocket, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
    let train = quinn_udp::Transmit {
        destination: to,
        ecn: None,
        contents,
        segment_size: Some(segment),
        src_ip: None,
    };
    quinn_udp::UdpSocketState::new(from.into())?.try_send(from.into(), &train)?;
    from.set_nonblocking(false)
}

fn take(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut bytes = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut bytes)?;
    bytes.truncate(len);
    Ok((bytes, from))
}

fn client() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn relay(index: u32, generation: u32) -> SocketId {
    SocketId::Relay(RelayId(Key::from_parts(index, generation)))
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn failed(error: BindError) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// How long a test waits for what must happen at once.
const PATIENCE: Duration = Duration::from_secs(10);
