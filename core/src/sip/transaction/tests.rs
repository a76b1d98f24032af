//! The machine alone: what becomes of responses, and when.

use core::net::Ipv4Addr;

use super::*;
use crate::slab::Key;

const START: Instant = Instant::from_nanos(1);

fn transaction(side: Side, method: Method) -> Transaction {
    Transaction::new(
        START,
        Beginning {
            side,
            method,
            flow: FlowId(Key::from_parts(0, 0)),
            trunk: TrunkId::default(),
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 5060)),
            by_stream: false,
            server: ServerId(0),
        },
    )
}

/// Responses in order; what becomes of each, the state at the end, and how long that lasts.
#[track_caller]
fn check(side: Side, method: Method, statuses: &[u16], replies: &[Reply], state: State, lasts: Duration) {
    let mut transaction = transaction(side, method);
    let found: Vec<_> = statuses
        .iter()
        .map(|status| transaction.response(START, *status))
        .collect();
    assert_eq!((&found[..], transaction.state), (replies, state));
    assert_eq!(transaction.deadline - START, lasts);
}

#[test]
fn responses() {
    use Reply::{Ack, Drop, Forward, ForwardAndAck, Trying};
    let invite = Method::Invite;
    for side in [Side::Up, Side::Down] {
        check(side, invite, &[], &[], State::Trying, PATIENCE);
        check(side, invite, &[100, 180], &[Drop, Forward], State::Proceeding, TIMER_C);
        check(
            side,
            invite,
            &[183, 200, 200, 180],
            &[Forward, Forward, Forward, Drop],
            State::Accepted,
            PATIENCE,
        );
        check(side, invite, &[200, 486], &[Forward, Drop], State::Accepted, PATIENCE);
        check(
            side,
            invite,
            &[486, 486, 200, 180],
            &[ForwardAndAck, Ack, Drop, Drop],
            State::Completed,
            PATIENCE,
        );
    }
    let other = Method::Other;
    check(
        Side::Up,
        other,
        &[100, 183],
        &[Trying, Drop],
        State::Proceeding,
        PATIENCE,
    );
    check(
        Side::Up,
        other,
        &[100, 200, 200, 404],
        &[Trying, Forward, Drop, Drop],
        State::Completed,
        T4,
    );
    check(
        Side::Down,
        other,
        &[100, 404, 404],
        &[Drop, Forward, Drop],
        State::Completed,
        PATIENCE,
    );
}

#[test]
fn only_udp_repeats() {
    let repeats = |side, method, status: Option<u16>| {
        let mut transaction = transaction(side, method);
        status.map(|status| transaction.response(START, status));
        let mut due = Vec::new();
        while transaction.wake() - START < PATIENCE {
            due.extend(transaction.due(transaction.wake()));
        }
        due
    };
    let invites = repeats(Side::Up, Method::Invite, None);
    assert_eq!((invites[0], &invites[1..]), (Due::Trying, &[Due::Request; 6][..]));
    assert_eq!(repeats(Side::Up, Method::Invite, Some(200)), []);
    assert_eq!(repeats(Side::Down, Method::Invite, None), []);
    assert_eq!(repeats(Side::Down, Method::Invite, Some(200)), []);
    assert_eq!(repeats(Side::Down, Method::Invite, Some(486)), [Due::Response; 10]);
    assert_eq!(repeats(Side::Down, Method::Other, None), [Due::Trying]);
    assert_eq!(repeats(Side::Down, Method::Other, Some(200)), []);
    let others = repeats(Side::Up, Method::Other, None);
    assert_eq!((others.len(), others[2]), (10, Due::RequestAndTrying));
}

#[test]
fn an_ack_ends_the_repeats_of_a_refusal() {
    let mut down = transaction(Side::Down, Method::Invite);
    down.response(START, 486);
    assert!(down.acknowledged(START));
    assert_eq!((down.state, down.wake() - START), (State::Confirmed, T4));
    let mut accepted = transaction(Side::Down, Method::Invite);
    accepted.response(START, 200);
    assert!(!accepted.acknowledged(START));
}

#[test]
fn a_100_does_not_reset_timer_c() {
    let mut up = transaction(Side::Up, Method::Invite);
    // When responses come, and since when Timer C runs by then.
    for (after, status, since) in [(1, 100, 1), (2, 100, 1), (3, 180, 3), (4, 100, 3), (5, 183, 5)] {
        up.response(START + T1 * after, status);
        assert_eq!(up.deadline, START + T1 * since + TIMER_C, "{status} at {after}");
    }
}

#[test]
fn a_cancel_gives_the_invite_32_seconds() {
    let mut up = transaction(Side::Up, Method::Invite);
    up.response(START, 180);
    up.cancelled(START, b"CANCEL".to_vec());
    up.response(START + T1, 183);
    assert_eq!(up.deadline - START, PATIENCE);
    assert_eq!(up.due(START + T1), Some(Due::Cancel));
    up.cancel_answered();
    assert_eq!(up.wake() - START, PATIENCE);
    assert_eq!(up.due(START + PATIENCE), Some(Due::Fail(487)));
}
