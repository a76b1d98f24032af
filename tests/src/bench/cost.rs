//! What has a program used, with all its threads and children? Read from `/proc`.

use std::{fs, time::Duration};

/// The programs that one starts with, and all that they have started since.
pub fn family(roots: &[u32]) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = numbers("/proc").filter_map(|id| Some((id, parent(id)?))).collect();
    let mut family = roots.to_vec();
    loop {
        let (children, others): (Vec<_>, Vec<_>) = parents.into_iter().partition(|(_, parent)| family.contains(parent));
        if children.is_empty() {
            return family;
        }
        family.extend(children.into_iter().map(|(id, _)| id).filter(|id| !roots.contains(id)));
        parents = others;
    }
}

/// Processor time until now, user and system, of all threads.
pub fn processor(family: &[u32]) -> Duration {
    let nanos = |id: &u32| -> u64 {
        numbers(&format!("/proc/{id}/task"))
            .filter_map(|thread| {
                // The same time as in `stat`, but in nanoseconds: a tick of 10 ms is much in a window of a second.
                let text = fs::read_to_string(format!("/proc/{id}/task/{thread}/schedstat")).ok()?;
                text.split_whitespace().next()?.parse::<u64>().ok()
            })
            .sum()
    };
    Duration::from_nanos(family.iter().map(nanos).sum())
}

/// Memory in KiB, where what several processes share counts once.
pub fn memory_kib(family: &[u32]) -> f64 {
    let kib = |id: &u32| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    family.iter().filter_map(kib).sum()
}

fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(id: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it is in parentheses, and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use super::*;

    #[test]
    fn a_family_has_the_children() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let family = family(&[process::id()]);
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        assert!(family.contains(&process::id()) && family.contains(&child.id()));
    }

    #[test]
    fn work_shows() {
        let me = [process::id()];
        let before = processor(&me);
        let mut sum = 0_u64;
        while processor(&me) == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(memory_kib(&me) > 100.0);
    }
}
