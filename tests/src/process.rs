//! What does a program that we started say, and how does it end?

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{deadline, remaining};

/// A running program. It is killed when the value goes, and what it said is printed when the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

/// What a program wrote, line by line, from both of its outputs.
#[derive(Debug, Default)]
struct Log {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// Outputs that have ended.
    ended: usize,
}

impl Process {
    /// Starts a program with no input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        Self::start(name, command.stdin(Stdio::null()))
    }

    /// Starts a program that is told what to do.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_with_input(name: &str, command: &mut Command) -> (Self, ChildStdin) {
        let mut process = Self::start(name, command.stdin(Stdio::piped()));
        let input = process.child.stdin.take().expect("a pipe");
        (process, input)
    }

    fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("a pipe"));
        log.follow(child.stderr.take().expect("a pipe"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Waits for a line that holds this text.
    ///
    /// # Panics
    /// When it does not come, or the program ends before.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(&format!("'{text}'"), |line| line.contains(text))
    }

    /// Waits for a line, also among those that it has said before.
    ///
    /// # Panics
    /// When it does not come, or the program ends before.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.find(deadline(), wanted)
            .unwrap_or_else(|| panic!("{} never said {what}", self.name))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines until now.
    pub fn lines(&self) -> Vec<String> {
        self.log.said().lines.clone()
    }

    /// Memory that it holds now, in KiB.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.expect("the memory of a process that runs")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the program has been waited for already.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process of ours");
    }

    /// Waits until it has ended, which shows in the end of its outputs.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = deadline();
        let mut said = self.log.said();
        while said.ended < 2 {
            let Some(left) = remaining(deadline) else {
                drop(said);
                panic!("{} does not end", self.name);
            };
            said = self
                .log
                .changed
                .wait_timeout(said, left)
                .expect("nobody panics with the lock")
                .0;
        }
        drop(said);
        self.child.wait().expect("a child of ours")
    }

    /// Whether it and all that hold its outputs have ended.
    pub fn has_ended(&self) -> bool {
        self.log.said().ended == 2
    }

    fn find(&self, deadline: Instant, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut said = self.log.said();
        let mut read = 0;
        loop {
            if let Some(line) = said.lines[read..].iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            read = said.lines.len();
            let left = remaining(deadline)?;
            if said.ended == 2 {
                return None;
            }
            said = self
                .log
                .changed
                .wait_timeout(said, left)
                .expect("nobody panics with the lock")
                .0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- {} said ----", self.name);
            for line in self.lines() {
                eprintln!("{line}");
            }
            eprintln!("---- end of {} ----", self.name);
        }
    }
}

impl Log {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("nobody panics with the lock")
    }

    fn follow(self: &Arc<Self>, output: impl Read + Send + 'static) {
        let log = self.clone();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                log.said()
                    .lines
                    .push(String::from_utf8_lossy(&line).trim_end().to_owned());
                log.changed.notify_all();
                line.clear();
            }
            log.said().ended += 1;
            log.changed.notify_all();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn both_outputs_and_the_end_are_seen() {
        let mut shell = Process::spawn("sh", Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]));
        shell.wait_for("one");
        shell.wait_for("two");
        assert_eq!(shell.wait().code(), Some(3));
    }

    #[test]
    fn a_signal_arrives() {
        let mut sleeper = Process::spawn("sleep", Command::new("sleep").arg("60"));
        sleeper.signal(Signal::TERM);
        assert_eq!(sleeper.wait().signal(), Some(Signal::TERM.as_raw()));
    }
}
