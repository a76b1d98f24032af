//! Which answers, repeats and time-outs does a forwarded request have? A server and a client transaction in one
//! (RFC 3261 section 17, RFC 4320, RFC 6026): a proxy that never forks needs no more.
//!
//! Repeats exist on the UDP side only, whichever half of the transaction that is; a WebSocket is reliable and runs none
//! of the timers A, D, E, G, I, J and K (RFC 7118 section 5).

use core::{net::SocketAddr, time::Duration};

use super::{FlowId, limit::Attempt, trunk::TrunkId};
use crate::{
    time::Instant,
    wire::sip::{Framing, Message, Name},
};

/// RFC 3261 section 17.1.1.1: estimate of the round-trip time.
pub(super) const T1: Duration = Duration::from_millis(500);
/// RFC 3261 section 17.1.2.2: longest interval between repeats.
pub(super) const T2: Duration = Duration::from_secs(4);
/// RFC 3261 section 17.1.2.2: how long a message may stay in the network. Timers I and K.
pub(super) const T4: Duration = Duration::from_secs(5);
/// 64 * T1: timers B, D, F, H, J, L and M.
pub(super) const PATIENCE: Duration = Duration::from_secs(32);
/// RFC 3261 section 16.6, item 11: Timer C MUST be larger than 3 minutes. Early media of a queue may last longer.
pub(super) const TIMER_C: Duration = Duration::from_secs(600);
/// RFC 3261 section 17.2.1: 100 must go back unless something better does within 200 ms. A browser's INVITE is not
/// repeated meanwhile, and most are answered by then, which saves a message. Alarms may be 50 ms late.
pub(super) const TRYING: Duration = Duration::from_millis(150);
/// RFC 4320 section 4.1: the time it takes Timer E to be reset to T2, and 100 becomes due for other than INVITE.
pub(super) const LATE_TRYING: Duration = Duration::from_millis(3500);

/// Which way the request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// From the browser to the mediaserver: the client half runs over UDP.
    Up,
    /// From the mediaserver to the browser: the server half runs over UDP.
    Down,
}

/// What methods differ by, as far as a proxy sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Invite,
    Ack,
    Cancel,
    Register,
    Options,
    /// Forms or refreshes a dialog: SUBSCRIBE, REFER, NOTIFY, UPDATE.
    Dialog,
    Other,
}

impl Method {
    /// RFC 3261 section 7.1: methods are case-sensitive.
    pub(super) fn of(text: &[u8]) -> Self {
        match text {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"CANCEL" => Self::Cancel,
            b"REGISTER" => Self::Register,
            b"OPTIONS" => Self::Options,
            b"SUBSCRIBE" | b"REFER" | b"NOTIFY" | b"UPDATE" => Self::Dialog,
            _ => Self::Other,
        }
    }

    pub(super) const fn is_invite(self) -> bool {
        matches!(self, Self::Invite)
    }

    /// Whether its dialog must come back through us (RFC 3261 section 16.6, item 4).
    pub(super) const fn is_recorded(self) -> bool {
        matches!(self, Self::Invite | Self::Dialog)
    }
}

/// A transaction as whoever sent the request knows it (RFC 3261 section 17.2.3), hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ServerId(pub(super) u128);

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Down only: waits for a lost browser to come back.
    Held,
    /// Forwarded, without any response yet.
    Trying,
    /// A provisional response came.
    Proceeding,
    /// A final response went back; of an INVITE, one that is not 2xx.
    Completed,
    /// Down only: the ACK to such a response came.
    Confirmed,
    /// RFC 6026 section 7: a 2xx to INVITE went back, more of them may follow.
    Accepted,
}

/// What to do with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// Nothing.
    Drop,
    /// Pass it back.
    Forward,
    /// Pass it back and acknowledge it.
    ForwardAndAck,
    /// It is a repeat: acknowledge it again.
    Ack,
    /// Nothing but that we may say 100 ourselves.
    Trying,
}

