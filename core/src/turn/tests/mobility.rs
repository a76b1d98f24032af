//! RFC 8016: an allocation follows its client, and only its client.

use proptest::prelude::*;

use super::*;

const HERE: &str = "198.51.100.7:40000";
const THERE: &str = "203.0.113.77:50000";
const ELSEWHERE: &str = "[2001:db8::7]:60000";
const PEER: &str = "10.0.0.5:10000";

fn lab() -> Lab {
    Lab::with(|turn| {
        turn.mobility = true;
        turn.limits.unauthenticated_per_second = 0;
    })
}

/// A client with an allocation that may move, and a channel to the peer.
struct Nomad {
    lab: Lab,
    relay: RelayId,
    ticket: Vec<u8>,
}

impl Nomad {
    fn new(mut lab: Lab, from: Client) -> Self {
        let login = lab.login(from, ALICE);
        let request = lab.allocate().raw(Kind::MOBILITY_TICKET, b"").signed(&login);
        assert_eq!(lab.client(from, &request), None);
        let [(relay, at)] = lab.binds()[..] else {
            panic!("one socket")
        };
        let reply = Reply::read(lab.bound(relay, Ok(at)).expect("an answer").bytes);
        let ticket = reply.value(Kind::MOBILITY_TICKET).expect("a ticket");
        assert_eq!(lab.bind(from, &login, 0x4000, PEER), 0);
        Self { lab, relay, ticket }
    }

    /// A Refresh request with this ticket.
    fn request(&mut self, from: Client, user: (&str, &str), ticket: &[u8], lifetime: u32) -> Vec<u8> {
        let login = self.lab.login(from, user);
        let draft = self.lab.draft(Method::REFRESH).lifetime(lifetime);
        draft.raw(Kind::MOBILITY_TICKET, ticket).signed(&login)
    }

    fn ask(&mut self, from: Client, user: (&str, &str), ticket: &[u8]) -> Reply {
        let request = self.request(from, user, ticket, 600);
        self.lab.ask(from, &request).expect("an answer")
    }

    /// Refreshes from another address.
    fn move_to(&mut self, from: Client) {
        let ticket = self.ticket.clone();
        let reply = self.ask(from, ALICE, &ticket);
        assert_eq!((reply.code(), reply.u32(Kind::LIFETIME)), (0, Some(600)));
        self.ticket = reply.value(Kind::MOBILITY_TICKET).expect("a ticket");
        assert_ne!(self.ticket, ticket, "a new ticket each time");
    }

    fn sends(&mut self, from: Client) -> bool {
        self.lab.channel(from, 0x4000, b"data").is_some()
    }

    /// Who gets what the peer sends.
    fn receiver(&mut self) -> To {
        self.lab.peer(self.relay, PEER, b"data").expect("a client").to
    }
}

fn to(client: Client) -> To {
    client.send(crate::action::Prefix::NONE, Payload::Made(0..0)).to
}

#[test]
fn the_old_address_is_good_until_data_comes_from_the_new_one() {
    let (here, there) = (datagrams(HERE), datagrams(THERE));
    let mut nomad = Nomad::new(lab(), here);
    nomad.move_to(there);
    assert_eq!(nomad.receiver(), to(here));
    assert!(nomad.sends(here));
    assert_eq!(nomad.receiver(), to(here));
    // A request is no data; both addresses may ask.
    for from in [here, there] {
        let login = nomad.lab.login(from, ALICE);
        assert_eq!(nomad.lab.permit(from, &login, &["203.0.113.1:4001"]), 0);
    }
    assert_eq!(nomad.receiver(), to(here));
    assert!(nomad.sends(there));
    assert_eq!(nomad.receiver(), to(there));
    assert!(!nomad.sends(here));
    let login = nomad.lab.login(here, ALICE);
    assert_eq!(nomad.lab.refresh(here, &login, 600), 437);
    assert_eq!(nomad.lab.server.allocations(), 1);
}

#[test]
fn a_send_indication_ends_a_move_too() {
    let (here, there) = (datagrams(HERE), datagrams(THERE));
    let mut nomad = Nomad::new(lab(), here);
    nomad.move_to(there);
    assert!(nomad.lab.send(there, PEER, b"data").is_some());
    assert_eq!(nomad.receiver(), to(there));
}

#[test]
fn a_move_may_go_on_and_back() {
    let (here, there, elsewhere) = (datagrams(HERE), datagrams(THERE), datagrams(ELSEWHERE));
    let mut nomad = Nomad::new(lab(), here);
    nomad.move_to(there);
    // Nothing was sent from there: that is forgotten, the first address is not.
    nomad.move_to(elsewhere);
    assert!(!nomad.sends(there));
    assert!(nomad.sends(here));
    assert!(nomad.sends(elsewhere));
    nomad.move_to(here);
    assert!(nomad.sends(here));
    assert_eq!(nomad.receiver(), to(here));
    nomad.lab.pass(601);
    nomad.lab.sweep();
    assert_eq!(nomad.lab.server.table_sizes(), [0; 8]);
}

