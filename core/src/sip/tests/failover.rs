//! Several addresses of one mediaserver, and names that stand for them.

use core::net::IpAddr;

use proptest::{
    collection,
    prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest},
};

use super::{
    calls::{in_dialog, invite, trunk_invite},
    *,
};
use crate::{
    action::IoKind,
    config::{Host, HostPort},
};

/// A world whose mediaserver `default` has the addresses of mediaservers 0, 2 and 3.
fn world() -> World {
    let mut config = config(Reach::Path);
    let sip = config.sip.as_mut().expect("the sip role");
    sip.mediaservers[0].addresses = [0, 2, 3].map(|index| mediaserver(index).into()).into();
    World::with(config, 1)
}

impl World {
    /// The request that went to this address, among what was sent.
    #[track_caller]
    fn sent_to(sent: &[Sent], to: SocketAddr) -> String {
        let found = sent.iter().find_map(|sent| match sent {
            Sent::Trunk(address, text) if *address == to => Some(text.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("nothing for {to}: {:?}", heads(sent)))
    }

    fn error(&mut self, to: SocketAddr) -> Vec<Sent> {
        self.call(|bridge, cx| bridge.trunk_error(cx, to, IoKind::Refused)).1
    }

    /// Lets time pass; mediaservers with these addresses answer the questions after their health.
    fn pass(&mut self, duration: Duration, alive: &[SocketAddr]) -> Vec<Sent> {
        let end = self.now + duration;
        let mut others = Vec::new();
        while let Some(at) = self.bridge.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            for sent in self.call(|bridge, cx| bridge.timeout(cx)).1 {
                match sent {
                    Sent::Trunk(to, text) if text.starts_with("OPTIONS sip:10.") => {
                        if alive.contains(&to) {
                            self.trunk_from(to, &reply(&text, "200 OK", ""));
                        }
                    }
                    other => others.push(other),
                }
            }
        }
        self.now = end;
        others
    }
}

fn branch(message: &str) -> &str {
    let via = fields(message, "Via")[0];
    via.split("branch=").nth(1).expect("a branch")
}

#[test]
fn a_request_that_is_not_answered_goes_to_the_next_address() {
    let mut world = world();
    let flow = world.open(1);
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    let first = World::sent_to(&sent, mediaserver(0));
    let sent = world.wait(Duration::from_secs(4));
    let second = World::sent_to(
        &sent.into_iter().map(|(_, sent)| sent).collect::<Vec<_>>(),
        mediaserver(2),
    );
    // RFC 3263 section 4.3: identical but for the branch.
    assert_ne!(branch(&first), branch(&second));
    assert_eq!(first.replace(branch(&first), branch(&second)), second);
    // Nobody answers for another one.
    assert_eq!(world.trunk_from(mediaserver(0), &reply(&second, "200 OK", "")), []);
    let answer = world.trunk_from(mediaserver(2), &reply(&second, "200 OK", ""));
    assert_eq!(heads(&answer), ["browser: SIP/2.0 200 OK"]);
    assert_eq!(world.stats.sip.failed_over, 1);
}

#[test]
fn what_the_first_address_says_too_late_is_taken_back() {
    let left_behind = || {
        let mut world = world();
        let flow = world.open(1);
        let first = World::sent_to(&world.browser(flow, &invite("z9hG4bKi1")), mediaserver(0));
        world.wait(Duration::from_secs(4));
        (world, first)
    };
    // It rings after all: nobody wants that any more, and the browser does not hear of it.
    let (mut world, first) = left_behind();
    let sent = world.trunk(&reply(&first, "180 Ringing", ""));
    assert_eq!(heads(&sent), ["trunk: CANCEL sip:200@xivo SIP/2.0"]);
    assert_eq!(branch(&sent[0].clone().trunk()), branch(&first));
    let sent = world.trunk(&reply(&first, "487 Request Terminated", ""));
    assert_eq!(heads(&sent), ["trunk: ACK sip:200@xivo SIP/2.0"]);
    // Or it is answered there.
    let (mut world, first) = left_behind();
    let answer = reply(&first, "200 OK", "Contact: <sip:200@somewhere>\r\n");
    let sent = world.trunk(&answer);
    assert_eq!(
        heads(&sent),
        [
            "trunk: ACK sip:200@somewhere SIP/2.0",
            "trunk: BYE sip:200@somewhere SIP/2.0"
        ]
    );
    assert!(
        sent.iter()
            .all(|sent| matches!(sent, Sent::Trunk(to, _) if *to == mediaserver(0)))
    );
    // A 503 that is repeated lacks its ACK.
    let mut world = self::world();
    let flow = world.open(1);
    let first = World::sent_to(&world.browser(flow, &invite("z9hG4bKi1")), mediaserver(0));
    let busy = reply(&first, "503 Service Unavailable", "");
    world.trunk(&busy);
    assert_eq!(heads(&world.trunk(&busy)), ["trunk: ACK sip:200@xivo SIP/2.0"]);
    // Nothing of it stays.
    world.call(|bridge, cx| bridge.close(cx, flow));
    world.wait(Duration::from_secs(100));
    assert_eq!(world.bridge.transactions(), 0);
}

#[test]
fn an_error_of_the_network_is_followed_at_once_until_nobody_is_left() {
    let mut world = world();
    let flow = world.open(1);
    world.browser(flow, &invite("z9hG4bKi1"));
    let second = World::sent_to(&world.error(mediaserver(0)), mediaserver(2));
    // Its late answer, and an error for somebody who has nothing, change nothing.
    assert_eq!(world.error(mediaserver(1)), []);
    World::sent_to(&world.error(mediaserver(2)), mediaserver(3));
    let refused = world.error(mediaserver(3)).remove(0).browser();
    assert_eq!(start_line(&refused), "SIP/2.0 503 Service Unavailable");
    assert_eq!(fields(&refused, "Retry-After"), ["5"]);
    // All are suspect, none is known to be dead: the first one is tried again, unless another one speaks.
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi2")), mediaserver(0));
    assert_eq!(world.trunk_from(mediaserver(2), &reply(&second, "200 OK", "")), []);
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi3")), mediaserver(2));
}

#[test]
fn a_request_that_has_an_answer_stays() {
    let mut world = world();
    let flow = world.open(1);
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    let first = World::sent_to(&sent, mediaserver(0));
    world.trunk(&reply(&first, "100 Trying", ""));
    assert_eq!(world.error(mediaserver(0)), []);
    let later = world.wait(Duration::from_secs(60));
    assert!(
        later.iter().all(|(_, sent)| matches!(sent, Sent::Browser(..))),
        "{later:?}"
    );
    // One that says something, but nothing to this request, lives; not for ever, if that was all.
    let mut world = self::world();
    let flow = world.open(1);
    world.browser(flow, &invite("z9hG4bKi1"));
    world.now += Duration::from_secs(1);
    world.trunk(&trunk_invite("<sip:10.0.0.1;lr>", "z9hG4bKm1"));
    let mut went_to = |duration| {
        let sent = world.wait(duration).into_iter();
        let to = sent.filter_map(|(_, sent)| match sent {
            Sent::Trunk(to, _) => Some(to),
            _ => None,
        });
        to.collect::<Vec<_>>()
    };
    assert_eq!(went_to(Duration::from_secs(14)), [mediaserver(0); 4]);
    assert_eq!(went_to(Duration::from_secs(1)), [mediaserver(2)]);
}

#[test]
fn a_503_goes_elsewhere_if_it_is_the_first_word() {
    let mut world = world();
    let flow = world.open(1);
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    let first = World::sent_to(&sent, mediaserver(0));
    let sent = world.trunk(&reply(&first, "503 Service Unavailable", ""));
    let second = World::sent_to(&sent, mediaserver(2));
    let acknowledgement = World::sent_to(&sent, mediaserver(0));
    assert!(acknowledgement.starts_with("ACK ") && branch(&acknowledgement) == branch(&first));
    // Behind a provisional response it is about the call.
    world.trunk_from(mediaserver(2), &reply(&second, "100 Trying", ""));
    let sent = world.trunk_from(mediaserver(2), &reply(&second, "503 Service Unavailable", ""));
    assert_eq!(heads(&sent)[1..], ["browser: SIP/2.0 503 Service Unavailable"]);
}

#[test]
fn one_that_says_when_to_try_again_is_left_alone_until_then() {
    let (first, second) = (mediaserver(0), mediaserver(2));
    let alive = [first, second, mediaserver(3)];
    // What it says, and where new requests go after so many seconds, though it answers questions.
    let check = |retry_after: &str, expected: &[(u64, SocketAddr)]| {
        let mut world = world();
        let flow = world.open(1);
        let sent = world.browser(flow, &invite("z9hG4bKi1"));
        let request = World::sent_to(&sent, first);
        world.trunk(&reply(&request, "503 Service Unavailable", retry_after));
        let mut passed = 0;
        for (number, (after, to)) in (2..).zip(expected) {
            world.pass(Duration::from_secs(after - passed), &alive);
            passed = *after;
            let sent = world.browser(flow, &invite(&format!("z9hG4bKi{number}")));
            World::sent_to(&sent, *to);
        }
    };
    check("", &[(0, first)]);
    check("Retry-After: 20\r\n", &[(0, second), (19, second), (20, first)]);
    check(
        "Retry-After: 20 (maintenance);duration=9\r\n",
        &[(19, second), (20, first)],
    );
    check("Retry-After: soon\r\n", &[(0, first)]);
    // Nobody is believed for ever.
    check("Retry-After: 99999999\r\n", &[(299, second), (300, first)]);
}

#[test]
fn dialogs_stay_with_one_that_wants_no_more_requests() {
    let mut world = world();
    let flow = world.open(1);
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    let request = World::sent_to(&sent, mediaserver(0));
    world.trunk(&reply(&request, "200 OK", "Contact: <sip:200@10.0.0.2:5060>\r\n"));
    let other = World::sent_to(&world.browser(flow, &invite("z9hG4bKi2")), mediaserver(0));
    world.trunk(&reply(&other, "503 Service Unavailable", "Retry-After: 60\r\n"));
    let bye = in_dialog("BYE", 8, "z9hG4bKi3", &request);
    World::sent_to(&world.browser(flow, &bye), mediaserver(0));
}

#[test]
fn nobody_is_turned_away_by_what_another_was_told() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    let request = World::sent_to(&sent, mediaserver(0));
    world.trunk(&reply(&request, "503 Service Unavailable", "Retry-After: 60\r\n"));
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi2")), mediaserver(0));
}

