//! Whose request is this? What its token says, where somebody checks tokens; the application is asked once for each.

use alloc::collections::VecDeque;
use core::{net::IpAddr, time::Duration};
use std::collections::HashMap;

use ahash::RandomState;
use sha2::{Digest as _, Sha256};

use crate::{
    action::{ConnId, Egress},
    config::{Ask, Limit, TokenCheck},
    conn::{Errand, Identity, TokenDigest, Wait},
    http::{Answer, Request},
    limit::{Account, Verdict},
    rng::Rng,
    shard::{
        Shard,
        web_role::{errand::BODY_BYTES_MAX, gate::Passage},
    },
    time::{Instant, Now},
    token::TokenError,
};

/// Tokens whose answer is remembered on one shard.
const TOKENS_MAX: usize = 65_536;

/// Tokens that are asked about at once by one shard.
const QUESTIONS_MAX: usize = 1024;

/// How long a request waits for what the application says.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// When a client whose token could not be checked may try again.
const RETRY_AFTER_SECS: u64 = 2;

/// What the application has said of tokens, and who waits for what it will say. Of a token itself only a hash is kept.
#[derive(Debug)]
pub(super) struct Tokens {
    known: HashMap<TokenDigest, (Instant, Identity), RandomState>,
    /// In the order in which they were learnt.
    order: VecDeque<TokenDigest>,
    asked: HashMap<TokenDigest, Vec<ConnId>, RandomState>,
}

impl Tokens {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            known: HashMap::with_hasher(rng.hasher()),
            order: VecDeque::new(),
            asked: HashMap::with_hasher(rng.hasher()),
        }
    }

    /// Whoever answers now may be another one.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.order.clear();
    }

    fn find(&self, digest: &TokenDigest, now: Instant) -> Option<Identity> {
        let (until, identity) = self.known.get(digest)?;
        (*until > now).then(|| identity.clone())
    }

    fn learn(&mut self, digest: TokenDigest, until: Instant, identity: Identity) {
        if self.known.insert(digest, (until, identity)).is_some() {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Shard {
    /// Finds out whose request this is. `None` when it may go on, with what was found in its gate.
    pub(super) fn identify(
        &mut self,
        now: Now,
        id: ConnId,
        request: &Request<'_>,
        client: IpAddr,
        limit: Option<Limit>,
        out: &mut Egress,
    ) -> Option<Passage> {
        let config = self.config.clone();
        let check = config.token.as_ref()?;
        let (browser, _) = self.browser(id)?;
        if browser.gate.identity.is_some() {
            return None;
        }
        // The route has seen to it that there is one.
        let token = request.target.argument("token").ok().flatten()?;
        let found = match check {
            TokenCheck::Signature(verifier) => match verifier.verify(&token, now.unix) {
                Ok(subject) => self.user(&token, subject),
                Err(error) => refused(error),
            },
            // RFC 6750 section 2.1: what may stand in a field of a request.
            TokenCheck::Ask(_) if !token.bytes().all(is_token_byte) => Identity::Refused(401),
            TokenCheck::Ask(ask) => {
                let digest = TokenDigest(Sha256::digest(token.as_bytes()).into());
                match self.web.tokens.find(&digest, now.mono) {
                    Some(identity) => identity,
                    None => return Some(self.question(now, id, ask, digest, &token, client, limit, out)),
                }
            }
        };
        if let Some((browser, _)) = self.browser(id) {
            browser.gate.identity = Some(found);
        }
        None
    }

    /// A user who has proved to be one: by name, or by a token that names nobody.
    fn user(&self, token: &str, subject: Option<String>) -> Identity {
        let key = match &subject {
            Some(name) => self.web.zones.hash(&name),
            None => self.web.zones.hash(&token),
        };
        Identity::User {
            account: Account::User(key),
            subject: subject.map(String::into_boxed_str),
        }
    }

    /// Asks the application, once for all who bring this token. Whoever has brought too many wrong ones does not get so
    /// far.
    #[expect(clippy::too_many_arguments, reason = "a question is about all of this")]
    fn question(
        &mut self,
        now: Now,
        id: ConnId,
        ask: &Ask,
        digest: TokenDigest,
        token: &str,
        client: IpAddr,
        limit: Option<Limit>,
        out: &mut Egress,
    ) -> Passage {
        match self.foresee(now, id, client, limit) {
            None => return Passage::Held,
            Some(Verdict::Refuse(retry_after)) => return Passage::too_often(retry_after),
            Some(Verdict::Admit | Verdict::Wait(_)) => {}
        }
        let tokens = &mut self.web.tokens;
        if let Some(waiting) = tokens.asked.get_mut(&digest) {
            waiting.push(id);
            self.hold(id, Wait::Token, now.mono + ANSWER_WAIT);
            return Passage::Held;
        }
        if tokens.asked.len() >= QUESTIONS_MAX {
            return Passage::Refused(Answer::unavailable(RETRY_AFTER_SECS));
        }
        tokens.asked.insert(digest, vec![id]);
        // It is held first: the answer may be here before this returns.
        self.hold(id, Wait::Token, now.mono + ANSWER_WAIT);
        let errand = Errand::Token {
            digest,
            status: 0,
            body: Vec::new(),
        };
        self.run_errand(now, ask.upstream, &ask.path, Some(token), errand, out);
        Passage::Held
    }

    /// The application has answered, or cannot be asked (`None`).
    pub(super) fn token_answered(
        &mut self,
        now: Now,
        digest: TokenDigest,
        answer: Option<(u16, &[u8])>,
        out: &mut Egress,
    ) {
        let config = self.config.clone();
        let Some(waiting) = self.web.tokens.asked.remove(&digest) else {
            return;
        };
        let (Some(TokenCheck::Ask(ask)), Some((status, body))) = (&config.token, answer) else {
            return self.token_unanswered(now, &waiting, out);
        };
        let identity = match status {
            200..=299 if body.len() > BODY_BYTES_MAX => {
                tracing::warn!(
                    "what says whether a token holds is longer than {BODY_BYTES_MAX} bytes, and is not believed"
                );
                return self.token_unanswered(now, &waiting, out);
            }
            200..=299 => {
                let subject = serde_json::from_slice::<serde_json::Value>(body).ok();
                let subject = subject.and_then(|answer| answer.get(&ask.subject)?.as_str().map(String::from));
                let account = match &subject {
                    Some(name) => self.web.zones.hash(&name),
                    None => self.web.zones.hash(&digest),
                };
                Identity::User {
                    account: Account::User(account),
                    subject: subject.map(String::into_boxed_str),
                }
            }
            403 => Identity::Refused(403),
            400..=499 => Identity::Refused(401),
            _ => return self.token_unanswered(now, &waiting, out),
        };
        self.web.tokens.learn(digest, now.mono + ask.cache, identity.clone());
        for id in waiting {
            if let Some((browser, _)) = self.browser(id)
                && browser.gate.waits == Some(Wait::Token)
            {
                browser.gate.identity = Some(identity.clone());
                self.release(now, id, out);
            }
        }
    }

    fn token_unanswered(&mut self, now: Now, waiting: &[ConnId], out: &mut Egress) {
        for id in waiting {
            if let Some((browser, _)) = self.browser(*id)
                && browser.gate.waits == Some(Wait::Token)
            {
                self.held_in_vain(now, *id, out);
            }
        }
    }
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

fn refused(error: TokenError) -> Identity {
    tracing::debug!(%error, "a token does not hold");
    Identity::Refused(401)
}