#[test]
fn tickets_are_refused_for_what_is_wrong_with_them() {
    let (here, there) = (datagrams(HERE), datagrams(THERE));
    let mut nomad = Nomad::new(lab(), here);
    let ticket = nomad.ticket.clone();
    let mut damaged = ticket.clone();
    damaged[20] ^= 1;
    for (from, user, ticket, code) in [
        // RFC 8016 section 3.2.2: invalid; the same 5-tuple; another user; no such user.
        (there, ALICE, b"".as_slice(), 400),
        (there, ALICE, b"a ticket", 400),
        (there, ALICE, &damaged, 400),
        (here, ALICE, &ticket, 400),
        (there, BOB, &ticket, 441),
        (there, ("eve", "dropper"), &ticket, 401),
    ] {
        assert_eq!(nomad.ask(from, user, ticket).code(), code);
    }
    // The new address has an allocation of its own.
    let own = datagrams("203.0.113.77:50001");
    nomad.lab.allocation(own);
    assert_eq!(nomad.ask(own, ALICE, &ticket).code(), 437);
    assert_eq!(nomad.receiver(), to(here));
    // The allocation is gone; the next one has the same place.
    let login = nomad.lab.login(here, ALICE);
    assert_eq!(nomad.lab.refresh(here, &login, 0), 0);
    assert_eq!(nomad.ask(there, ALICE, &ticket).code(), 437);
    let mut next = Nomad::new(nomad.lab, here);
    assert_eq!(next.ask(there, ALICE, &ticket).code(), 437);
    next.move_to(there);
}

#[test]
fn a_ticket_is_given_to_who_asks_where_that_is_allowed() {
    let here = datagrams(HERE);
    let check = |is_on: bool, ticket: &[u8], code: u16| {
        let mut lab = Lab::with(|turn| turn.mobility = is_on);
        let login = lab.login(here, ALICE);
        let draft = lab.allocate().raw(Kind::MOBILITY_TICKET, ticket);
        assert_eq!(lab.code(here, &login, draft), code);
        assert_eq!(lab.server.allocations(), usize::from(code == 0));
    };
    // RFC 8016 section 3.1.2.
    check(true, b"", 0);
    check(true, b"x", 400);
    check(false, b"", 405);
    let mut lab = lab();
    let login = lab.login(here, ALICE);
    let request = lab.allocate().signed(&login);
    assert_eq!(
        lab.ask(here, &request).expect("an answer").value(Kind::MOBILITY_TICKET),
        None
    );

    // RFC 8016 section 3.2.2: forbidden by a new configuration.
    let mut nomad = Nomad::new(self::lab(), here);
    let server = &mut nomad.lab.server;
    server.configure(config(|turn| turn.mobility = false), &mut nomad.lab.rng);
    let ticket = nomad.ticket.clone();
    assert_eq!(nomad.ask(datagrams(THERE), ALICE, &ticket).code(), 405);
}

#[test]
fn an_old_ticket_is_good_only_for_a_retransmission() {
    let (here, there) = (datagrams(HERE), datagrams(THERE));
    let mut nomad = Nomad::new(lab(), here);
    let old = nomad.ticket.clone();
    let request = nomad.request(there, ALICE, &old, 600);
    let code = |nomad: &mut Nomad| nomad.lab.ask(there, &request).expect("an answer").code();
    assert_eq!(code(&mut nomad), 0);
    nomad.lab.pass(30);
    assert_eq!(code(&mut nomad), 0);
    assert_eq!(nomad.ask(datagrams(ELSEWHERE), ALICE, &old).code(), 437);
    assert!(nomad.sends(there));
    assert_eq!(code(&mut nomad), 0);
    nomad.lab.pass(10);
    assert_eq!(code(&mut nomad), 437);
    // The answer that came again has the ticket that is good.
    let mut nomad = Nomad::new(lab(), here);
    let old = nomad.ticket.clone();
    nomad.move_to(there);
    nomad.ticket = nomad
        .ask(there, ALICE, &old)
        .value(Kind::MOBILITY_TICKET)
        .expect("a ticket");
    nomad.move_to(datagrams(ELSEWHERE));
}