#[test]
fn a_cancelled_request_is_not_tried_again() {
    let mut world = world();
    let flow = world.open(1);
    let invite = invite("z9hG4bKi1");
    world.browser(flow, &invite);
    world.browser(flow, &invite.replace("INVITE", "CANCEL"));
    assert_eq!(
        heads(&world.error(mediaserver(0))),
        ["browser: SIP/2.0 503 Service Unavailable"]
    );
}

#[test]
fn registrations_and_dialogs_stay_where_they_are() {
    let (first, second, third) = (mediaserver(0), mediaserver(2), mediaserver(3));
    let mut world = world();
    let flow = world.open(1);
    world.pass(Duration::from_secs(20), &[first, second, third]);
    // The first one falls silent, and the registration goes to the second.
    world.pass(Duration::from_secs(50), &[second, third]);
    let sent = world.browser(flow, &register("x1@df7jal23ls0d.invalid", "60"));
    let request = World::sent_to(&sent, second);
    let challenge = reply(&request, "401 Unauthorized", "");
    assert_eq!(
        heads(&world.trunk_from(second, &challenge)),
        ["browser: SIP/2.0 401 Unauthorized"]
    );
    // The first one is back, but it does not know the challenge.
    world.pass(Duration::from_secs(20), &[first, second, third]);
    let sent = world.browser(flow, &register("x1@df7jal23ls0d.invalid", "60"));
    let request = World::sent_to(&sent, second);
    world.trunk_from(
        second,
        &reply(
            &request,
            "200 OK",
            "Contact: <sip:x1@df7jal23ls0d.invalid>;expires=60\r\n",
        ),
    );
    let path = fields(&request, "Path")[0].to_owned();
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    let call = World::sent_to(&sent, second);
    world.trunk_from(second, &reply(&call, "200 OK", ""));
    // A new user begins with the first choice.
    let other = world.open(2);
    World::sent_to(&world.browser(other, &invite("z9hG4bKi2")), first);
    // Within a dialog the remote target tells, whoever has the registration.
    let to = |address: SocketAddr| {
        move |request: String| request.replace("sip:200@10.0.0.2:5060 SIP", &format!("sip:200@{address} SIP"))
    };
    for (number, target, expected) in [(8, third, third), (9, mediaserver(1), second), (10, first, first)] {
        let bye = to(target)(in_dialog("MESSAGE", number, &format!("z9hG4bKd{number}"), &call));
        World::sent_to(&world.browser(flow, &bye), expected);
        let ack = to(target)(in_dialog("ACK", number, &format!("z9hG4bKa{number}"), &call));
        World::sent_to(&world.browser(flow, &ack), expected);
    }
    // Any of them may call.
    for from in [first, second, third] {
        let invite = trunk_invite(&path, &format!("z9hG4bK{from}"));
        assert_eq!(world.trunk_from(from, &invite).len(), 2);
    }
    // Its home falls silent: the user is served by the first again, and so are its dialogs.
    world.pass(Duration::from_secs(50), &[first, third]);
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi3")), first);
    let bye = to(second)(in_dialog("BYE", 20, "z9hG4bKb1", &call));
    World::sent_to(&world.browser(flow, &bye), first);
}

