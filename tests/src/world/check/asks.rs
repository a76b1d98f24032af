//! Is each question of a shard answered once, and none asked twice?

use std::collections::BTreeSet;

use crate::world::history::Seen;

/// Questions without an answer.
#[derive(Debug, Default)]
pub struct Asks(BTreeSet<(usize, String)>);

impl Asks {
    /// Something has happened.
    ///
    /// # Errors
    /// With what must not be.
    pub fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Asked { shard, ask } if !self.0.insert((*shard, (*ask).to_owned())) => {
                Err(format!("shard {shard} asks twice: {ask}"))
            }
            Seen::Answered { shard, ask } if !self.0.remove(&(*shard, (*ask).to_owned())) => {
                Err(format!("shard {shard} is answered what it has not asked: {ask}"))
            }
            Seen::AllLeft => match self.0.first() {
                Some((shard, ask)) => Err(format!("shard {shard} was never answered: {ask}")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_its_answer_is_found() {
        let (asked, answered) = (
            Seen::Asked { shard: 1, ask: "Dial" },
            Seen::Answered { shard: 1, ask: "Dial" },
        );
        let check = |history: &[&Seen<'_>]| {
            let mut asks = Asks::default();
            history.iter().try_for_each(|seen| asks.see(seen))
        };
        assert_eq!(check(&[&asked, &answered, &asked, &answered, &Seen::AllLeft]), Ok(()));
        check(&[&asked, &asked]).expect_err("asked twice");
        check(&[&asked, &answered, &answered]).expect_err("answered twice");
        check(&[&asked, &Seen::AllLeft]).expect_err("never answered");
    }
}
