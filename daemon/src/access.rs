//! How does a request become a line of the access log? Each shard collects lines, and one thread writes them, so that a
//! slow disk keeps nobody waiting.

use std::time::Duration;

use edgeward_core::{
    action::Access,
    config::{AccessFormat, Config},
};

use self::writer::Writer;

mod line;
pub(crate) mod writer;

/// Lines are written when there are so many bytes of them, or after [`DELAY`].
const BATCH_BYTES: usize = 32 * 1024;

/// How old a line may become before it is written.
pub const DELAY: Duration = Duration::from_millis(100);

/// The access log of one shard.
#[derive(Debug)]
pub struct Log {
    format: AccessFormat,
    lines: Vec<u8>,
    writer: Writer,
}

impl Log {
    pub(crate) fn new(config: &Config, writer: Writer) -> Self {
        let mut log = Self {
            format: AccessFormat::Combined,
            lines: Vec::new(),
            writer,
        };
        log.configure(config);
        log
    }

    /// From now on lines look as this configuration says.
    pub fn configure(&mut self, config: &Config) {
        if let Some(log) = &config.access_log {
            self.format = log.format;
        }
    }

    /// Adds a line. Returns whether it is the first one of a batch, which [`Log::flush`] must write in time.
    pub fn add(&mut self, access: &Access) -> bool {
        let is_first = self.lines.is_empty();
        match self.format {
            AccessFormat::Combined => line::combined(access, &mut self.lines),
            AccessFormat::Json => line::json(access, &mut self.lines),
        }
        if self.lines.len() >= BATCH_BYTES {
            self.flush();
        }
        is_first
    }

    /// Has written what there is.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.writer.write(std::mem::take(&mut self.lines));
        }
    }
}