/// What the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Send the request again.
    Request,
    /// Send the request again, and 100 to who waits for it.
    RequestAndTrying,
    /// Send 100 to who waits.
    Trying,
    /// Send the last response again.
    Response,
    /// Send the CANCEL again.
    Cancel,
    /// Try another address.
    FailOver,
    /// Timer C: cancel what was forwarded.
    GiveUp,
    /// Answer with this status, as if it had come.
    Fail(u16),
    /// Answer that the browser is not there: it has not come back.
    FlowFailed,
    /// Forget the transaction.
    End,
}

/// Sends of one thing, further and further apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repeat {
    at: Instant,
    interval: Duration,
}

/// A CANCEL for what was forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Cancel {
    /// Nobody asked for one.
    #[default]
    None,
    /// RFC 3261 section 9.1: a CANCEL waits for a provisional response. Keeps the Reason to send with it.
    Wanted(Box<[u8]>),
    /// Sent; over UDP it is kept for repeats until it is answered.
    Sent(Vec<u8>),
}

/// A request that was forwarded.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) side: Side,
    pub(super) method: Method,
    pub(super) flow: FlowId,
    /// Place in the list of its flow, while that is there.
    pub(super) place: Option<usize>,
    /// Whether its flow counts it as pending.
    pub(super) counted: bool,
    pub(super) trunk: TrunkId,
    /// Up, where the request went; down, where responses go.
    pub(super) remote: SocketAddr,
    /// Whether that is by TCP, where nothing is repeated.
    pub(super) by_stream: bool,
    /// Up only: other addresses that did not answer.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) server: ServerId,
    /// The request as forwarded, for repeats and for what is made of it: CANCEL, ACK, responses of our own. Up, once an
    /// ACK to a final response was made, that ACK.
    pub(super) request: Vec<u8>,
    /// Of that, start line and header.
    head_len: usize,
    /// Down, the last response, for repeats. Up, a refusal of an INVITE, until the browser's ACK shows that it has come.
    pub(super) response: Vec<u8>,
    pub(super) cancel: Cancel,
    /// Who will be locked out if this is refused too.
    pub(super) attempt: Option<Attempt>,
    /// Begun later than those with a smaller one.
    pub(super) serial: u64,
    /// What a REGISTER asks for.
    pub(super) registering: Option<Box<super::flow::Registering>>,
    /// When the timer heap wakes it; [`Self::wake`] is what it wants.
    pub(super) armed: Option<Instant>,
    state: State,
    repeat: Option<Repeat>,
    cancel_repeat: Option<Repeat>,
    started: Instant,
    /// Up only: when 100 goes back to INVITE unless something else has.
    trying: Option<Instant>,
    /// Up only: when another address is tried unless something has come.
    overdue: Option<Instant>,
    deadline: Instant,
}

/// What a transaction begins with.
pub(super) struct Beginning {
    pub(super) side: Side,
    pub(super) method: Method,
    pub(super) flow: FlowId,
    pub(super) trunk: TrunkId,
    pub(super) remote: SocketAddr,
    pub(super) by_stream: bool,
    pub(super) server: ServerId,
}

impl Transaction {
    /// A request that is forwarded now.
    pub(super) fn new(now: Instant, beginning: Beginning) -> Self {
        let Beginning {
            side,
            method,
            flow,
            trunk,
            remote,
            by_stream,
            server,
        } = beginning;
        let mut transaction = Self {
            side,
            method,
            flow,
            place: None,
            counted: false,
            trunk,
            remote,
            by_stream,
            tried: Vec::new(),
            server,
            request: Vec::new(),
            head_len: 0,
            response: Vec::new(),
            cancel: Cancel::None,
            attempt: None,
            serial: 0,
            registering: None,
            armed: None,
            state: State::Trying,
            repeat: None,
            cancel_repeat: None,
            started: now,
            trying: None,
            overdue: None,
            deadline: now,
        };
        transaction.start(now);
        transaction
    }

    /// Forwarded, now or after it was held: starts the timers of a client transaction.
    pub(super) fn start(&mut self, now: Instant) {
        self.state = State::Trying;
        self.started = now;
        // RFC 3261 sections 17.1.1.2 and 17.1.2.2: timers B and F.
        self.deadline = now + PATIENCE;
        let interval = match (self.is_repeated(), self.method) {
            (true, _) => Some(T1),
            (false, Method::Invite) => None,
            (false, _) => Some(LATE_TRYING),
        };
        self.repeat = interval.map(|interval| Repeat {
            at: now + interval,
            interval,
        });
        let is_tried = self.side == Side::Up && self.method == Method::Invite;
        self.trying = is_tried.then(|| now + TRYING);
    }

