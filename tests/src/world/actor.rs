//! What does somebody in the world do? They are started, told what happens, woken, and asked to leave.

use std::{fmt, net::SocketAddr};

use crate::{
    chance::Dice,
    world::{
        agenda::{Event, Time},
        check::Checkers,
        history::Seen,
        net::{End, Net, Notice, Owner},
        trace::Trace,
    },
};

/// Somebody who is not the edge.
pub trait Actor: fmt::Debug {
    /// The world begins.
    fn start(&mut self, cx: &mut Cx<'_>);

    /// The network tells something.
    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice);

    /// The time that it asked for has come.
    fn wake(&mut self, cx: &mut Cx<'_>, token: u64);

    /// From now on nothing is begun; what is under way goes on.
    fn rest(&mut self);

    /// It is time to go: everything is closed.
    fn leave(&mut self, cx: &mut Cx<'_>);

    /// What it has got out of the world, in words that do not depend on time.
    fn outcome(&self) -> Vec<String>;
}

/// What an actor needs of the world.
#[derive(Debug)]
pub struct Cx<'a> {
    /// Its place among the actors.
    pub me: usize,
    /// Its name in the trace.
    pub name: &'a str,
    /// Its own dice.
    pub dice: &'a mut Dice,
    /// The network.
    pub net: &'a mut Net,
    /// Who looks at what happens.
    pub checkers: &'a mut Checkers,
    /// What is kept of it.
    pub trace: &'a mut Trace,
    /// Seconds since 1970.
    pub unix: u64,
}

impl Cx<'_> {
    /// What time it is.
    pub const fn now(&self) -> Time {
        self.net.now()
    }

    /// Wakes it after this time.
    pub fn after(&mut self, time: Time, token: u64) {
        let actor = self.me;
        self.net.agenda.after(time, Event::Timer { actor, token });
    }

    /// Wakes it after a time between two.
    pub fn between(&mut self, low: Time, high: Time, token: u64) {
        let time = self.dice.from_to(low, high);
        self.after(time, token);
    }

    /// Calls somebody.
    pub fn dial(&mut self, from: SocketAddr, to: SocketAddr) -> End {
        self.net.dial(Owner::Actor(self.me), from, to)
    }

    /// Sends a datagram.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let arrives = self.net.send_datagram(from, to, bytes);
        self.trace.datagram(self.net.now(), from, to, bytes, arrives);
    }

    /// Tells the checkers.
    pub fn see(&mut self, seen: &Seen<'_>) {
        self.checkers.see(self.net.now(), seen);
    }

    /// Writes into the trace what it does.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        self.trace.note(self.net.now(), self.name, what);
    }

    /// Counts what has happened.
    pub fn met(&mut self, what: &'static str) {
        self.net.met.count(what);
    }
}
