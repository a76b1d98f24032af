//! What if an address of a mediaserver does not answer? Requests go to the next one, or by UDP where TCP was no good.

use super::{branch::Kind, bridge::Bridge, rewrite};
use crate::{cx::Cx, slab::Key};

impl Bridge {
    /// Sends a request that has no response yet to another address of its mediaserver, as a new transaction with a branch
    /// of its own (RFC 3263 section 4.3); tells whether there is one.
    pub(super) fn fail_over(&mut self, cx: &mut Cx<'_>, key: Key) -> bool {
        let Some(transaction) = self.transactions.get_mut(key).filter(|sent| sent.may_go_elsewhere()) else {
            return false;
        };
        if !transaction.tried.contains(&transaction.remote) {
            transaction.tried.push(transaction.remote);
        }
        let (trunk, tried) = (&self.trunks[transaction.trunk.index()], &transaction.tried);
        let Some(next) = trunk.pick(cx.now.mono, None, tried) else {
            return false;
        };
        tracing::debug!(mediaserver = %trunk.name, from = %transaction.remote, to = %next, "a request goes elsewhere");
        cx.stats.sip.failed_over += 1;
        self.delist(key);
        let Some(transaction) = self.transactions.get_mut(key) else {
            return false;
        };
        let elsewhere = transaction.redirect(cx.now.mono, next);
        let (asks_stream, is_call) = (elsewhere.by_stream, elsewhere.method.is_invite());
        let new = self.begin(elsewhere);
        if !is_call || !self.has_room() {
            self.end(key);
        }
        let branch = self.branch(Kind::Transaction, new);
        let Some(transaction) = self.transactions.get_mut(new) else {
            return false;
        };
        rewrite::set_branch(&mut transaction.request, &branch);
        rewrite::set_transport(&mut transaction.request, rewrite::UDP);
        let start = cx.made.len();
        cx.made.extend_from_slice(&transaction.request);
        let end = cx.made.len();
        self.depart(cx, new, asks_stream, start..end);
        true
    }

    /// A request has no response for a while: another address is better, unless this one has spoken meanwhile.
    pub(super) fn overdue(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        let (now, limits) = (cx.now.mono, &self.sip().health);
        let (trunk, remote, started) = (transaction.trunk, transaction.remote, transaction.started());
        let node = self.trunk(trunk).node(remote);
        let lives = node.is_some_and(|node| node.health.has_spoken_since(started, now, limits));
        if !lives {
            self.avoid(now, trunk, remote);
        }
        if lives || !self.fail_over(cx, key) {
            // By then this one may be dead, or one that is dead may be back.
            let again = now + self.sip().health.failover;
            if let Some(transaction) = self.transactions.get_mut(key) {
                transaction.overdue_at(again);
            }
        }
    }

    /// A request was sent by TCP, and the connection is no more: it goes by UDP (RFC 3261 section 18.1.1).
    pub(super) fn go_by_datagram(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        rewrite::set_transport(&mut transaction.request, rewrite::UDP);
        transaction.by_stream = false;
        transaction.start(cx.now.mono);
        let start = cx.made.len();
        cx.made.extend_from_slice(&transaction.request);
        let end = cx.made.len();
        self.send_onward(cx, key, start..end);
        self.settle(key);
    }
}
