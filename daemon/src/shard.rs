//! How does a runtime drive a shard that may be recorded? By the doors of the core, each of which tells the recorder.

use std::{iter, net::SocketAddr};

use bytes::BytesMut;
use edgeward_core::{
    action::{Action, Conn, ConnId, Egress, Input, ListenerId, Refused, RelayId, Run, ShardId, SocketId},
    config::SharedConfig,
    stats::Snapshot,
    time::{Instant, Now},
};

use crate::record::{Digest, Event, Recorder, id};

/// A shard of the core. What it is told is written down where there is a recorder; else each call is a look whether there
/// is one, and that of the core.
#[derive(Debug)]
pub struct Shard {
    core: edgeward_core::Shard,
    recorder: Option<Box<Recorder>>,
    /// When something happened last.
    last: Now,
}

impl Shard {
    /// A shard of a process that has `shards` of them.
    pub fn new(
        config: SharedConfig,
        id: ShardId,
        shards: u16,
        seed: [u8; 32],
        recorder: Option<Recorder>,
        now: Now,
    ) -> Self {
        let mut core = edgeward_core::Shard::new(config, id, shards, seed, now);
        let event = recorder.is_some().then_some(Event::Start { shards, seed });
        if recorder.is_some() {
            core.write_transcript();
        }
        let mut shard = Self {
            core,
            recorder: recorder.map(Box::new),
            last: now,
        };
        shard.happened(now, event, |_| ());
        shard
    }

    /// [`accept`](edgeward_core::Shard::accept).
    ///
    /// # Errors
    /// Those of the core.
    pub fn accept(&mut self, now: Now, on: ListenerId, local: SocketAddr, peer: SocketAddr) -> Result<ConnId, Refused> {
        let event = self.event(|_| Event::Accept { on: on.0, local, peer });
        let result = self.core.accept(now, on, local, peer);
        self.happened(now, event, |digest| digest.accepted(result));
        result
    }

    /// [`accept_peer`](edgeward_core::Shard::accept_peer).
    ///
    /// # Errors
    /// Those of the core.
    pub fn accept_peer(
        &mut self,
        now: Now,
        on: RelayId,
        local: SocketAddr,
        peer: SocketAddr,
        out: &mut Egress,
    ) -> Result<ConnId, Refused> {
        let on_id = id(on.0);
        let event = self.event(|_| Event::AcceptPeer { on: on_id, local, peer });
        let before = out.pieces.len();
        let result = self.core.accept_peer(now, on, local, peer, out);
        self.happened(now, event, |digest| {
            digest.accepted(result);
            digest.egress(out, before, &[]);
        });
        result
    }

    /// [`adopt`](edgeward_core::Shard::adopt).
    ///
    /// # Errors
    /// Those of the core.
    pub fn adopt(&mut self, now: Now, conn: Box<Conn>) -> Result<ConnId, Refused> {
        let event = self.event(|_| Recorder::adopting(&conn));
        let is_encrypted = conn.is_encrypted();
        let result = self.core.adopt(now, conn);
        self.happened(now, event, |digest| digest.accepted(result));
        if let (Some(recorder), Ok(conn)) = (&mut self.recorder, result) {
            recorder.adopted(conn, is_encrypted);
        }
        result
    }

    /// [`resume`](edgeward_core::Shard::resume).
    pub fn resume(&mut self, now: Now, conn: ConnId, out: &mut Egress) {
        let event = self.event(|_| Event::Resume(id(conn.0)));
        let before = out.pieces.len();
        self.core.resume(now, conn, out);
        self.happened(now, event, |digest| digest.egress(out, before, &[]));
    }

    /// [`receive`](edgeward_core::Shard::receive).
    pub fn receive(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], out: &mut Egress) {
        let event = self.event(|recorder| recorder.received(conn, bytes));
        let before = out.pieces.len();
        self.core.receive(now, conn, bytes, out);
        self.happened(now, event, |digest| digest.egress(out, before, &[]));
    }

    /// [`datagrams`](edgeward_core::Shard::datagrams).
    pub fn datagrams(&mut self, now: Now, on: SocketId, runs: &[Run<'_>], out: &mut Egress) {
        let event = self.event(|_| Event::Datagrams {
            on: on.into(),
            runs: runs.iter().map(Into::into).collect(),
        });
        let before = out.pieces.len();
        self.core.datagrams(now, on, runs, out);
        self.happened(now, event, |digest| digest.egress(out, before, runs));
    }

    /// [`handle`](edgeward_core::Shard::handle).
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Egress) {
        let event = self.event(|recorder| {
            if let Input::Configure(config) = &input {
                recorder.configured(config);
            }
            Event::of(&input, Digest::parcel)
        });
        let before = out.pieces.len();
        self.core.handle(now, input, out);
        self.happened(now, event, |digest| digest.egress(out, before, &[]));
    }

    /// [`timeout`](edgeward_core::Shard::timeout).
    pub fn timeout(&mut self, now: Now, out: &mut Egress) {
        let event = self.event(|_| Event::Timeout);
        let before = out.pieces.len();
        self.core.timeout(now, out);
        self.happened(now, event, |digest| digest.egress(out, before, &[]));
    }

    /// [`poll_timeout`](edgeward_core::Shard::poll_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    /// [`poll_action`](edgeward_core::Shard::poll_action).
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.core.poll_action();
        if let (Some(recorder), Some(action)) = (&mut self.recorder, &action) {
            recorder.asked(action);
        }
        action
    }

    /// [`take_output`](edgeward_core::Shard::take_output).
    pub fn take_output(&mut self, conn: ConnId) -> Option<BytesMut> {
        let event = self.event(|_| Event::TakeOutput(id(conn.0)));
        let output = self.core.take_output(conn);
        self.happened(self.last, event, |digest| digest.output(conn, output.as_ref()));
        output
    }

    /// [`snapshot`](edgeward_core::Shard::snapshot).
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// What is to be written down, where anything is. It is made before the core is told, which may change the bytes.
    fn event(&mut self, make: impl FnOnce(&mut Recorder) -> Event) -> Option<Event> {
        self.recorder.as_deref_mut().map(make)
    }

    /// Has it written, before the runtime learns what the shard asks: others can only follow from that.
    fn happened(&mut self, now: Now, event: Option<Event>, outcome: impl FnOnce(&mut Digest)) {
        let (Some(event), Some(recorder)) = (event, &mut self.recorder) else {
            return;
        };
        self.last = now;
        match recorder.happened(now, event, iter::from_fn(|| self.core.poll_heard())) {
            Ok(digest) => outcome(digest),
            Err(_) => {
                self.recorder = None;
                self.core.end_transcript();
            }
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let event = self.event(|_| Event::End);
        self.happened(self.last, event, |_| ());
    }
}
