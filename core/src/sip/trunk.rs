//! Which addresses does a mediaserver have by now, and which of them is the one for this request?

use core::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{health::Health, link::Link};
use crate::{
    action::ConnId,
    config::{self, Host, HostPort, Mediaserver, PeerRule, Reach, TrunkTransport},
    stats::Liveness,
    time::Instant,
    wire::sip::uri::{DEFAULT_PORT, Uri},
};

/// Addresses that one mediaserver has at once, and as many again that it had.
const NODES_MAX: usize = 16;
/// An address that a name no longer stands for serves the calls that it has for so long.
const RETIREMENT: Duration = Duration::from_secs(3600);
/// When a name that has no address yet is asked for again, unless names are asked for sooner.
const FIRST_RESOLVE: Duration = Duration::from_secs(5);

/// A mediaserver, by its place in [`Bridge::trunks`](super::Bridge).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct TrunkId(pub(super) usize);

impl TrunkId {
    pub(super) const fn index(self) -> usize {
        self.0
    }
}

/// A mediaserver.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) name: Box<str>,
    pub(super) reach: Reach,
    /// Stands for the name in tokens.
    pub(super) mark: u16,
    pub(super) transport: TrunkTransport,
    /// Whether it is no longer configured.
    pub(super) is_gone: bool,
    /// What is configured, in order of priority.
    entries: Vec<Entry>,
    /// What that stands for, in the same order; then addresses that are no longer among them.
    nodes: Vec<Node>,
    media_ports: RangeInclusive<u16>,
    /// Connections with addresses that are forgotten.
    orphans: Vec<ConnId>,
    /// The number of the last question after its health.
    question: u32,
    /// When its health is asked for.
    pub(super) ask_at: Instant,
    /// When its names are.
    pub(super) resolve_at: Instant,
    /// When the timer heap wakes it.
    pub(super) armed: Option<Instant>,
}

/// An address as configured.
#[derive(Debug)]
struct Entry {
    at: HostPort,
    /// What the host stands for.
    known: Vec<IpAddr>,
}

/// One address of a mediaserver.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) health: Health,
    pub(super) link: Link,
    /// Until when errors of the network say nothing new.
    pub(super) suspect_until: Option<Instant>,
    /// Since when it is none of the mediaserver's addresses any more.
    retired_at: Option<Instant>,
}

impl Trunk {
    pub(super) fn new(now: Instant, config: &Mediaserver) -> Self {
        let digest = Sha256::digest(&config.name);
        let mut trunk = Self {
            name: config.name.as_str().into(),
            reach: config.reach,
            mark: u16::from_be_bytes([digest[0], digest[1]]),
            transport: config.transport,
            is_gone: false,
            entries: Vec::new(),
            nodes: Vec::new(),
            media_ports: config.media_ports.clone(),
            orphans: Vec::new(),
            question: 0,
            ask_at: now,
            resolve_at: now,
            armed: None,
        };
        trunk.configure(now, config);
        trunk
    }

    /// Takes over what is configured now. What it knows of addresses and names that stay is kept.
    pub(super) fn configure(&mut self, now: Instant, config: &Mediaserver) {
        self.is_gone = false;
        self.reach = config.reach;
        self.transport = config.transport;
        self.media_ports = config.media_ports.clone();
        let before = core::mem::take(&mut self.entries);
        self.entries = config
            .addresses
            .iter()
            .map(|at| Entry {
                known: match &at.host {
                    Host::Address(address) => vec![*address],
                    Host::Name(_) => known(&before, at).to_vec(),
                },
                at: at.clone(),
            })
            .collect();
        self.resolve_at = now;
        self.list_nodes(now);
    }

    /// A name stands for these addresses now; those that it stood for before come first, in their order, so that a
    /// resolver which turns them round changes nothing. Tells whether that changed anything.
    pub(super) fn resolved(&mut self, now: Instant, host: &str, found: &[IpAddr]) -> bool {
        for entry in &mut self.entries {
            if !matches!(&entry.at.host, Host::Name(name) if name == host) {
                continue;
            }
            entry.known.retain(|address| found.contains(address));
            for address in found {
                if !entry.known.contains(address) {
                    entry.known.push(*address);
                }
            }
        }
        self.list_nodes(now)
    }

