//! What differs between two configurations, and what of that may change while it runs?

use alloc::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::Config;

impl Config {
    /// The keys in which `next` differs where only a restart can follow, as an administrator writes them: sockets,
    /// threads and the machines of the roles are made when the process starts. Empty where everything may change at once.
    pub fn fixed_differences(&self, next: &Self) -> Vec<&'static str> {
        let listen = |config: &Self| config.https.as_ref().map_or(Vec::new(), |https| https.listen.clone());
        let mut keys = Vec::new();
        let mut note = |key, differs: bool| keys.extend(differs.then_some(key));
        note("[server] workers", self.server.workers != next.server.workers);
        note("[server] coalesce_micros", self.server.coalesce != next.server.coalesce);
        note("[metrics] listen", self.metrics != next.metrics);
        note("[https] listen", listen(self) != listen(next));
        match (&self.sip, &next.sip) {
            (None, None) => {}
            (Some(sip), Some(next)) => note("[sip] listen", sip.listen != next.listen),
            _ => note("[sip]", true),
        }
        match (&self.turn, &next.turn) {
            (None, None) => {}
            (Some(turn), Some(next)) => {
                note("[turn] listen for UDP", turn.listen_udp != next.listen_udp);
                note("[turn] listen for TCP", turn.listen_tcp != next.listen_tcp);
                note("[turn] relay", turn.relays != next.relays);
                note("[turn] relay_ports", turn.relay_ports != next.relay_ports);
            }
            _ => note("[turn]", true),
        }
        keys
    }
}

/// The keys in which two texts differ, as an administrator writes them. Their values are not told: some are secrets.
pub fn changes(before: &str, after: &str) -> Vec<String> {
    let values = |text: &str| {
        let (document, _) = DeTable::parse_recoverable(text);
        let mut values = BTreeMap::new();
        flatten("", document.get_ref(), &mut values);
        values
    };
    let (before, after) = (values(before), values(after));
    let mut keys: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| before.get(key) != after.get(key));
    keys
}

fn flatten(section: &str, table: &DeTable<'_>, into: &mut BTreeMap<String, String>) {
    for (key, value) in table.iter() {
        let key = key.get_ref();
        let path = match section {
            "" => key.to_string(),
            _ => format!("{section}.{key}"),
        };
        match value.get_ref() {
            DeValue::Table(table) => flatten(&path, table, into),
            DeValue::Array(items) if items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))) => {
                into.insert(format!("[[{path}]]"), render(value.get_ref()));
            }
            value => {
                into.insert(format!("[{section}] {key}"), render(value));
            }
        }
    }
}

/// A text that two values share only if they are the same.
fn render(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| render(item.get_ref())).collect();
            format!("{items:?}")
        }
        DeValue::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, value)| (key.get_ref(), render(value.get_ref())));
            format!("{:?}", pairs.collect::<BTreeMap<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_without_its_value() {
        let text = "[server]\nworkers = 2\n[turn]\nsecrets = [\"one\"]\n[turn.limits]\nlifetime_max_secs = 60\n\
                    [[web.route]]\npath = [\"/a\", \"/b\"]\n[[web.route]]\npath = \"/c\"\n";
        let check = |from: &str, to: &str, expected: &[&str]| {
            let after = text.replace(from, to);
            assert_ne!(text, after, "{from}");
            assert_eq!(changes(text, &after), expected, "{from} becomes {to}");
            assert_eq!(changes(&after, text), expected, "{to} becomes {from}");
        };
        check("workers = 2", "workers = 3", &["[server] workers"]);
        check("workers = 2", "workers  =  2 # two", &[]);
        check(
            "workers = 2",
            "workers = 2\ncoalesce_micros = 0",
            &["[server] coalesce_micros"],
        );
        check("\"one\"", "\"two\"", &["[turn] secrets"]);
        check(
            "[turn.limits]\nlifetime_max_secs = 60\n",
            "",
            &["[turn.limits] lifetime_max_secs"],
        );
        check("\"/a\", \"/b\"", "\"/b\", \"/a\"", &["[[web.route]]"]);
        check("path = \"/c\"", "path = \"/c\"\nexact = true", &["[[web.route]]"]);
        check(
            "= 60",
            "= 61\n[sip]\nlisten = \"[::1]:5060\"",
            &["[sip] listen", "[turn.limits] lifetime_max_secs"],
        );
    }
}
