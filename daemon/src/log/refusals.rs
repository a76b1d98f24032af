//! How many lines about clients that were turned away may there be? A few for each client and minute, and so many in all,
//! so that a flood cannot fill the disk.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{
    Event, Metadata,
    field::{Field, Visit},
};

/// What the core names events about refusals.
const TARGET: &str = "edgeward::security";

/// Lines are counted anew after this.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines about one client: enough for whoever counts them to shut it out.
const CLIENT_LINES_MAX: u32 = 10;

/// Lines about all clients.
const LINES_MAX: u32 = 1000;

/// How many lines were left out since the start.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many lines were left out since the start.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Whether an event is about a refusal.
pub(super) fn is_one(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

/// Lines of the last minute.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    /// By client; no more than there are lines.
    clients: HashMap<IpAddr, u32>,
}

impl Refusals {
    /// Whether an event becomes a line.
    pub(super) fn admit(&self, event: &Event<'_>) -> bool {
        let mut client = Client(None);
        event.record(&mut client);
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = window.admit(Instant::now(), client.0);
        LEFT_OUT.fetch_add(u64::from(!admitted), Ordering::Relaxed);
        admitted
    }
}

impl Window {
    fn admit(&mut self, now: Instant, client: Option<IpAddr>) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.lines = 0;
            self.clients.clear();
        }
        if self.lines >= LINES_MAX {
            return false;
        }
        if let Some(client) = client {
            let lines = self.clients.entry(site(client)).or_default();
            if *lines >= CLIENT_LINES_MAX {
                return false;
            }
            *lines += 1;
        }
        self.lines += 1;
        true
    }
}

/// Whoever has one address of an IPv6 network has all of its /64.
fn site(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// The client that an event is about.
struct Client(Option<IpAddr>);

impl Visit for Client {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "client" {
            self.0 = format!("{value:?}").parse().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_few_lines_and_all_together_not_too_many() {
        let mut window = Window::default();
        let start = Instant::now();
        let mut admitted = |at: Duration, clients: &[IpAddr]| {
            let admitted = clients.iter().filter(|client| window.admit(start + at, Some(**client)));
            admitted.count() as u32
        };
        let one: IpAddr = [192, 0, 2, 1].into();
        assert_eq!(admitted(Duration::ZERO, &[one; 50]), CLIENT_LINES_MAX);
        let network: Vec<IpAddr> = (0..50_u128)
            .map(|host| Ipv6Addr::from_bits(0x2001_0db8 << 96 | host).into())
            .collect();
        assert_eq!(admitted(Duration::ZERO, &network), CLIENT_LINES_MAX);
        let many: Vec<IpAddr> = (0..5000_u32)
            .map(|host| std::net::Ipv4Addr::from_bits(host).into())
            .collect();
        assert_eq!(admitted(WINDOW / 2, &many), LINES_MAX - 2 * CLIENT_LINES_MAX);
        assert_eq!(admitted(WINDOW, &[one; 50]), CLIENT_LINES_MAX);
    }
}