#[test]
fn a_client_changes_from_and_to_connections() {
    let (here, there) = (stream(1, HERE), stream(2, THERE));
    let conn = |client| match client {
        Client::Stream { conn, .. } => conn,
        Client::Datagram { .. } => panic!("a stream"),
    };
    // The end of the old connection ends the move.
    let mut nomad = Nomad::new(lab(), here);
    nomad.move_to(there);
    assert!(nomad.lab.server.has_allocation(conn(there)));
    nomad.lab.close(conn(here));
    assert_eq!(nomad.receiver(), to(there));
    // The end of the new one undoes it.
    let udp = datagrams(HERE);
    let mut nomad = Nomad::new(lab(), udp);
    nomad.move_to(there);
    nomad.lab.close(conn(there));
    assert_eq!(nomad.receiver(), to(udp));
    nomad.move_to(here);
    assert!(nomad.sends(here));
    // Whoever leaves one network before it is in the next one has its ticket.
    nomad.lab.close(conn(here));
    nomad.receiver();
    nomad.move_to(there);
    assert_eq!(nomad.receiver(), to(there));
    nomad.lab.close(conn(there));
    nomad.lab.pass(600);
    nomad.lab.sweep();
    assert_eq!(nomad.lab.server.table_sizes(), [0; 8]);
}

#[test]
fn a_ticket_may_end_the_allocation() {
    let mut nomad = Nomad::new(lab(), datagrams(HERE));
    let there = datagrams(THERE);
    let ticket = nomad.ticket.clone();
    let request = nomad.request(there, ALICE, &ticket, 0);
    let reply = nomad.lab.ask(there, &request).expect("an answer");
    assert_eq!((reply.code(), reply.u32(Kind::LIFETIME)), (0, Some(0)));
    assert_eq!(reply.value(Kind::MOBILITY_TICKET), None);
    assert_eq!(nomad.lab.server.allocations(), 0);
}

#[test]
fn credentials_that_expire_do_not_keep_a_client_where_it_is() {
    let name = format!("{}:carol", START.0 + 100);
    let password = {
        use base64::Engine as _;
        use hmac::{KeyInit as _, Mac as _};
        let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(name.as_bytes());
        base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
    };
    let carol = (name.as_str(), password.as_str());
    for (strict, code) in [(false, 0), (true, 401)] {
        let mut lab = Lab::with(|turn| (turn.mobility, turn.strict_expiry) = (true, strict));
        let here = datagrams(HERE);
        let login = lab.login(here, carol);
        let request = lab.allocate().raw(Kind::MOBILITY_TICKET, b"").signed(&login);
        let ticket = lab.ask(here, &request).expect("an answer").value(Kind::MOBILITY_TICKET);
        lab.pass(200);
        let there = datagrams(THERE);
        let login = lab.login(there, carol);
        let draft = lab.draft(Method::REFRESH);
        let draft = draft.raw(Kind::MOBILITY_TICKET, &ticket.expect("a ticket"));
        assert_eq!(lab.code(there, &login, draft.clone()), code);
        // The ticket of an allocation that has ended lets nobody in.
        lab.pass(3600);
        let login = lab.login(there, carol);
        assert_eq!(lab.code(there, &login, draft), 401);
    }
}

/// Two shards of one process; the second one has the allocation.
fn shards() -> (Lab, Nomad) {
    let config = config(|turn| {
        turn.mobility = true;
        turn.limits.allocations_per_user_max = 2;
    });
    let home = Lab::shard(config.clone(), 1, 2);
    (Lab::shard(config, 0, 2), Nomad::new(home, datagrams(HERE)))
}

#[test]
fn a_client_is_forwarded_to_the_shard_of_its_allocation() {
    let (mut first, mut nomad) = shards();
    let there = datagrams(THERE);
    let login = first.login(there, ALICE);
    let draft = first.draft(Method::REFRESH);
    let request = draft.raw(Kind::MOBILITY_TICKET, &nomad.ticket).signed(&login);
    let data = b"\x40\x00\x00\x04data";
    assert_eq!(first.client(there, data), None);
    let sent = first.client(there, &request).expect("a verdict");
    assert_eq!(sent.to, To::Shard(ShardId(1)));
    let mut home = |bytes: &[u8]| {
        let lab = &mut nomad.lab;
        lab.call(bytes, |server, cx| server.client_of_other_shard(cx, there, bytes))
    };
    let reply = Reply::read(home(&request).expect("an answer").bytes);
    assert_eq!(reply.code(), 0);
    // From now on all goes there.
    assert_eq!(
        first.client(there, data).map(|sent| sent.to),
        Some(To::Shard(ShardId(1)))
    );
    assert!(home(data).is_some());
    assert_eq!(nomad.receiver(), to(there));
    assert_eq!(first.server.allocations(), 0);
    // Until the allocation must have ended, counted from what came last.
    first.pass(3599);
    assert!(first.client(there, data).is_some());
    first.pass(3600);
    assert_eq!(first.client(there, data), None);
    first.sweep();
    assert_eq!(first.server.table_sizes(), [0; 8]);
}