    /// Cannot be forwarded yet; fails at `until` if nothing changes. RFC 4320 section 4.1: whoever waits for it, and not for
    /// an INVITE, is told 100 when it gets late.
    pub(super) fn hold(&mut self, until: Instant) {
        self.state = State::Held;
        self.deadline = until;
    }

    /// The same request for another address. What was sent is left to itself, as nobody's: should it be heard of after
    /// all, it is cancelled, and a call that comes of it is hung up (RFC 3261 section 16.7, item 10).
    pub(super) fn redirect(&mut self, now: Instant, remote: SocketAddr) -> Self {
        let mut elsewhere = Self::new(
            now,
            Beginning {
                side: self.side,
                method: self.method,
                flow: self.flow,
                trunk: self.trunk,
                remote,
                by_stream: self.by_stream,
                server: self.server,
            },
        );
        elsewhere.request = self.request.clone();
        elsewhere.head_len = self.head_len;
        elsewhere.tried = core::mem::take(&mut self.tried);
        elsewhere.attempt = self.attempt.take();
        elsewhere.registering = self.registering.take();
        self.flow = FlowId::NOBODY;
        self.cancel = Cancel::Wanted(Box::default());
        (self.repeat, self.trying, self.overdue) = (None, None, None);
        self.request.truncate(self.head_len);
        self.request.shrink_to_fit();
        elsewhere
    }

    /// Another address is tried then unless something has come.
    pub(super) fn overdue_at(&mut self, at: Instant) {
        self.overdue = Some(at);
    }

    /// When its request left for where it is now.
    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Whether the request goes over a transport that may lose it.
    fn is_repeated(&self) -> bool {
        self.side == Side::Up && !self.by_stream
    }

    /// How far it is.
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Whether it still waits for a final response.
    pub(super) const fn is_pending(&self) -> bool {
        matches!(self.state, State::Held | State::Trying | State::Proceeding)
    }

    /// The request has been written; `body_len` bytes of it are its body.
    pub(super) fn forwarded(&mut self, request: &[u8], body_len: usize) {
        self.request = request.to_vec();
        self.head_len = request.len() - body_len;
    }

    /// Lets go of what will not be needed of the request any more. All of it is for repeats; its head is for CANCEL and
    /// ACK, and down for the route set that its responses must have.
    pub(super) fn trim(&mut self) {
        let kept = match (self.side, self.method, self.state) {
            (_, _, State::Held | State::Trying) => return,
            (Side::Up, method, State::Proceeding) if method != Method::Invite => return,
            // A browser that comes back may have to be told of the call again.
            (Side::Down, Method::Invite, State::Proceeding) => return,
            (_, _, State::Proceeding) | (_, Method::Invite, State::Completed | State::Confirmed) => self.head_len,
            (Side::Down, _, State::Accepted) => self.head_len,
            (Side::Up, _, State::Accepted) | (_, _, State::Completed | State::Confirmed) => 0,
        };
        if kept < self.request.len() {
            self.request.truncate(kept);
            self.request.shrink_to_fit();
        }
    }

    /// Whether we have sent the request for nobody else, so that there is no Via but ours.
    pub(super) fn is_ours(&self) -> bool {
        Message::read(&self.request, Framing::Datagram).is_some_and(|request| request.count(Name::Via) == 1)
    }

    /// Whether it went to a mediaserver that has not said anything to it.
    pub(super) fn is_unanswered(&self) -> bool {
        self.side == Side::Up && self.state == State::Trying
    }

    /// Whether it may be sent in another way: nothing has come of it, and nobody has taken it back.
    pub(super) fn may_go_elsewhere(&self) -> bool {
        self.is_unanswered() && self.cancel == Cancel::None
    }

