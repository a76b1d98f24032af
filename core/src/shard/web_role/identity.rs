//! Whose request is this? What its token says, where somebody checks tokens; the application is asked once for each.

use alloc::collections::VecDeque;
use core::{hash::Hash, net::IpAddr, time::Duration};
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
    token::{SUBJECT_BYTES_MAX, TokenError},
};

/// Tokens whose answer is remembered on one shard.
const TOKENS_MAX: usize = 65_536;

/// Tokens that are asked about at once by one shard.
const QUESTIONS_MAX: usize = 1024;

/// How long a request waits for what the application says.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// When a client whose token could not be checked may try again.
const RETRY_AFTER_SECS: u64 = 2;

/// Of those, the ones that one client brings: an office comes back at once, but does not keep everybody else out.
const QUESTIONS_PER_CLIENT_MAX: usize = QUESTIONS_MAX / 4;

/// What the application has said of tokens, and who waits for what it will say. Of a token itself only a hash is kept.
#[derive(Debug)]
pub(super) struct Tokens {
    good: Answers,
    /// Apart, since anybody can make tokens up.
    refused: Answers,
    asked: HashMap<TokenDigest, Question, RandomState>,
    /// How many questions there are for the tokens of each client.
    askers: HashMap<Account, usize, RandomState>,
}

/// What is asked of the application.
#[derive(Debug)]
struct Question {
    /// Who has brought the token first.
    asker: Account,
    waiting: Vec<ConnId>,
}

/// What the application has said, and until when that holds.
#[derive(Debug)]
struct Answers {
    known: HashMap<TokenDigest, (Instant, Identity), RandomState>,
    /// In the order in which they were learnt.
    order: VecDeque<TokenDigest>,
}

impl Answers {
    fn new(rng: &mut Rng) -> Self {
        Self {
            known: HashMap::with_hasher(rng.hasher()),
            order: VecDeque::new(),
        }
    }

    fn find(&self, digest: &TokenDigest, now: Instant) -> Option<&Identity> {
        let (until, identity) = self.known.get(digest)?;
        (*until > now).then_some(identity)
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

impl Tokens {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            good: Answers::new(rng),
            refused: Answers::new(rng),
            asked: HashMap::with_hasher(rng.hasher()),
            askers: HashMap::with_hasher(rng.hasher()),
        }
    }

    /// Whoever answers now may be another one.
    pub(super) fn forget(&mut self) {
        for answers in [&mut self.good, &mut self.refused] {
            answers.known.clear();
            answers.order.clear();
        }
    }

    fn find(&self, digest: &TokenDigest, now: Instant) -> Option<Identity> {
        let found = self.good.find(digest, now).or_else(|| self.refused.find(digest, now));
        found.cloned()
    }

    fn learn(&mut self, digest: TokenDigest, until: Instant, identity: Identity) {
        let answers = match identity {
            Identity::User { .. } => &mut self.good,
            Identity::Refused(_) => &mut self.refused,
        };
        answers.learn(digest, until, identity);
    }

    /// Whether one question more may be asked for this client.
    fn may_ask(&self, asker: Account) -> bool {
        let own = self.askers.get(&asker).copied().unwrap_or(0);
        self.asked.len() < QUESTIONS_MAX && own < QUESTIONS_PER_CLIENT_MAX
    }

    fn ask(&mut self, digest: TokenDigest, asker: Account, conn: ConnId) {
        *self.askers.entry(asker).or_default() += 1;
        let waiting = vec![conn];
        self.asked.insert(digest, Question { asker, waiting });
    }

    /// The connections that have waited for an answer.
    fn answered(&mut self, digest: &TokenDigest) -> Option<Vec<ConnId>> {
        let Question { asker, waiting } = self.asked.remove(digest)?;
        if let Some(questions) = self.askers.get_mut(&asker) {
            *questions -= 1;
            if *questions == 0 {
                self.askers.remove(&asker);
            }
        }
        Some(waiting)
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
                Ok(subject) => self.user(&*token, subject),
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
    fn user(&self, token: impl Hash, subject: Option<String>) -> Identity {
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
        if let Some(question) = tokens.asked.get_mut(&digest) {
            question.waiting.push(id);
            self.hold(id, Wait::Token, now.mono + ANSWER_WAIT);
            return Passage::Held;
        }
        let asker = Account::of(client);
        if !tokens.may_ask(asker) {
            return Passage::Refused(Answer::unavailable(RETRY_AFTER_SECS));
        }
        tokens.ask(digest, asker, id);
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
        let Some(waiting) = self.web.tokens.answered(&digest) else {
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
                self.user(digest, subject.filter(|name| name.len() <= SUBJECT_BYTES_MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_somebody_made_up_push_no_good_one_out() {
        let (mut tokens, now) = (Tokens::new(&mut Rng::new([7; 32])), Instant::ZERO);
        let digest = |number: u64| TokenDigest(Sha256::digest(number.to_be_bytes()).into());
        let good = Identity::User {
            account: Account::User(1),
            subject: None,
        };
        let until = now + Duration::from_secs(10);
        tokens.learn(digest(0), until, good.clone());
        for made_up in 1..=TOKENS_MAX as u64 + 1 {
            tokens.learn(digest(made_up), until, Identity::Refused(401));
        }
        assert_eq!(tokens.find(&digest(0), now), Some(good));
        assert_eq!(tokens.find(&digest(1), now), None);
        assert_eq!(tokens.find(&digest(2), now), Some(Identity::Refused(401)));
        assert_eq!(tokens.find(&digest(2), until), None);
    }
}
