//! Does a shard hold no more than it may, and nothing at all when everybody has left?

use crate::world::{history::Seen, site};

/// What is allowed to be there now.
#[derive(Debug, Default)]
pub struct Held {
    all_left: bool,
}

/// Every kind of connection.
const CONNECTIONS: [&str; 7] = [
    "http_connections",
    "upstream_connections",
    "tunnel_connections",
    "sip_connections",
    "turn_connections",
    "mediaserver_connections",
    "other_connections",
];

/// A connection with a mediaserver is made before it is needed; a server that failed is known until it answers again.
const STAYING: [&str; 2] = ["mediaserver_connections", "web_backends_failing"];

impl Held {
    /// Something has happened.
    ///
    /// # Errors
    /// With what must not be.
    pub fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::AllLeft => self.all_left = true,
            Seen::Output { waiting } if *waiting > site::WAITING_BYTES_MAX => {
                return Err(format!("{waiting} bytes wait for one reader"));
            }
            Seen::Held { shard, gauges } => return self.gauges(*shard, gauges),
            _ => {}
        }
        Ok(())
    }

    fn gauges(&self, shard: usize, gauges: &[(&'static str, u64)]) -> Result<(), String> {
        let sum = |names: &[&str]| -> u64 {
            let named = gauges.iter().filter(|(name, _)| names.contains(name));
            named.map(|(_, value)| value).sum()
        };
        let limits = [
            ("connections", sum(&CONNECTIONS), site::CONNECTIONS_MAX),
            ("flows", sum(&["sip_flows"]), site::FLOWS_MAX),
            ("allocations", sum(&["turn_allocations"]), site::ALLOCATIONS_MAX),
        ];
        for (what, held, most) in limits {
            if held > most {
                return Err(format!("shard {shard} holds {held} {what}, more than {most}"));
            }
        }
        let mut left = gauges
            .iter()
            .filter(|(name, value)| *value > 0 && !STAYING.contains(name));
        let left = left.next();
        match left {
            Some((name, value)) if self.all_left => {
                Err(format!("everybody has left, but shard {shard} holds {value} {name}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_or_left_is_found() {
        let check = |all_left, gauges: &[(&'static str, u64)]| {
            let mut held = Held { all_left };
            held.see(&Seen::Held { shard: 0, gauges })
        };
        assert_eq!(check(false, &[("sip_flows", 3), ("turn_allocations", 60)]), Ok(()));
        check(false, &[("turn_allocations", 61)]).expect_err("too many allocations");
        check(false, &[("http_connections", 200), ("turn_connections", 201)]).expect_err("too many connections");
        check(true, &[("sip_flows", 1)]).expect_err("a flow was left");
        assert_eq!(check(true, &[("sip_flows", 0)]), Ok(()));
        let waiting = site::WAITING_BYTES_MAX + 1;
        Held::default()
            .see(&Seen::Output { waiting })
            .expect_err("too many bytes");
    }
}