#[test]
fn forwarding_is_for_users_with_tickets_within_their_quota() {
    let (mut first, nomad) = shards();
    let mut code = |from: &str, user, ticket: &[u8]| {
        let from = datagrams(from);
        let login = first.login(from, user);
        let request = first
            .draft(Method::REFRESH)
            .raw(Kind::MOBILITY_TICKET, ticket)
            .signed(&login);
        let sent = first.client(from, &request).expect("an answer");
        first.pass(1);
        match sent.to {
            To::Shard(_) => 0,
            _ => Reply::read(sent.bytes).code(),
        }
    };
    assert_eq!(code("203.0.113.77:4001", ("eve", "dropper"), &nomad.ticket), 401);
    assert_eq!(code("203.0.113.77:4001", ALICE, b"a ticket"), 400);
    for (port, expected) in [(1, 0), (2, 0), (3, 486), (4, 486)] {
        assert_eq!(code(&format!("203.0.113.77:{port}"), ALICE, &nomad.ticket), expected);
    }
    // They count like allocations.
    let client = datagrams(HERE);
    let login = first.login(client, ALICE);
    let draft = first.allocate();
    assert_eq!(first.code(client, &login, draft), 486);
}

#[test]
fn nothing_is_forwarded_twice() {
    let (mut first, mut nomad) = shards();
    let there = datagrams(THERE);
    let ticket = Nomad::new(Lab::shard(config(|turn| turn.mobility = true), 0, 2), datagrams(HERE)).ticket;
    // What another shard has sent is not sent back.
    let request = nomad.request(there, ALICE, &ticket, 600);
    let lab = &mut nomad.lab;
    let sent = lab.call(&request, |server, cx| server.client_of_other_shard(cx, there, &request));
    assert_eq!(Reply::read(sent.expect("an answer").bytes).code(), 437);
    // Nor does anything go to a shard that is not there.
    let far = Nomad::new(Lab::shard(config(|turn| turn.mobility = true), 7, 8), datagrams(HERE)).ticket;
    let login = first.login(there, ALICE);
    let draft = first.draft(Method::REFRESH).raw(Kind::MOBILITY_TICKET, &far);
    assert_eq!(first.code(there, &login, draft), 437);
}

#[test]
fn a_connection_goes_to_the_shard_of_its_allocation() {
    let (mut first, mut nomad) = shards();
    let there = stream(3, THERE);
    let login = first.login(there, ALICE);
    let draft = first.draft(Method::REFRESH);
    let request = draft.raw(Kind::MOBILITY_TICKET, &nomad.ticket).signed(&login);
    assert_eq!(
        first.client(there, &request).map(|sent| sent.to),
        Some(To::Shard(ShardId(1)))
    );
    assert_eq!(first.server.table_sizes(), [0; 8]);
    assert_eq!(nomad.lab.ask(there, &request).expect("an answer").code(), 0);
}

proptest! {
    // GHSA-f6hc-79w3-p8pq, GHSA-hpq3-g7x4-h7xx: however often an allocation moves, it is one allocation.
    #[test]
    fn no_move_escapes_the_quota(moves in prop::collection::vec((0_u16..4, any::<bool>(), any::<bool>()), 0..40)) {
        let client = |port: u16| datagrams(&format!("203.0.113.77:{}", 1000 + port));
        let lab = Lab::with(|turn| {
            turn.mobility = true;
            turn.limits.allocations_per_user_max = 2;
            turn.limits.unauthenticated_per_second = 0;
        });
        let mut nomad = Nomad::new(lab, client(0));
        for (port, is_old, sends) in moves {
            let ticket = nomad.ticket.clone();
            let reply = nomad.ask(client(port), ALICE, &ticket);
            if let (false, Some(ticket)) = (is_old, reply.value(Kind::MOBILITY_TICKET)) {
                nomad.ticket = ticket;
            }
            if sends {
                nomad.sends(client(port));
            }
            prop_assert_eq!(nomad.lab.server.allocations(), 1);
            // The allocation, by the client's address and at most one other.
            let [clients, streams, persons, ..] = nomad.lab.server.table_sizes();
            prop_assert!((1..=2).contains(&clients) && streams == 0 && persons == 1);
        }
        let other = datagrams(HERE);
        let login = nomad.lab.login(other, ALICE);
        for code in [0, 437] {
            let draft = nomad.lab.allocate();
            prop_assert_eq!(nomad.lab.code(other, &login, draft), code);
        }
        let third = datagrams(ELSEWHERE);
        let login = nomad.lab.login(third, ALICE);
        let draft = nomad.lab.allocate();
        prop_assert_eq!(nomad.lab.code(third, &login, draft), 486);
        nomad.lab.pass(601);
        nomad.lab.sweep();
        prop_assert_eq!(nomad.lab.server.table_sizes(), [0; 8]);
    }
}