    /// What a browser that comes back may know nothing of: a request that it has not said anything to, or that rings, since
    /// JsSIP for one forgets calls that ring when its WebSocket breaks; and a refusal that it has not acknowledged. Whoever
    /// remembers takes it for a repeat.
    pub(super) fn to_be_told_again(&self) -> Option<&[u8]> {
        match (self.side, self.state, &self.cancel) {
            (Side::Down, State::Trying, _) => Some(&self.request),
            (Side::Down, State::Proceeding, Cancel::None | Cancel::Wanted(_)) => Some(&self.request),
            (Side::Up, _, _) => Some(&self.response[..]).filter(|refusal| !refusal.is_empty()),
            _ => None,
        }
    }

    /// Whether it is a call of the browser's that waits for an answer. The 100 that says so may not have come.
    pub(super) fn is_call_under_way(&self) -> bool {
        self.side == Side::Up && self.method == Method::Invite && self.is_pending()
    }

    /// Whether a browser has been told to stop ringing, and has not stopped yet.
    pub(super) fn is_cancelled_below(&self) -> bool {
        self.side == Side::Down && self.state == State::Proceeding && matches!(self.cancel, Cancel::Sent(_))
    }

    /// When [`Self::due`] has something to say.
    pub(super) fn wake(&self) -> Instant {
        let repeats = [self.repeat, self.cancel_repeat].into_iter().flatten();
        let repeats = repeats.map(|repeat| repeat.at);
        repeats
            .chain(self.overdue)
            .chain(self.trying)
            .fold(self.deadline, Instant::min)
    }

    /// A response came from where the request went.
    pub(super) fn response(&mut self, now: Instant, status: u16) -> Reply {
        self.overdue = None;
        self.trying = self.trying.filter(|_| status == 100);
        match (self.method, self.state, status) {
            (Method::Invite, State::Trying | State::Proceeding, ..200) => {
                let is_first = self.state == State::Trying;
                self.state = State::Proceeding;
                self.repeat = None;
                // RFC 3261 section 16.7, item 2: provisional responses but 100 reset Timer C. Not so once it was cancelled:
                // it ends 64*T1 later (section 9.1).
                if (is_first || status > 100) && !matches!(self.cancel, Cancel::Sent(_)) {
                    self.deadline = now + TIMER_C;
                }
                // RFC 3261 section 16.7, item 5: 100 is never forwarded.
                if status == 100 { Reply::Drop } else { Reply::Forward }
            }
            (Method::Invite, State::Trying | State::Proceeding, 200..300) => {
                self.state = State::Accepted;
                self.repeat = None;
                self.cancel_repeat = None;
                // RFC 6026 section 7: timers L and M.
                self.deadline = now + PATIENCE;
                Reply::Forward
            }
            (Method::Invite, State::Trying | State::Proceeding, _) => {
                self.complete(now);
                Reply::ForwardAndAck
            }
            // RFC 6026 section 7.2: every 2xx is passed on, so that a lost ACK heals.
            (Method::Invite, State::Accepted, 200..300) => Reply::Forward,
            (Method::Invite, State::Completed | State::Confirmed, 300..) => Reply::Ack,
            // RFC 4320 section 4.1: no provisional response but 100, and that goes one hop only.
            (_, State::Trying, ..200) if self.side == Side::Up => {
                self.state = State::Proceeding;
                if let Some(repeat) = self.repeat.as_mut().filter(|_| !self.by_stream) {
                    // RFC 3261 section 17.1.2.2: in the Proceeding state Timer E is T2.
                    repeat.interval = T2;
                }
                Reply::Trying
            }
            (_, State::Trying | State::Proceeding, 200..) if self.method != Method::Invite => {
                self.complete(now);
                Reply::Forward
            }
            _ => Reply::Drop,
        }
    }

    /// A final response goes back, and one to INVITE is not 2xx. It may be one of our own.
    pub(super) fn complete(&mut self, now: Instant) {
        self.state = State::Completed;
        self.cancel_repeat = None;
        self.overdue = None;
        self.trying = None;
        (self.repeat, self.deadline) = match (self.side, self.method) {
            // RFC 3261 section 17.2.1: Timer G repeats the response, Timer H ends it.
            (Side::Down, Method::Invite) => {
                let repeat = Repeat {
                    at: now + T1,
                    interval: T1,
                };
                (Some(repeat).filter(|_| !self.by_stream), now + PATIENCE)
            }
            // Timer J down, Timer D up; both 64*T1.
            (Side::Down, _) | (Side::Up, Method::Invite) => (None, now + PATIENCE),
            // RFC 3261 section 17.1.2.2: Timer K.
            (Side::Up, _) => (None, now + T4),
        };
    }

