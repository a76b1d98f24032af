//! May this request go on, and when? Its zone and its token decide; until that is known the request stays unread.

use core::{hash::Hash, net::IpAddr, time::Duration};

use ahash::RandomState;

use crate::{
    action::{Action, ConnId, Egress, Parcel, RateQuestion, ShardId},
    config::{Config, Limit, Rates},
    conn::{Identity, Stage, Wait},
    http::Answer,
    limit::{Account, Verdict, Zone},
    rng::Rng,
    shard::{Shard, Step},
    time::{Instant, Now},
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

impl Passage {
    /// Refused until so much time has passed.
    pub(super) fn too_often(retry_after: Duration) -> Self {
        // RFC 6585 section 4. A part of a second is a second to wait.
        let secs = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        Self::Refused(Answer::too_many_requests(secs))
    }
}

/// Accounts of the clients whose home is here.
#[derive(Debug)]
pub(super) struct Zones {
    zones: Vec<Known>,
    clients_max: usize,
    /// Tells the home of a client, on every shard alike.
    homes: RandomState,
}

/// A zone of the configuration.
#[derive(Debug)]
struct Known {
    /// What it is called among shards.
    id: u64,
    accounts: Zone,
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
            let id = self.homes.hash_one((&zone.name, zone.interval));
            match kept.iter().position(|known| known.id == id) {
                Some(place) => kept.swap_remove(place),
                None => Known {
                    id,
                    accounts: Zone::new(zone.interval, *clients_max, rng.hasher()),
                },
            }
        });
        self.zones = zones.collect();
    }

    /// A hash that is the same on every shard, and that nobody outside can foresee.
    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        self.homes.hash_one(value)
    }
}

impl Shard {
    /// Counts a request for its zone, once, for its user or, where that is nobody, for its address. A request that has to
    /// wait is taken back, and comes here again when the wait is over.
    pub(super) fn pass_gate(&mut self, now: Now, id: ConnId, client: IpAddr, limit: Option<Limit>) -> Passage {
        let Some((browser, _)) = self.browser(id) else {
            return Passage::Held;
        };
        let (known, identity) = (browser.gate.verdict, browser.gate.identity.as_ref());
        let account = match identity {
            Some(Identity::User { account, .. }) => *account,
            Some(Identity::Refused(_)) | None => Account::of(client),
        };
        let refusal = match identity {
            Some(Identity::Refused(status)) => Some(*status),
            Some(Identity::User { .. }) | None => None,
        };
        if let Some(limit) = limit.filter(|_| !self.is_exempt(client)) {
            let verdict = match known {
                Some(verdict) => verdict,
                None => match self.count(now, id, limit, account, true) {
                    Some(verdict) => verdict,
                    None => return Passage::Held,
                },
            };
            match self.obey(now, id, verdict) {
                Passage::Open => {}
                passage => return passage,
            }
        }
        match refusal {
            // RFC 6750 section 3.1.
            Some(401) => Passage::Refused(Answer::new(401).with("WWW-Authenticate", "Bearer error=\"invalid_token\"")),
            Some(status) => Passage::Refused(Answer::new(status)),
            None => Passage::Open,
        }
    }

    /// What the zone would say of this address, without counting; `None` when the request is held until that is known.
    pub(super) fn foresee(&mut self, now: Now, id: ConnId, client: IpAddr, limit: Option<Limit>) -> Option<Verdict> {
        let Some(limit) = limit.filter(|_| !self.is_exempt(client)) else {
            return Some(Verdict::Admit);
        };
        match self.browser(id)?.0.gate.foreseen {
            Some(verdict) => Some(verdict),
            None => self.count(now, id, limit, Account::of(client), false),
        }
    }

    fn is_exempt(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.config.rates.exempt.iter().any(|net| net.contains(&client))
    }

    /// Each client has one account for the whole process, on the shard that its name falls to. `None` when that is another
    /// one: the request is held. It is counted, or only foreseen what would be said.
    fn count(&mut self, now: Now, id: ConnId, limit: Limit, account: Account, counts: bool) -> Option<Verdict> {
        let Some(zone) = self.web.zones.zones.get(limit.zone) else {
            return Some(Verdict::Admit);
        };
        let question = RateQuestion {
            zone: zone.id,
            tolerance: limit.tolerance,
            account,
            counts,
        };
        let home = self.home_of(account);
        if home == self.id {
            return Some(self.judge(now, question));
        }
        self.actions.push_back(Action::Forward {
            to: home,
            parcel: Parcel::RateAsked {
                from: self.id,
                conn: id,
                question,
            },
        });
        let wait = if question.counts {
            Wait::Verdict
        } else {
            Wait::Foresight
        };
        self.hold(id, wait, now.mono + VERDICT_WAIT);
        None
    }

    fn home_of(&self, account: Account) -> ShardId {
        match self.shards {
            1 => self.id,
            shards => ShardId((self.web.zones.hash(&account) % u64::from(shards)) as u16),
        }
    }

    fn judge(&mut self, now: Now, question: RateQuestion) -> Verdict {
        let RateQuestion {
            zone,
            tolerance,
            account,
            counts,
        } = question;
        let mut zones = self.web.zones.zones.iter_mut();
        match zones.find(|known| known.id == zone) {
            Some(known) if counts => known.accounts.check(now.mono, account, tolerance),
            Some(known) => known.accounts.peek(now.mono, account, tolerance),
            // A reload that spreads: one of the two has not heard of it yet.
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
        let Some((browser, _)) = self.browser(id) else { return };
        match browser.gate.waits {
            Some(Wait::Verdict) => browser.gate.verdict = Some(verdict),
            Some(Wait::Foresight) => browser.gate.foreseen = Some(verdict),
            Some(Wait::Turn | Wait::Token | Wait::Room(_)) | None => return,
        }
        self.release(now, id, out);
    }

    fn obey(&mut self, now: Now, id: ConnId, verdict: Verdict) -> Passage {
        match verdict {
            Verdict::Wait(until) if until > now.mono => {
                if let Some((browser, _)) = self.browser(id) {
                    browser.gate.verdict = Some(verdict);
                }
                self.hold(id, Wait::Turn, until);
                Passage::Held
            }
            Verdict::Wait(_) | Verdict::Admit => {
                if let Some((browser, _)) = self.browser(id) {
                    browser.gate.verdict = Some(Verdict::Admit);
                }
                Passage::Open
            }
            Verdict::Refuse(retry_after) => Passage::too_often(retry_after),
        }
    }

    /// Leaves the request at the front of a connection unread, until then at the most.
    pub(super) fn hold(&mut self, id: ConnId, wait: Wait, until: Instant) {
        if let Some((browser, _)) = self.browser(id) {
            browser.gate.waits = Some(wait);
            browser.server.take_back();
        }
        self.set_deadline(id, Some(until));
    }

    /// Reads a request again that was held.
    pub(in crate::shard) fn release(&mut self, now: Now, id: ConnId, out: &mut Egress) {
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
            Wait::Room(index) => {
                self.web.backends.unqueue(index, id);
                self.held_in_vain(now, id, out);
            }
            Wait::Verdict | Wait::Foresight | Wait::Token => self.held_in_vain(now, id, out),
        }
    }

    /// What a request waits for does not come.
    pub(super) fn held_in_vain(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        self.stats.web.failed += 1;
        if let Some((browser, _)) = self.browser(id) {
            browser.gate.waits = None;
        }
        if self.answer(now, id, &Answer::unavailable(RETRY_AFTER_SECS), out) != Step::Gone {
            self.close(now, id, out);
        }
    }
}