#[test]
fn when_all_are_down_nothing_is_forwarded_until_one_is_back() {
    let all = [mediaserver(0), mediaserver(2), mediaserver(3)];
    let mut world = world();
    let flow = world.open(1);
    world.pass(Duration::from_secs(20), &all);
    world.pass(Duration::from_secs(60), &[]);
    assert!(!world.bridge.is_available(0));
    let refused = world.browser(flow, &invite("z9hG4bKi1"));
    assert_eq!(heads(&refused), ["browser: SIP/2.0 503 Service Unavailable"]);
    assert_eq!(fields(&refused[0].clone().browser(), "Retry-After"), ["5"]);
    world.pass(Duration::from_secs(10), &all[2..]);
    assert!(world.bridge.is_available(0));
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi2")), all[2]);
}

/// A world whose mediaserver `default` is `pbx:5060`, then 10.0.0.2; with the question after the name.
fn named() -> (World, Question) {
    let mut config = config(Reach::Path);
    let sip = config.sip.as_mut().expect("the sip role");
    let host = Host::Name("pbx".into());
    sip.mediaservers[0].addresses = vec![HostPort { host, port: 5060 }];
    let mut rng = Rng::new([1; 32]);
    let mut world = World::new(Reach::Path);
    world.bridge = Bridge::new(Arc::new(config), ShardId(0), 1, &mut rng);
    let sent = world.call(|bridge, cx| bridge.timeout(cx)).1;
    assert_eq!(
        heads(&sent),
        ["resolve pbx", "trunk: OPTIONS sip:10.0.0.3:5060 SIP/2.0"]
    );
    let Sent::Resolve(question) = sent[0].clone() else {
        panic!("{sent:?}")
    };
    (world, question)
}