    /// The names to ask for.
    pub(super) fn names(&self) -> Vec<Box<str>> {
        let mut names: Vec<Box<str>> = Vec::new();
        for entry in &self.entries {
            if let Host::Name(name) = &entry.at.host
                && !names.iter().any(|known| **known == **name)
            {
                names.push(name.as_str().into());
            }
        }
        names
    }

    /// When to ask for names again.
    pub(super) fn next_resolve(&self, now: Instant, lifetime: Duration) -> Instant {
        let is_known = self.entries.iter().all(|entry| !entry.known.is_empty());
        now + if is_known {
            lifetime
        } else {
            lifetime.min(FIRST_RESOLVE)
        }
    }

    /// Makes the addresses what the entries stand for. Tells whether that changed anything.
    fn list_nodes(&mut self, now: Instant) -> bool {
        let mut before = core::mem::take(&mut self.nodes);
        let places: Vec<(SocketAddr, bool)> = before.iter().map(Node::place).collect();
        for entry in &self.entries {
            for ip in &entry.known {
                let address = SocketAddr::new(*ip, entry.at.port);
                if self.nodes.len() >= NODES_MAX || self.nodes.iter().any(|node| node.address == address) {
                    continue;
                }
                let known = before.iter().position(|node| node.address == address);
                self.nodes.push(match known {
                    Some(place) => Node {
                        retired_at: None,
                        ..before.remove(place)
                    },
                    None => Node::new(address, now),
                });
            }
        }
        for mut node in before {
            // What it serves goes on there, as long as it lives.
            let since = *node.retired_at.get_or_insert(now);
            let has_room = self.nodes.len() < 2 * NODES_MAX;
            if has_room && !node.health.is_down() && now.saturating_since(since) < RETIREMENT {
                self.nodes.push(node);
            } else {
                self.orphans.extend(node.link.conn());
            }
        }
        !self.nodes.iter().map(Node::place).eq(places)
    }

    /// Forgets addresses that it no longer has and that serve nobody any more; tells whether there were any.
    pub(super) fn let_go(&mut self, now: Instant) -> bool {
        self.nodes.iter().any(|node| node.retired_at.is_some()) && self.list_nodes(now)
    }

