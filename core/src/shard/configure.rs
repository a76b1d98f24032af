//! How does a shard go on with another configuration? Everything that is under way stays, and ends as it began.

use crate::{
    action::{ConnId, Egress},
    config::{Config, SharedConfig},
    conn::Stage,
    shard::Shard,
    time::Now,
};

impl Shard {
    pub(super) fn configure(&mut self, now: Now, config: SharedConfig, out: &mut Egress) {
        let fixed = self.config.fixed_differences(&config);
        if !fixed.is_empty() {
            tracing::error!(?fixed, "this configuration needs a restart; the old one stays");
            return;
        }
        let old = core::mem::replace(&mut self.config, config);
        let waiting = self.configure_web(now, &old, out);
        if let Some(bridge) = &mut self.sip {
            let cx = &mut Self::cx(now, &mut self.rng, &mut self.stats, out);
            bridge.configure(cx, self.config.clone());
        }
        self.sip_out(now, out);
        if let Some(turn) = &mut self.turn {
            turn.configure(self.config.clone(), &mut self.rng);
        }
        self.turn_asks(now, out);
        for id in waiting {
            self.release(now, id, out);
        }
    }

    /// Exchanges and tunnels keep the upstream that they have; those that rest in the pool were dialled for a
    /// configuration that is gone. Returns the connections whose request is to be judged anew.
    fn configure_web(&mut self, now: Now, old: &Config, out: &mut Egress) -> Vec<ConnId> {
        let rests = |stage: &Stage| matches!(stage, Stage::Upstream(upstream) if upstream.is_resting());
        let resting = self.conns.iter().filter(|(_, conn)| rests(&conn.stage));
        let resting: Vec<ConnId> = resting.map(|(key, _)| ConnId(key)).collect();
        for id in resting {
            self.close(now, id, out);
        }
        self.web.configure(old, &self.config, &mut self.rng)
    }
}
