//! Do bodies arrive exactly as they were sent, or does the exchange fail for its browser to see?

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{history::Seen, site};

/// Exchanges that are under way.
#[derive(Debug, Default)]
pub struct Http {
    exchanges: BTreeMap<u64, Exchange>,
    /// Connections that the network has cut.
    cut: BTreeSet<u32>,
    is_draining: bool,
}

#[derive(Debug, Default)]
struct Exchange {
    body: Vec<u8>,
    /// What upstreams have answered; nothing where they meant to fail.
    answers: Vec<Option<Vec<u8>>>,
}

/// A request without a body may be sent once more when a connection was dead already, and a browser of ours never asks
/// again by itself.
const SERVED_MAX: usize = 2;

impl Http {
    /// Something has happened.
    ///
    /// # Errors
    /// With what must not be.
    pub fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::HttpAsked { id, body } => {
                let body = body.to_vec();
                self.exchanges.insert(
                    *id,
                    Exchange {
                        body,
                        answers: Vec::new(),
                    },
                );
                Ok(())
            }
            Seen::HttpServed {
                id,
                client,
                asked,
                answer,
            } => {
                // The number of an exchange begins with that of its browser.
                let browser = site::client((id >> 32) as usize);
                match *client == Some(browser) {
                    true => self.served(*id, asked, *answer),
                    false => Err(format!("exchange {id:#x} is of {browser}, but {client:?} was named")),
                }
            }
            Seen::HttpGot { id, status, body } => self.got(*id, *status, body),
            // It may still reach the upstream; what comes of that nobody sees.
            Seen::HttpFailed { id, silent: Some(tcp) } if !self.is_draining && !self.cut.contains(tcp) => {
                Err(format!("exchange {id:#x} got no answer, nor an end"))
            }
            Seen::Cut { tcp } => {
                self.cut.insert(*tcp);
                Ok(())
            }
            Seen::Draining => {
                self.is_draining = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn served(&mut self, id: u64, asked: &[u8], answer: Option<&[u8]>) -> Result<(), String> {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Err(format!("an upstream got exchange {id:#x}, which nobody asked for"));
        };
        if exchange.body != asked {
            return Err(format!(
                "an upstream got {} bytes for exchange {id:#x}, not the {} that were sent",
                asked.len(),
                exchange.body.len()
            ));
        }
        exchange.answers.push(answer.map(<[u8]>::to_vec));
        let most = if exchange.body.is_empty() { SERVED_MAX } else { 1 };
        match exchange.answers.len() > most {
            true => Err(format!("exchange {id:#x} was served {} times", exchange.answers.len())),
            false => Ok(()),
        }
    }

    fn got(&self, id: u64, status: u16, body: &[u8]) -> Result<(), String> {
        let Some(exchange) = self.exchanges.get(&id) else {
            return Err(format!("an answer to exchange {id:#x}, which nobody asked for"));
        };
        let is_right = exchange.answers.iter().flatten().any(|answer| answer == body);
        match (status, is_right) {
            (200, true) | (400..=599, _) => Ok(()),
            (200, false) => Err(format!(
                "a browser took {} bytes for the whole answer to exchange {id:#x}, which they are not",
                body.len()
            )),
            _ => Err(format!("exchange {id:#x} was answered with {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(history: &[Seen<'_>]) -> Result<(), String> {
        let mut http = Http::default();
        history.iter().try_for_each(|seen| http.see(seen))
    }

    fn served<'a>(asked: &'a [u8], answer: Option<&'a [u8]>) -> Seen<'a> {
        Seen::HttpServed {
            id: 1,
            client: Some(site::client(0)),
            asked,
            answer,
        }
    }

    fn got(status: u16, body: &[u8]) -> Seen<'_> {
        Seen::HttpGot { id: 1, status, body }
    }

    #[test]
    fn bodies_that_are_not_exact_are_found() {
        let asked = || Seen::HttpAsked {
            id: 1,
            body: b"question",
        };
        let well = [asked(), served(b"question", Some(b"answer")), got(200, b"answer")];
        assert_eq!(check(&well), Ok(()));
        assert_eq!(check(&[asked(), got(502, b"")]), Ok(()));
        check(&[asked(), served(b"questio", None)]).expect_err("a request that was cut");
        check(&[asked(), served(b"question", Some(b"answer")), got(200, b"answe")])
            .expect_err("an answer that was cut");
        check(&[asked(), served(b"question", None), got(200, b"")]).expect_err("an answer that nobody gave");
        check(&[asked(), served(b"question", None), served(b"question", None)]).expect_err("a body that came twice");
        check(&[got(200, b"")]).expect_err("an answer to nothing");
        let client = Some(site::client(1));
        let (asked_body, answer) = (&b"question"[..], None);
        let of_another = Seen::HttpServed {
            id: 1,
            client,
            asked: asked_body,
            answer,
        };
        check(&[asked(), of_another]).expect_err("somebody else was named");
        let silent = || Seen::HttpFailed { id: 1, silent: Some(7) };
        check(&[asked(), silent()]).expect_err("nothing came");
        assert_eq!(check(&[asked(), Seen::Cut { tcp: 7 }, silent()]), Ok(()));
        check(&[asked(), got(302, b"")]).expect_err("an answer of nobody");
    }
}
