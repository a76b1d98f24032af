//! How much of a shard may one client take? Connections, and bytes that wait for somebody slow.

use std::{collections::HashMap, net::IpAddr};

use ahash::RandomState;

use crate::{
    action::{ConnId, Egress},
    conn::Conn,
    limit::Account,
    refusal::{Role, refused},
    shard::Shard,
    time::Now,
};

/// What is counted at once, so that small answers cost nothing.
const PAGE_BYTES: usize = 4096;

/// What each client takes.
#[derive(Debug)]
pub(super) struct Clients {
    held: HashMap<Account, Held, RandomState>,
    /// Clients for whom too much waits.
    starved: usize,
    /// Those for whom this has just begun or ended.
    changed: Vec<Account>,
}

#[derive(Debug, Default)]
struct Held {
    connections: usize,
    /// Bytes that wait to be written, in whole pages, to them and to upstreams on their behalf.
    waiting_bytes: usize,
    is_starved: bool,
}

impl Clients {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            held: HashMap::with_hasher(hasher),
            starved: 0,
            changed: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn connections(&self, client: Account) -> usize {
        self.held.get(&client).map_or(0, |held| held.connections)
    }

    /// A client that is starved since a moment ago, or no longer.
    pub(super) fn next_changed(&mut self) -> Option<Account> {
        self.changed.pop()
    }

    pub(super) fn add(&mut self, client: Account) {
        self.held.entry(client).or_default().connections += 1;
    }

    /// Changes an account, which ends when nothing is in it. A client is starved from `bytes_max` on, until half of that
    /// is left: what changes for all its connections at once must not change often.
    fn change(&mut self, client: Account, bytes_max: usize, edit: impl FnOnce(&mut Held)) {
        let held = self.held.entry(client).or_default();
        edit(held);
        let is_starved = match held.is_starved {
            true => held.waiting_bytes >= bytes_max / 2 && held.waiting_bytes > 0,
            false => held.waiting_bytes >= bytes_max,
        };
        if is_starved != held.is_starved {
            held.is_starved = is_starved;
            self.changed.push(client);
            match is_starved {
                true => self.starved += 1,
                false => self.starved -= 1,
            }
        }
        if held.connections == 0 && held.waiting_bytes == 0 {
            self.held.remove(&client);
        }
    }
}

impl Shard {
    /// Counts one more connection of a client, unless it has too many.
    pub(super) fn admit(&mut self, client: IpAddr) -> bool {
        let account = Account::of(client);
        let connections_max = self.config.server.connections_per_address_max;
        let is_admitted = self.is_trusted(client) || self.clients.connections(account) < connections_max;
        if is_admitted {
            self.clients.add(account);
        } else {
            refused(
                Role::Edge,
                client,
                "connections",
                "one address holds too many connections",
            );
        }
        is_admitted
    }

    /// A connection is no longer here.
    pub(super) fn release_client(&mut self, conn: &mut Conn) {
        let bytes_max = self.waiting_bytes_max();
        if let Some((client, bytes)) = conn.counted.take() {
            self.clients
                .change(client, bytes_max, |held| held.waiting_bytes -= bytes);
        }
        if conn.is_accepted() {
            self.clients
                .change(Account::of(conn.peer.ip()), bytes_max, |held| held.connections -= 1);
        }
    }

    /// Counts what waits to be written to a connection for the client that it belongs to or works for.
    pub(super) fn count_waiting(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id.0) else { return };
        let bytes = conn.backlog() / PAGE_BYTES * PAGE_BYTES;
        if bytes == conn.counted.map_or(0, |(_, bytes)| bytes) {
            return;
        }
        let client = self
            .client_of(conn)
            .filter(|client| bytes > 0 && !self.is_trusted(*client));
        let bytes_max = self.waiting_bytes_max();
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let counted = client.map(|client| (Account::of(client), bytes));
        let last = core::mem::replace(&mut conn.counted, counted);
        // What is more before what is less, so that nobody is fed for a moment only.
        if let Some((client, bytes)) = counted {
            self.clients
                .change(client, bytes_max, |held| held.waiting_bytes += bytes);
        }
        if let Some((client, bytes)) = last {
            self.clients
                .change(client, bytes_max, |held| held.waiting_bytes -= bytes);
        }
    }

    /// Whether so much waits for the client of a connection that this one may bring nothing more for it.
    pub(super) fn is_starved(&self, conn: &Conn) -> bool {
        // As a rule, nobody is.
        self.clients.starved > 0
            && self
                .client_of(conn)
                .and_then(|client| self.clients.held.get(&Account::of(client)))
                .is_some_and(|held| held.is_starved)
    }

    /// Stops or starts all connections of a client for whom too much waits, or no longer.
    pub(super) fn feed(&mut self, now: Now, client: Account, out: &mut Egress) {
        let its = |conn: &Conn| conn.stage.pair().is_some() && self.client_of(conn).map(Account::of) == Some(client);
        let conns = self.conns.iter().filter(|(_, conn)| its(conn));
        for id in conns.map(|(key, _)| ConnId(key)).collect::<Vec<_>>() {
            self.go_on(now, id, out);
        }
    }

    /// Whom a connection belongs to or, where it is one of ours, works for.
    fn client_of(&self, conn: &Conn) -> Option<IpAddr> {
        let accepted = match conn.is_accepted() {
            true => Some(conn),
            false => conn
                .stage
                .pair()
                .and_then(|pair| self.conns.get(pair.0))
                .filter(|pair| pair.is_accepted()),
        };
        accepted.map(|conn| conn.peer.ip().to_canonical())
    }

    /// A proxy in front of us brings the connections of many.
    fn is_trusted(&self, client: IpAddr) -> bool {
        let https = self.config.https.as_ref();
        https.is_some_and(|https| https.trusted_proxies.iter().any(|net| net.contains(&client)))
    }

    fn waiting_bytes_max(&self) -> usize {
        let https = self.config.https.as_ref();
        https.map_or(usize::MAX, |https| https.limits.buffer_bytes_per_address_max)
    }
}
