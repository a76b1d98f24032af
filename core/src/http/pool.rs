//! Which idle connection to an upstream can be used again? Those of one shard, for each upstream the youngest first.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::{action::ConnId, config::HttpLimits, time::Instant};

/// Idle connections to upstreams. Each is closed by a deadline of its own and then removed from here.
#[derive(Debug)]
pub struct Pool {
    /// For each upstream, the oldest in front.
    upstreams: Vec<VecDeque<Idle>>,
    idle: Duration,
    connections_max: usize,
}

#[derive(Debug)]
struct Idle {
    conn: ConnId,
    since: Instant,
}

impl Pool {
    /// A pool for so many upstreams.
    pub fn new(upstreams: usize, limits: &HttpLimits) -> Self {
        Self {
            upstreams: core::iter::repeat_with(VecDeque::new).take(upstreams).collect(),
            idle: limits.upstream_idle,
            connections_max: limits.upstream_idle_max,
        }
    }

    /// Keeps a connection that is [`reusable`](super::Client::reusable). Returns one that is to be closed, where it is
    /// one too many.
    pub fn push(&mut self, upstream: usize, conn: ConnId, now: Instant) -> Option<ConnId> {
        let Some(idle) = self.upstreams.get_mut(upstream).filter(|_| self.connections_max > 0) else {
            return Some(conn);
        };
        let oldest = if idle.len() >= self.connections_max {
            idle.pop_front()
        } else {
            None
        };
        idle.push_back(Idle { conn, since: now });
        oldest.map(|idle| idle.conn)
    }

    /// The connection to an upstream that was used last, unless it has been idle for too long.
    pub fn pop(&mut self, upstream: usize, now: Instant) -> Option<ConnId> {
        let idle = self.upstreams.get_mut(upstream)?;
        let expired = |youngest: &Idle| youngest.since + self.idle <= now;
        if idle.back().is_none_or(expired) {
            return None;
        }
        idle.pop_back().map(|idle| idle.conn)
    }

    /// Forgets a connection that was closed by the other side. Returns whether it was here.
    pub fn remove(&mut self, upstream: usize, conn: ConnId) -> bool {
        let Some(idle) = self.upstreams.get_mut(upstream) else {
            return false;
        };
        let Some(index) = idle.iter().position(|idle| idle.conn == conn) else {
            return false;
        };
        idle.remove(index).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Key;

    const SECOND: Duration = Duration::from_secs(1);

    fn conn(index: u32) -> ConnId {
        ConnId(Key::from_parts(index, 0))
    }

    fn pool() -> Pool {
        Pool::new(
            2,
            &HttpLimits {
                upstream_idle: 10 * SECOND,
                upstream_idle_max: 2,
                ..HttpLimits::default()
            },
        )
    }

    #[test]
    fn the_youngest_is_used_first_and_the_oldest_makes_room() {
        let (mut pool, now) = (pool(), Instant::ZERO);
        assert_eq!(pool.push(0, conn(1), now), None);
        assert_eq!(pool.push(0, conn(2), now), None);
        assert_eq!(pool.push(0, conn(3), now), Some(conn(1)));
        assert_eq!(pool.push(1, conn(4), now), None);
        assert_eq!(pool.push(2, conn(5), now), Some(conn(5)));
        assert_eq!(pool.pop(0, now), Some(conn(3)));
        assert!(pool.remove(0, conn(2)));
        assert!(!pool.remove(0, conn(2)));
        assert_eq!(pool.pop(0, now), None);
        assert_eq!(pool.pop(1, now), Some(conn(4)));
        assert_eq!(pool.pop(2, now), None);
    }

    #[test]
    fn what_was_idle_too_long_is_not_used() {
        let (mut pool, start) = (pool(), Instant::ZERO);
        pool.push(0, conn(1), start + SECOND);
        pool.push(1, conn(2), start);
        pool.push(1, conn(3), start + 2 * SECOND);
        let later = start + 11 * SECOND;
        assert_eq!(pool.pop(0, later), None);
        assert_eq!(pool.pop(1, later), Some(conn(3)));
        assert_eq!(pool.pop(1, later), None);
        // It is still known, until whoever closes it says so.
        assert!(pool.remove(1, conn(2)));
    }
}