fn resolve(world: &mut World, question: &Question, indices: &[usize]) -> Vec<Sent> {
    let found: Vec<IpAddr> = indices.iter().map(|index| mediaserver(*index).ip()).collect();
    world.call(|bridge, cx| bridge.resolved(cx, question, &found)).1
}

#[test]
fn a_name_is_looked_up_and_followed() {
    let (mut world, question) = named();
    let flow = world.open(1);
    // Before the first answer nobody is there, and nobody may speak.
    assert!(!world.bridge.is_available(0) && world.bridge.is_available(1));
    assert_eq!(
        heads(&world.browser(flow, &invite("z9hG4bKi1"))),
        ["browser: SIP/2.0 503 Service Unavailable"]
    );
    let stranger = trunk_invite("<sip:10.0.0.1;lr>", "z9hG4bKm1");
    assert_eq!(world.trunk(&stranger), []);
    // A resolver that cannot say anything is asked again soon.
    assert_eq!(resolve(&mut world, &question, &[]), []);
    assert_eq!(heads(&world.pass(Duration::from_secs(5), &[])), ["resolve pbx"]);
    assert_eq!(resolve(&mut world, &question, &[0, 2]), [Sent::Moved]);
    assert!(world.bridge.is_available(0));
    let call = World::sent_to(&world.browser(flow, &invite("z9hG4bKi2")), mediaserver(0));
    world.trunk(&reply(&call, "180 Ringing", ""));
    // What a name stands for is asked again, and turning it round means nothing.
    assert_eq!(
        heads(&world.pass(Duration::from_secs(30), &[mediaserver(0), mediaserver(2)])),
        ["resolve pbx"]
    );
    assert_eq!(resolve(&mut world, &question, &[2, 0]), []);
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi3")), mediaserver(0));
    // The name moves. What is on its way still counts; what is new goes to the new address.
    assert_eq!(resolve(&mut world, &question, &[3]), [Sent::Moved]);
    assert_eq!(
        heads(&world.trunk(&reply(&call, "200 OK", ""))),
        ["browser: SIP/2.0 200 OK"]
    );
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi4")), mediaserver(3));
    let bye = in_dialog("BYE", 8, "z9hG4bKb1", &call);
    World::sent_to(&world.browser(flow, &bye), mediaserver(0));
    let by_name = in_dialog("BYE", 9, "z9hG4bKb2", &call).replace("sip:200@10.0.0.2:5060 SIP", "sip:200@PBX SIP");
    World::sent_to(&world.browser(flow, &by_name), mediaserver(3));
    let ips = |world: &World| {
        let media = world.bridge.media();
        media.iter().map(|rule| rule.net.addr().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ips(&world), ["10.0.0.5", "10.0.0.2", "10.0.0.4", "10.0.0.3"]);
    // Whoever it was before may speak as long as it lives, and no longer than for an hour.
    let sent = world.pass(Duration::from_secs(60), &[mediaserver(0), mediaserver(3)]);
    assert_eq!(sent.iter().filter(|sent| **sent == Sent::Moved).count(), 1);
    assert_eq!(ips(&world), ["10.0.0.5", "10.0.0.2", "10.0.0.3"]);
    world.pass(Duration::from_secs(3600), &[mediaserver(0), mediaserver(3)]);
    assert_eq!(ips(&world), ["10.0.0.5", "10.0.0.3"]);
    assert_eq!(world.trunk(&stranger), []);
}

#[test]
fn addresses_of_the_other_family_are_of_no_use() {
    let (mut world, question) = named();
    let found =
        ["2001:db8::1", "::", "0.0.0.0", "224.0.0.1", "::ffff:10.0.0.9"].map(|ip| ip.parse().expect("an address"));
    world.call(|bridge, cx| bridge.resolved(cx, &question, &found));
    let flow = world.open(1);
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi1")), mediaserver(7));
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let (first, second) = (mediaserver(0), mediaserver(2));
    let mut world = world();
    let flow = world.open(1);
    world.pass(Duration::from_secs(20), &[first, second]);
    world.pass(Duration::from_secs(50), &[second]);
    let call = World::sent_to(&world.browser(flow, &invite("z9hG4bKi1")), second);
    // The dead one stays dead, the other one is no longer listed but has a call.
    let mut new = config(Reach::Path);
    let sip = new.sip.as_mut().expect("the sip role");
    sip.mediaservers[0].addresses = vec![first.into(), mediaserver(9).into()];
    world.call(|bridge, cx| bridge.configure(cx, Arc::new(new)));
    assert_eq!(
        heads(&world.trunk_from(second, &reply(&call, "200 OK", ""))),
        ["browser: SIP/2.0 200 OK"]
    );
    World::sent_to(&world.browser(flow, &invite("z9hG4bKi2")), mediaserver(9));
    // A name in place of the addresses is looked up at once.
    let mut new = config(Reach::Path);
    let sip = new.sip.as_mut().expect("the sip role");
    let host = Host::Name("pbx".into());
    sip.mediaservers[0].addresses = vec![HostPort { host, port: 5060 }];
    world.call(|bridge, cx| bridge.configure(cx, Arc::new(new)));
    assert!(
        world
            .pass(Duration::ZERO, &[])
            .iter()
            .any(|sent| sent.head() == "resolve pbx")
    );
    assert!(!world.bridge.is_available(0));
}

/// What an address does in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    /// Datagrams come to nothing, and the network says so.
    Refuses,
    /// Datagrams come to nothing.
    Silent,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![Just(Mood::Answers), Just(Mood::Refuses), Just(Mood::Silent)]
}