    /// An ACK came that belongs to this transaction; tells whether it ends here and is not one to a 2xx.
    pub(super) fn acknowledged(&mut self, now: Instant) -> bool {
        if self.state == State::Accepted {
            return false;
        }
        if self.side == Side::Up {
            self.response = Vec::new();
        }
        if self.side == Side::Down && self.state == State::Completed {
            // RFC 3261 section 17.2.1: Timer I absorbs more ACKs.
            self.state = State::Confirmed;
            self.repeat = None;
            self.deadline = now + T4;
        }
        true
    }

    /// A CANCEL left for where the request went. `bytes` are for repeats; none where the transport is reliable.
    pub(super) fn cancelled(&mut self, now: Instant, bytes: Vec<u8>) {
        if self.is_repeated() {
            self.cancel_repeat = Some(Repeat {
                at: now + T1,
                interval: T1,
            });
        }
        self.cancel = Cancel::Sent(bytes);
        // RFC 3261 section 9.1: no final response within 64*T1 after the CANCEL: consider it cancelled.
        self.deadline = now + PATIENCE;
    }

    /// The CANCEL was answered.
    pub(super) fn cancel_answered(&mut self) {
        self.cancel_repeat = None;
        if let Cancel::Sent(bytes) = &mut self.cancel {
            *bytes = Vec::new();
        }
    }

    /// What must be done by now, one thing at a time.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.deadline <= now {
            return Some(self.expire());
        }
        if self.overdue.is_some_and(|at| at <= now) {
            self.overdue = None;
            return Some(Due::FailOver);
        }
        if self.trying.is_some_and(|at| at <= now) {
            self.trying = None;
            return Some(Due::Trying);
        }
        if let Some(repeat) = self.cancel_repeat.as_mut().filter(|repeat| repeat.at <= now) {
            repeat.next(now, T2);
            return Some(Due::Cancel);
        }
        let is_repeated = self.is_repeated();
        let repeat = self.repeat.as_mut().filter(|repeat| repeat.at <= now)?;
        match (self.side, self.state) {
            (Side::Up, _) if !is_repeated => {
                self.repeat = None;
                Some(Due::Trying)
            }
            // RFC 3261 section 17.1.1.2: Timer A doubles without end, that is until Timer B.
            (Side::Up, _) if self.method == Method::Invite => {
                repeat.next(now, PATIENCE);
                Some(Due::Request)
            }
            (Side::Up, state) => {
                let before = repeat.interval;
                repeat.next(now, T2);
                // RFC 4320 section 4.1: 100 is due when Timer E has been reset to T2.
                let reset = before < T2 && repeat.interval == T2 && state == State::Trying;
                Some(if reset { Due::RequestAndTrying } else { Due::Request })
            }
            (Side::Down, State::Completed) => {
                repeat.next(now, T2);
                Some(Due::Response)
            }
            (Side::Down, _) => {
                self.repeat = None;
                Some(Due::Trying)
            }
        }
    }

    fn expire(&self) -> Due {
        match (self.method, self.state, &self.cancel) {
            (_, State::Held, _) => Due::FlowFailed,
            (Method::Invite, State::Proceeding, Cancel::None) => Due::GiveUp,
            (Method::Invite, State::Proceeding, _) => Due::Fail(487),
            (Method::Invite, State::Trying, Cancel::Wanted(_)) => Due::Fail(487),
            // RFC 3261 section 16.8: as if 408 had come.
            (Method::Invite, State::Trying, _) => Due::Fail(408),
            // RFC 4320 section 4.2: never 408 to other than INVITE.
            _ => Due::End,
        }
    }
}

impl Repeat {
    fn next(&mut self, now: Instant, longest: Duration) {
        self.interval = (self.interval * 2).min(longest);
        self.at = now + self.interval;
    }
}

#[cfg(test)]
mod tests;