    /// Every address that may speak to us, those included that it had until lately.
    pub(super) fn nodes(&self) -> &[Node] {
        if self.is_gone { &[] } else { &self.nodes }
    }

    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        if self.is_gone { &mut [] } else { &mut self.nodes }
    }

    pub(super) fn node(&self, address: SocketAddr) -> Option<&Node> {
        self.nodes().iter().find(|node| node.address == address)
    }

    /// Whether requests may go to any of its addresses.
    pub(super) fn is_available(&self) -> bool {
        self.current().any(|node| !node.health.is_down())
    }

    /// Whether any of its addresses lives.
    pub(super) fn liveness(&self) -> Liveness {
        let has = |wanted| self.current().any(|node| node.health.liveness() == wanted);
        let best = [Liveness::Up, Liveness::Unknown]
            .into_iter()
            .find(|liveness| has(*liveness));
        best.unwrap_or(Liveness::Down)
    }

    /// Whether this address is one to begin something at.
    pub(super) fn is_current(&self, address: SocketAddr) -> bool {
        self.current().any(|node| node.address == address)
    }

    /// The address for a request: the one that is preferred while it lives, else the first that does. `tried` have
    /// failed it already.
    pub(super) fn pick(&self, now: Instant, preferred: Option<SocketAddr>, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let preferred = preferred.and_then(|address| self.node(address));
        let candidates = || preferred.into_iter().chain(self.current());
        let untried = |node: &&Node| !tried.contains(&node.address);
        let up = candidates().find(|node| untried(node) && node.health.is_up(now));
        // One that may be dead is better than none.
        let any = || candidates().find(|node| untried(node) && !node.health.is_down());
        up.or_else(any).map(|node| node.address)
    }

    /// The address that a URI names, if it is one of this mediaserver's.
    pub(super) fn named_by(&self, uri: &Uri<'_>) -> Option<SocketAddr> {
        let host = core::str::from_utf8(uri.host).ok()?;
        let port = uri.port.unwrap_or(DEFAULT_PORT);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return self.node(SocketAddr::new(ip, port)).map(|node| node.address);
        }
        let is_named = |entry: &&Entry| {
            entry.at.port == port && matches!(&entry.at.host, Host::Name(name) if name.eq_ignore_ascii_case(host))
        };
        let entry = self.entries.iter().find(is_named)?;
        entry.known.first().map(|ip| SocketAddr::new(*ip, port))
    }

    /// Where its media is.
    pub(super) fn media(&self) -> impl Iterator<Item = PeerRule> + '_ {
        let of = |node: &Node| PeerRule::one_host(node.address.ip(), self.media_ports.clone());
        self.nodes().iter().map(of)
    }

    /// When it wants to be looked after.
    pub(super) fn wake(&self) -> Instant {
        let links = self.linked_nodes().filter_map(|node| node.link.wake());
        let resolve = self.entries.iter().any(Entry::is_name).then_some(self.resolve_at);
        links.chain(resolve).fold(self.ask_at, Instant::min)
    }

    /// Whether there are to be TCP connections with it.
    pub(super) fn is_linked(&self) -> bool {
        !self.is_gone && self.transport == TrunkTransport::TcpWhenLarge
    }

    /// Connections that nobody needs any more.
    pub(super) fn unwanted_links(&mut self, now: Instant) -> Vec<ConnId> {
        let mut unwanted = core::mem::take(&mut self.orphans);
        if !self.is_linked() {
            for node in &mut self.nodes {
                unwanted.extend(node.link.conn());
                node.link = Link::new(now);
            }
        }
        unwanted
    }

    /// A question goes out to every address; returns them, each with the number of its own.
    pub(super) fn ask(&mut self, limits: &config::Health) -> Vec<(SocketAddr, u32)> {
        let answering = self.nodes.iter().filter(|node| node.health.answers()).count();
        let mut asked = Vec::new();
        for node in &mut self.nodes {
            let was_down = node.health.is_down();
            let neighbours_answer = answering > usize::from(node.health.answers());
            self.question = self.question.wrapping_add(1);
            asked.push((node.address, self.question));
            node.health.ask(self.question, neighbours_answer, limits);
            if node.health.is_down() && !was_down {
                tracing::warn!(mediaserver = %self.name, address = %node.address, "a mediaserver does not answer");
            } else if node.health.is_missed(limits) {
                tracing::warn!(
                    mediaserver = %self.name,
                    address = %node.address,
                    fix = "look whether this is its address, and whether UDP is let through both ways",
                    "a mediaserver has never answered OPTIONS; it is called all the same"
                );
            }
        }
        asked
    }

    /// Something says that an address lives.
    pub(super) fn heard(&mut self, address: SocketAddr, sign: impl FnOnce(&mut Health)) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.address == address) else {
            return;
        };
        let before = node.health.liveness();
        sign(&mut node.health);
        match (before, node.health.liveness()) {
            (Liveness::Unknown, Liveness::Up) => {
                tracing::info!(mediaserver = %self.name, %address, "a mediaserver answers");
            }
            (Liveness::Down, Liveness::Up) => {
                tracing::info!(mediaserver = %self.name, %address, "a mediaserver answers again");
            }
            _ => {}
        }
    }

    fn linked_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|_| self.is_linked())
    }

    /// The addresses that it has now, first choice first.
    fn current(&self) -> impl Iterator<Item = &Node> {
        self.nodes().iter().filter(|node| node.retired_at.is_none())
    }
}

impl Entry {
    const fn is_name(&self) -> bool {
        matches!(self.at.host, Host::Name(_))
    }
}

impl Node {
    fn new(address: SocketAddr, now: Instant) -> Self {
        Self {
            address,
            health: Health::default(),
            link: Link::new(now),
            suspect_until: None,
            retired_at: None,
        }
    }

    fn place(&self) -> (SocketAddr, bool) {
        (self.address, self.retired_at.is_some())
    }
}

fn known<'a>(entries: &'a [Entry], at: &HostPort) -> &'a [IpAddr] {
    let entry = entries.iter().find(|entry| entry.at.host == at.host);
    entry.map_or(&[], |entry| &entry.known)
}
