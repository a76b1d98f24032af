//! One TCP connection as a value: what it carries, what it has not understood yet, what it still has to say.

use core::net::SocketAddr;

use bytes::BytesMut;

mod stage;

pub(crate) use stage::{
    BodyProgress, Downstream, Errand, Gate, Identity, Opening, Reader, Side, SipSocket, Stage, TokenDigest, Tunnel,
    TurnStream, Upstream, Wait,
};

use crate::{
    config::Offer,
    limit::Account,
    time::Instant,
    tls::{Tls, TlsError, Transcript},
    wire::proxy::Ends,
};

/// One TCP connection, accepted or dialled. It may move to another shard as it is.
#[derive(Debug)]
pub struct Conn {
    /// Our end.
    pub(crate) local: SocketAddr,
    /// The other end.
    pub(crate) peer: SocketAddr,
    /// What it carries.
    pub(crate) stage: Stage,
    /// When something must have happened; what that is depends on the stage.
    pub(crate) deadline: Option<Instant>,
    /// The deadline that the heap holds for it, which may be an earlier one.
    pub(crate) armed: Option<Instant>,
    /// Whether it is on the shard's list of connections to look after.
    pub(crate) listed: bool,
    /// Whether the peer sends no more.
    pub(crate) ended: bool,
    /// Bytes of its backlog that are counted, and for which client.
    pub(crate) counted: Option<(Account, usize)>,
    /// Whether it has met a fault of ours, so that it has to go.
    pub(crate) is_broken: bool,
    accepted: bool,
    tls: Option<Tls>,
    rest: BytesMut,
    outgoing: BytesMut,
    sealed: BytesMut,
    /// Bytes of that which go along with others, and not before there are any.
    patient: usize,
    link: Link,
    in_flight: usize,
    flush_raised: bool,
    reading: bool,
    shut: Shut,
}

/// Room for what we say in a handshake is made at once: rustls gives it record by record.
const FLIGHT_BYTES_USUAL: usize = 2048;

/// How far the stream underneath is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Dialing,
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    No,
    /// Our direction ends when everything is written.
    Wanted,
    /// The goodbye of TLS is among what is to be written.
    Said,
    /// The runtime has been told.
    Done,
}

/// What the runtime must be asked for, so that a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    pub(crate) flush: bool,
    pub(crate) shut: bool,
    pub(crate) read: Option<bool>,
}

