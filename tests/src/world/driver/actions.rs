//! How does the simulated runtime do what a shard asks? At once, later, in parts, or in vain.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use edgeward_core::{
    action::{Action, Addresses, ConnId, Parcel, RelayId, Run, SocketId, Transport},
    time::Instant,
};

use super::{Cx, Edge, Link, Sabotage, Task, Up, dial_name};
use crate::world::{
    agenda::{Event, MS, SEC, US},
    history::Seen,
    net::{End, Owner},
    site,
};

/// Rings of an alarm at one moment, after which it spins.
const SPINS_MAX: u32 = 200;

impl Edge {
    /// Carries out what a shard asks until it asks no more, then sends and sets the alarm.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>, shard: usize, runs: &[Run<'_>]) {
        while let Some(action) = self.cores[shard].shard.poll_action() {
            self.carry_out(cx, shard, action);
        }
        self.send(cx, shard, runs);
        self.set_alarm(cx, shard);
    }

    fn set_alarm(&mut self, cx: &mut Cx<'_>, shard: usize) {
        let now = cx.net.now();
        let due = self.cores[shard].shard.poll_timeout().map(Instant::as_nanos);
        let due = due.map(|due| self.when(due));
        let core = &mut self.cores[shard];
        let Some(due) = due else {
            core.alarm = None;
            return;
        };
        if due <= now {
            core.spins += 1;
            if core.spins > SPINS_MAX {
                cx.checkers.fail(format!(
                    "shard {shard} wants to be woken at {due}, again and again, and it is {now}"
                ));
                core.alarm = None;
                return;
            }
        } else {
            core.spins = 0;
        }
        let at = due.max(now);
        // A runtime's timer is never early, and often late.
        let late = match cx.net.faults.delay.0 == cx.net.faults.delay.1 {
            true => 0,
            false => cx.net.from_to(0, 2_000) * US,
        };
        if core.alarm.is_none_or(|alarm| alarm > at + late || alarm < due) {
            core.alarm = Some(at + late);
            cx.net.agenda.at(at + late, Event::Edge(Task::Wake(shard, at + late)));
        }
    }

    fn carry_out(&mut self, cx: &mut Cx<'_>, shard: usize, action: Action) {
        match action {
            Action::Flush(conn) => self.flush(cx, shard, conn),
            Action::Read(conn, reading) => {
                if let Some(Link::Up(up)) = self.cores[shard].links.get_mut(&conn) {
                    if !reading {
                        cx.net.met.count("a stream was left unread");
                    }
                    up.reading = reading;
                    cx.net.set_reading(up.end, reading);
                }
            }
            Action::Shut(conn) => {
                if let Some(Link::Up(up)) = self.cores[shard].links.get(&conn) {
                    cx.net.shut(up.end);
                }
            }
            Action::Close(conn, last_words) => match self.cores[shard].links.remove(&conn) {
                Some(Link::Up(mut up)) => {
                    self.ends.remove(&up.end);
                    up.pending.extend_from_slice(&last_words);
                    cx.net.close(up.end, &up.pending);
                }
                Some(Link::Dialing(end)) => self.stop_dialing(cx, shard, conn, end),
                // One that failed, or one that was never dialled.
                Some(Link::Dead) | None => {}
            },
            Action::Reset(conn) => match self.cores[shard].links.remove(&conn) {
                Some(Link::Up(Up { end, .. })) => {
                    self.ends.remove(&end);
                    cx.net.reset(end);
                }
                Some(Link::Dialing(end)) => self.stop_dialing(cx, shard, conn, end),
                Some(Link::Dead) => {}
                None => cx
                    .checkers
                    .fail(format!("shard {shard} resets {conn:?}, which is not there")),
            },
            Action::CloseSocket(relay) => self.close_relay(cx, shard, relay),
            Action::Dial { conn, from, to } => {
                self.ask(cx, shard, &dial_name(conn));
                let from = from.unwrap_or_else(|| SocketAddr::new(site::EDGE_INSIDE, 0));
                let end = cx.net.dial(Owner::Edge, from, to);
                self.ends.insert(end, (shard, conn));
                self.cores[shard].links.insert(conn, Link::Dialing(end));
            }
            Action::Resolve { query, host } => {
                self.ask(cx, shard, &format!("Resolve {query:?}"));
                let fails = cx.net.fails(cx.net.faults.name);
                if fails {
                    cx.net.met.count("a name was not found");
                }
                let addresses = site::look_up(&host);
                let found = (!fails && !addresses.is_empty()).then_some(Addresses { addresses });
                let delay = match fails {
                    true => cx.net.from_to(0, 20) * SEC,
                    false => cx.net.delay(),
                };
                let task = Task::Resolved(shard, query, found);
                cx.net.agenda.after(delay, Event::Edge(task));
            }
            Action::BindRelay { relay, transport, at } => {
                self.ask(cx, shard, &format!("BindRelay {relay:?}"));
                let delay = cx.net.from_to(0, 200) * US;
                let task = Task::Bound(shard, relay, transport, at);
                cx.net.agenda.after(delay, Event::Edge(task));
            }
            Action::Forward { to, parcel } => self.forward(cx, shard, usize::from(to.0), parcel),
            Action::Log(_) => {}
            Action::Drained => self.cores[shard].drained = true,
        }
    }

    /// Nobody wants to know any more whether a call is answered.
    fn stop_dialing(&mut self, cx: &mut Cx<'_>, shard: usize, conn: ConnId, end: End) {
        self.ends.remove(&end);
        self.answer(cx, shard, &dial_name(conn));
        cx.net.reset(end);
    }

    fn flush(&mut self, cx: &mut Cx<'_>, shard: usize, conn: ConnId) {
        let core = &mut self.cores[shard];
        let up = match core.links.get_mut(&conn) {
            Some(Link::Up(up)) => up,
            Some(Link::Dead) => return,
            Some(Link::Dialing(_)) | None => {
                return cx
                    .checkers
                    .fail(format!("shard {shard} has output for {conn:?}, which is not there"));
            }
        };
        // No more is taken before the last output is written.
        if up.is_writing {
            return;
        }
        let Some(mut bytes) = core.shard.take_output(conn) else {
            return;
        };
        if self.sabotage == Some(Sabotage::Corrupt)
            && up.end.side == 0
            && bytes.len() > 2_000
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        up.is_writing = true;
        up.pending.unsplit(bytes);
        let waiting = up.pending.len();
        cx.checkers.see(cx.net.now(), &Seen::Output { waiting });
        self.write_on(cx, shard, conn);
    }

    /// Writes what is pending; tells the core when all is written, at once or later.
    pub(super) fn write_on(&mut self, cx: &mut Cx<'_>, shard: usize, conn: ConnId) {
        let Some(Link::Up(up)) = self.cores[shard].links.get_mut(&conn) else {
            return;
        };
        if !up.is_writing {
            return;
        }
        if !up.pending.is_empty() {
            match cx.net.write(up.end, &up.pending) {
                Ok(written) => {
                    cx.trace.digest(cx.net.now(), &up.pending[..written]);
                    up.pending.advance(written);
                }
                Err(_) => {
                    // Whatever the peer said before it broke the stream is read first.
                    let task = Task::Broken(shard, conn);
                    return cx.net.agenda.after(US, Event::Edge(task));
                }
            }
        }
        if up.pending.is_empty() {
            up.pending = BytesMut::new();
            let delay = cx.net.from_to(0, 100) * US;
            cx.net.agenda.after(delay, Event::Edge(Task::Written(shard, conn)));
        }
    }

    fn forward(&mut self, cx: &mut Cx<'_>, from: usize, to: usize, parcel: Parcel) {
        let delay = cx.net.from_to(1, 2_000) * US;
        let now = cx.net.now();
        let last = self.mesh.entry((from, to)).or_default();
        *last = (*last).max(now + delay);
        let at = *last;
        match parcel {
            Parcel::Conn(conn, value) => {
                let Some(Link::Up(up)) = self.cores[from].links.remove(&conn) else {
                    return cx
                        .checkers
                        .fail(format!("shard {from} gives {conn:?} away, which is not there"));
                };
                self.ends.remove(&up.end);
                // Its new shard writes behind what this one has to say.
                cx.net.set_reading(up.end, false);
                cx.net.send(up.end, &up.pending);
                // The descriptor comes by another way than other parcels, and may take longer.
                let late = cx.net.from_to(0, 5) * MS;
                cx.net.agenda.at(at + late, Event::Edge(Task::Adopt(to, value, up.end)));
            }
            parcel => {
                // What a shard is too busy to take is lost, but for connections.
                if cx.net.fails(cx.net.faults.parcel) {
                    return cx.net.met.count("a parcel was lost");
                }
                cx.net.met.count(match &parcel {
                    Parcel::Datagram(_) => "a datagram was handed on",
                    _ => "a shard asked another for a rate",
                });
                cx.net.agenda.at(at, Event::Edge(Task::Parcel(to, parcel)));
            }
        }
    }

    fn close_relay(&mut self, cx: &mut Cx<'_>, shard: usize, relay: RelayId) {
        if self.sabotage == Some(Sabotage::KeepRelays) {
            return;
        }
        let Some((at, transport)) = self.cores[shard].relays.remove(&relay) else {
            return cx
                .checkers
                .fail(format!("shard {shard} closes the socket {relay:?}, which is not open"));
        };
        match transport {
            Transport::Udp => cx.net.unbind(at),
            Transport::Tcp => cx.net.unlisten(at),
        }
        self.relays.remove(&at);
        self.cores[shard].inboxes.remove(&SocketId::Relay(relay));
        cx.checkers.see(cx.net.now(), &Seen::Relay { at, is_there: false });
    }
}
