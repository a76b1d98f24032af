//! May this request go on, and when? Its zone decides; until that is known the request stays unread.

use core::{net::IpAddr, time::Duration};

use ahash::RandomState;

use crate::{
    action::{Action, ConnId, Egress, Parcel, RateQuestion, ShardId},
    config::{self, Config, Limit, Rates},
    conn::{Stage, Wait},
    http::Answer,
    limit::{Client, Verdict, Zone},
    rng::Rng,
    shard::{Shard, Step},
    time::Now,
};

/// How long another shard may take to say whether a client comes too often.
const VERDICT_WAIT: Duration = Duration::from_secs(2);

/// When a client whose request could not be judged may try again.
const RETRY_AFTER_SECS: u64 = 1;

/// What becomes of a request at the gate.
pub(super) enum Passage {
    /// It goes on.
    Open,
    /// It is held, unread.
    Held,
    /// It is refused.
    Refused(Answer),
}

/// Accounts of the clients whose home is here.
#[derive(Debug)]
pub(super) struct Zones {
    zones: Vec<(config::Zone, Zone)>,
    clients_max: usize,
    /// Tells the home of a client, on every shard alike.
    homes: RandomState,
}

impl Zones {
    pub(super) fn new(config: &Config, rng: &mut Rng) -> Self {
        let mut zones = Self {
            zones: Vec::new(),
            clients_max: 0,
            homes: config.keys.hasher(),
        };
        zones.configure(config, rng);
        zones
    }

    /// Takes the zones of another configuration; one that has not changed keeps its accounts.
    pub(super) fn configure(&mut self, config: &Config, rng: &mut Rng) {
        let Rates { zones, clients_max, .. } = &config.rates;
        let mut kept = core::mem::take(&mut self.zones);
        kept.retain(|_| *clients_max == self.clients_max);
        self.clients_max = *clients_max;
        let zones = zones.iter().map(|zone| {
            let same = |(old, _): &(config::Zone, Zone)| old.name == zone.name && old.interval == zone.interval;
            let accounts = match kept.iter().position(same) {
                Some(index) => kept.swap_remove(index).1,
                None => Zone::new(zone.interval, *clients_max, rng.hasher()),
            };
            (zone.clone(), accounts)
        });
        self.zones = zones.collect();
    }
}

impl Shard {
    /// Counts a request for its zone, once. A request that has to wait is taken back, and comes here again when the wait
    /// is over.
    pub(super) fn pass_gate(&mut self, now: Now, id: ConnId, client: IpAddr, limit: Option<Limit>) -> Passage {
        let Some(limit) = limit.filter(|_| !self.is_exempt(client)) else {
            return Passage::Open;
        };
        let Some((browser, _)) = self.browser(id) else {
            return Passage::Held;
        };
        match browser.gate.verdict {
            None => self.count(now, id, client, limit),
            Some(verdict) => self.obey(now, id, verdict),
        }
    }

    fn is_exempt(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.config.rates.exempt.iter().any(|net| net.contains(&client))
    }

    /// Each client has one account for the whole process, on the shard that its name falls to.
    fn count(&mut self, now: Now, id: ConnId, client: IpAddr, limit: Limit) -> Passage {
        let client = Client::of(client);
        let home = self.home_of(client);
        let question = RateQuestion { limit, client };
        if home == self.id {
            let verdict = self.judge(now, question);
            return self.obey(now, id, verdict);
        }
        self.actions.push_back(Action::Forward {
            to: home,
            parcel: Parcel::RateAsked {
                from: self.id,
                conn: id,
                question,
            },
        });
        self.hold(id, Wait::Verdict);
        self.set_deadline(id, Some(now.mono + VERDICT_WAIT));
        Passage::Held
    }

    fn home_of(&self, client: Client) -> ShardId {
        match self.shards {
            1 => self.id,
            shards => ShardId((self.web.zones.homes.hash_one(client) % u64::from(shards)) as u16),
        }
    }

    fn judge(&mut self, now: Now, RateQuestion { limit, client }: RateQuestion) -> Verdict {
        match self.web.zones.zones.get_mut(limit.zone) {
            Some((_, zone)) => zone.check(now.mono, client, limit.tolerance),
            None => Verdict::Admit,
        }
    }

    /// Another shard wants to know.
    pub(in crate::shard) fn rate_asked(&mut self, now: Now, from: ShardId, conn: ConnId, question: RateQuestion) {
        let verdict = self.judge(now, question);
        self.actions.push_back(Action::Forward {
            to: from,
            parcel: Parcel::RateJudged { conn, verdict },
        });
    }

    /// Another shard has judged.
    pub(in crate::shard) fn rate_judged(&mut self, now: Now, id: ConnId, verdict: Verdict, out: &mut Egress) {
        if let Some((browser, _)) = self.browser(id)
            && browser.gate.waits == Some(Wait::Verdict)
        {
            browser.gate.verdict = Some(verdict);
            self.release(now, id, out);
        }
    }

    fn obey(&mut self, now: Now, id: ConnId, verdict: Verdict) -> Passage {
        match verdict {
            Verdict::Wait(until) if until > now.mono => {
                if let Some((browser, _)) = self.browser(id) {
                    browser.gate.verdict = Some(verdict);
                }
                self.hold(id, Wait::Turn);
                self.set_deadline(id, Some(until));
                Passage::Held
            }
            Verdict::Wait(_) | Verdict::Admit => Passage::Open,
            Verdict::Refuse(retry_after) => {
                // RFC 6585 section 4. A part of a second is a second to wait.
                let secs = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                Passage::Refused(Answer::too_many_requests(secs))
            }
        }
    }

    /// Leaves the request at the front of a connection unread.
    fn hold(&mut self, id: ConnId, wait: Wait) {
        if let Some((browser, _)) = self.browser(id) {
            browser.gate.waits = Some(wait);
            browser.server.take_back();
        }
    }

    /// Reads a request again that was held.
    fn release(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        if let Some((browser, _)) = self.browser(id) {
            browser.gate.waits = None;
            self.go_on(now, id, out);
        }
    }

    /// Whether the request at the front of a connection is held.
    pub(in crate::shard) fn is_held(&self, id: ConnId) -> bool {
        matches!(self.conns.get(id.0).map(|conn| &conn.stage), Some(Stage::Http(browser)) if browser.gate.waits.is_some())
    }

    /// The time that a request was held for is over.
    pub(super) fn held_long_enough(&mut self, now: Now, id: ConnId, wait: Wait, out: &mut Egress) {
        match wait {
            Wait::Turn => self.release(now, id, out),
            Wait::Verdict => {
                self.stats.web.failed += 1;
                if self.answer(now, id, &Answer::unavailable(RETRY_AFTER_SECS), out) != Step::Gone {
                    self.close(now, id, out);
                }
            }
        }
    }
}