impl Conn {
    pub(crate) fn accepted(offer: Offer, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            accepted: true,
            ..Self::new(Stage::Sniff(offer), Link::Up, None, local, peer)
        }
    }

    /// A connection from a proxy, which must say first for whom.
    pub(crate) fn proxied(offer: Offer, local: SocketAddr, peer: SocketAddr) -> Self {
        Self::new(Stage::Proxied(offer), Link::Up, None, local, peer)
    }

    /// The proxy has spoken: from here on it is the connection of a client, whose ends are named where it has any.
    pub(crate) fn unwrap_proxied(&mut self, offer: Offer, ends: Ends) {
        self.stage = Stage::Sniff(offer);
        if let Ends::Relayed { source, destination } = ends {
            self.accepted = true;
            self.peer = SocketAddr::new(source.ip().to_canonical(), source.port());
            self.local = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        }
    }

    /// A connection that a TURN peer has opened: it is nobody's yet.
    pub(crate) fn from_peer(local: SocketAddr, peer: SocketAddr) -> Self {
        Self::new(Stage::Peer, Link::Up, None, local, peer)
    }

    /// A connection that is not up yet; what is written to it waits.
    pub(crate) fn dialing(stage: Stage, tls: Option<Tls>) -> Self {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::new(stage, Link::Dialing, tls, unspecified, unspecified)
    }

    /// Its two ends, ours first, as the client or its proxy named them.
    pub const fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.peer)
    }

    /// Whether it speaks TLS.
    pub const fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    fn new(stage: Stage, link: Link, tls: Option<Tls>, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            local,
            peer,
            stage,
            deadline: None,
            armed: None,
            listed: false,
            ended: false,
            counted: None,
            is_broken: false,
            accepted: false,
            tls,
            rest: BytesMut::new(),
            outgoing: BytesMut::new(),
            sealed: BytesMut::new(),
            patient: 0,
            link,
            in_flight: 0,
            flush_raised: false,
            reading: true,
            shut: Shut::No,
        }
    }

    /// The dialled stream is up; a TLS client speaks first.
    pub(crate) fn connected(&mut self, local: SocketAddr, transcript: &mut Transcript) -> Result<(), TlsError> {
        self.link = Link::Up;
        self.local = local;
        match &mut self.tls {
            Some(tls) => transcript.receive(tls, &mut [], &mut Vec::new(), &mut self.sealed),
            None => Ok(()),
        }
    }

    /// From here on the stream speaks TLS; what has come already belongs to it.
    pub(crate) fn start_tls(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    /// It is dialled again, elsewhere: what is to be written is still to be written.
    pub(crate) fn redial(&mut self, tls: Option<Tls>) {
        let fresh = Self::dialing(Stage::Peer, tls);
        let last = core::mem::replace(self, fresh);
        self.stage = last.stage;
        self.outgoing = last.outgoing;
        self.counted = last.counted;
    }

    pub(crate) const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// It has another shard and another stream now: what the last ones were asked for means nothing to them.
    pub(crate) fn moved(&mut self) {
        self.armed = None;
        self.listed = false;
        self.in_flight = 0;
        self.flush_raised = false;
        self.reading = true;
    }

    /// Decrypts what came from the wire into `plain`; only for a connection with TLS.
    pub(crate) fn open(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        transcript: &mut Transcript,
    ) -> Result<(), TlsError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let (was_ready, before) = (tls.is_ready(), self.sealed.len());
        if !was_ready {
            self.sealed.reserve(FLIGHT_BYTES_USUAL);
        }
        let result = transcript.receive(tls, bytes, plain, &mut self.sealed);
        self.ended |= tls.peer_closed();
        if !was_ready && tls.has_given_tickets() {
            // They are for another connection: this one need not wait for a write of their own.
            self.patient = self.sealed.len() - before;
        }
        result
    }

    /// Where to write what the peer shall read.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Stage and output at once.
    pub(crate) fn stage_and_out(&mut self) -> (&mut Stage, &mut BytesMut) {
        (&mut self.stage, &mut self.outgoing)
    }

    /// What the stage has not understood yet. Its place is empty until [`Conn::put_rest`].
    pub(crate) fn take_rest(&mut self) -> BytesMut {
        core::mem::take(&mut self.rest)
    }

    pub(crate) fn put_rest(&mut self, rest: BytesMut) {
        if !rest.is_empty() {
            self.rest = rest;
        }
    }

    pub(crate) fn rest_len(&self) -> usize {
        self.rest.len()
    }

    /// Bytes that the peer has not taken yet, as far as we can tell.
    pub(crate) fn backlog(&self) -> usize {
        self.outgoing.len() + self.sealed.len() - self.patient + self.in_flight
    }

    /// Ends our direction when everything is written.
    pub(crate) fn shut_when_written(&mut self) {
        if self.shut == Shut::No {
            self.shut = Shut::Wanted;
        }
    }

    /// What to ask of the runtime now, given whether bytes of the peer are wanted.
    pub(crate) fn needs(&mut self, want_read: bool) -> Needs {
        if self.is_dialing() {
            return Needs::default();
        }
        if self.shut == Shut::Wanted && self.can_seal() {
            self.seal();
            if let Some(tls) = &mut self.tls {
                tls.close(&mut self.sealed);
            }
            self.shut = Shut::Said;
        }
        let has_output = self.sealed.len() > self.patient || (self.can_seal() && !self.outgoing.is_empty());
        let flush = has_output && self.in_flight == 0 && !self.flush_raised;
        self.flush_raised |= flush;
        let shut = self.shut == Shut::Said && self.backlog() == 0;
        if shut {
            self.shut = Shut::Done;
        }
        let read = (want_read != self.reading).then_some(want_read);
        self.reading = want_read;
        Needs { flush, shut, read }
    }

    /// Whether there is no stream yet.
    pub(crate) fn is_dialing(&self) -> bool {
        self.link == Link::Dialing
    }

    /// Whether data can be sent: the stream is up, and TLS where there is any.
    pub(crate) fn is_ready(&self) -> bool {
        self.link == Link::Up && self.can_seal()
    }

    /// Whether a client opened it, rather than we, and counts as one.
    pub(crate) const fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Whether the runtime was last told to read it.
    pub(crate) const fn is_read(&self) -> bool {
        self.reading
    }

    /// Whether our direction has ended.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut == Shut::Done
    }

    /// Everything to be written, encrypted. It counts as backlog until [`Conn::written`].
    pub(crate) fn take_output(&mut self) -> Option<BytesMut> {
        self.flush_raised = false;
        self.patient = 0;
        self.seal();
        let bytes = core::mem::take(&mut self.sealed);
        self.in_flight += bytes.len();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// The runtime has written what it took.
    pub(crate) fn written(&mut self) {
        self.in_flight = 0;
    }

    /// Whether something is to be written, or our direction to be ended.
    pub(crate) fn has_more_to_say(&self) -> bool {
        self.backlog() > 0 || matches!(self.shut, Shut::Wanted | Shut::Said)
    }

    /// The last bytes of a connection that is given up, with the goodbye of TLS.
    pub(crate) fn last_words(&mut self) -> BytesMut {
        self.patient = 0;
        self.seal();
        if let Some(tls) = &mut self.tls
            && matches!(self.shut, Shut::No | Shut::Wanted)
        {
            tls.close(&mut self.sealed);
        }
        core::mem::take(&mut self.sealed)
    }

    /// From here on asking what waits to be written is a fault of ours.
    #[cfg(test)]
    pub(crate) fn break_backlog(&mut self) {
        self.in_flight = usize::MAX;
        self.sealed.extend_from_slice(b"x");
    }

    fn can_seal(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::is_ready)
    }

    /// Turns what the stage wrote into what goes over the wire: one record for all that one turn wrote.
    fn seal(&mut self) {
        match &mut self.tls {
            None => self.sealed.unsplit(core::mem::take(&mut self.outgoing)),
            Some(tls) if tls.is_ready() && !self.outgoing.is_empty() => {
                let plain = core::mem::take(&mut self.outgoing);
                // A connection that can no longer encrypt is found dead by its next read.
                let _ = tls.seal(&plain, &mut self.sealed);
            }
            Some(_) => {}
        }
    }
}
