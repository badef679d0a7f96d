//! What a program writes: kept line by line, and waited for.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use regex::Regex;

use crate::Deadline;

/// How many lines of output are kept; older ones are dropped.
const LINES_MAX: usize = 20_000;
/// Longer lines are kept in pieces of this many bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A line that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The whole line.
    pub line: String,
    /// The pattern's groups in order; empty where a group took no part.
    pub groups: Vec<String>,
}

/// Why a line was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSuchLine {
    /// The program closed its outputs before it wrote such a line.
    Ended,
    /// The program is still running and has not written such a line.
    TimeUp,
}

impl fmt::Display for NoSuchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoSuchLine::Ended => "the program ended without such a line",
            NoSuchLine::TimeUp => "there was no such line in time",
        })
    }
}

impl std::error::Error for NoSuchLine {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Lines of both streams, and news of them.
#[derive(Default)]
pub(crate) struct Output {
    ring: Mutex<Ring>,
    news: Condvar,
}

#[derive(Default)]
struct Ring {
    /// The newest lines, each with its line feed if it had one.
    lines: VecDeque<(Stream, String)>,
    /// How many lines there have been in all.
    lines_in: usize,
    /// How many streams are still open.
    open: usize,
}

impl Output {
    /// Reads both streams of a program.
    pub(crate) fn of(
        out: impl Read + Send + 'static,
        err: impl Read + Send + 'static,
    ) -> Arc<Output> {
        let output = Arc::new(Output::default());
        output.lock().open = 2;
        Output::fill(&output, out, Stream::Out);
        Output::fill(&output, err, Stream::Err);
        output
    }

    /// How many lines there have been in all.
    pub(crate) fn lines(&self) -> usize {
        self.lock().lines_in
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no holder of this lock panics")
    }

    /// Reads `source` to its end on a thread of its own. The thread is not joined: it ends with
    /// the pipe, which a grandchild may hold open longer than the test lasts.
    fn fill(output: &Arc<Output>, source: impl Read + Send + 'static, stream: Stream) {
        let output = Arc::clone(output);
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(
                (&mut source)
                    .take(LINE_BYTES_MAX)
                    .read_until(b'\n', &mut line),
                Ok(1..)
            ) {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                let mut ring = output.lock();
                if ring.lines.len() == LINES_MAX {
                    ring.lines.pop_front();
                }
                ring.lines.push_back((stream, text));
                ring.lines_in += 1;
                output.news.notify_all();
            }
            output.lock().open -= 1;
            output.news.notify_all();
        });
    }

    /// Everything that is kept, of one stream or of both.
    pub(crate) fn text(&self, only: Option<Stream>) -> String {
        let ring = self.lock();
        let wanted = ring
            .lines
            .iter()
            .filter(|(stream, _)| only.is_none_or(|o| o == *stream));
        wanted.map(|(_, text)| text.as_str()).collect()
    }

    /// Waits for a line after the first `skip` lines that matches.
    pub(crate) fn find(
        &self,
        skip: usize,
        regex: &Regex,
        deadline: Deadline,
    ) -> Result<Found, NoSuchLine> {
        let mut ring = self.lock();
        let mut next = skip;
        loop {
            let dropped = ring.lines_in - ring.lines.len();
            for (_, text) in ring.lines.iter().skip(next.saturating_sub(dropped)) {
                let line = text.trim_end_matches(['\r', '\n']);
                if let Some(captures) = regex.captures(line) {
                    let group = |m: Option<regex::Match<'_>>| m.map_or("", |m| m.as_str()).into();
                    let groups = captures.iter().skip(1).map(group).collect();
                    return Ok(Found {
                        line: line.to_owned(),
                        groups,
                    });
                }
            }
            next = next.max(ring.lines_in);
            if ring.open == 0 {
                return Err(NoSuchLine::Ended);
            }
            let left = deadline.left();
            if left.is_zero() {
                return Err(NoSuchLine::TimeUp);
            }
            ring = self
                .news
                .wait_timeout(ring, left)
                .expect("no holder panics")
                .0;
        }
    }

    /// Waits until both streams are closed, or the deadline.
    pub(crate) fn drain(&self, deadline: Deadline) {
        let open = |ring: &mut Ring| ring.open > 0;
        let guard = self
            .news
            .wait_timeout_while(self.lock(), deadline.left(), open);
        drop(guard.expect("no holder of this lock panics"));
    }
}