proptest! {
    /// Mediaservers that come and go: a request has one final response at most, and certainly one where there is one
    /// that lives and nothing is lost.
    #[test]
    fn whoever_lives_answers(seed: u64, loss in prop_oneof![Just(0u32), 1u32..50], stretches in collection::vec(([mood(), mood(), mood()], 1u64..40), 1..12)) {
        let addresses = [mediaserver(0), mediaserver(2), mediaserver(3)];
        let mut world = world();
        let mut chance = Rng::new(core::array::from_fn(|place| seed.to_le_bytes()[place % 8]));
        let flow = world.open(1);
        let mut number = 0;
        for (moods, seconds) in stretches {
            number += 1;
            let mood_of = |to: SocketAddr| {
                let place = addresses.iter().position(|address| *address == to);
                place.map_or(Mood::Silent, |place| moods[place])
            };
            let request = invite(&format!("z9hG4bKi{number}")).replace("call-1", &format!("call-{number}"));
            let request = request.replace("INVITE", "MESSAGE");
            let mut queue = world.browser(flow, &request);
            let (asked, mut finals) = (world.now, Vec::new());
            let end = world.now + Duration::from_secs(40 + seconds);
            loop {
                while !queue.is_empty() {
                    match queue.remove(0) {
                        Sent::Trunk(..) if chance.below(100) < loss => {}
                        Sent::Trunk(to, text) => match mood_of(to) {
                            Mood::Answers => queue.extend(world.trunk_from(to, &reply(&text, "200 OK", ""))),
                            Mood::Refuses => queue.extend(world.error(to)),
                            Mood::Silent => {}
                        },
                        Sent::Browser(_, text) if !text.starts_with("SIP/2.0 1") => {
                            finals.push((world.now - asked, start_line(&text).to_owned()));
                        }
                        Sent::Browser(..) => {}
                        other => panic!("{other:?}"),
                    }
                }
                let Some(at) = world.bridge.poll_timeout().filter(|at| *at <= end) else { break };
                world.now = world.now.max(at);
                queue = world.call(|bridge, cx| bridge.timeout(cx)).1;
            }
            world.now = end;
            // All that are silent: no 408 to other than INVITE (RFC 4320 section 4.2).
            let lives = loss == 0 && moods.contains(&Mood::Answers);
            prop_assert!(finals.len() <= 1 && (!lives || finals.len() == 1), "{:?}", finals);
            if let Some((after, status)) = finals.first() {
                // Two that are silent take four seconds each. One that was found dead has to be found alive first.
                let longest = if lives { 8 + 10 + 4 } else { 40 };
                prop_assert!(*after <= Duration::from_secs(longest), "{:?} after {:?}", status, after);
                prop_assert!(moods.contains(&Mood::Answers) || status.contains("503"), "{:?}", status);
            }
        }
        prop_assert_eq!(world.bridge.transactions(), 0);
    }
}
