//! One log file and the thread that writes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most bytes that wait for the disk, for each file.
pub const QUEUED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A log file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log file {} cannot be opened for writing: {source}", .path.display())]
pub struct LogFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Where the lines of one file are handed in; clones share the file.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

struct Shared {
    messages: Sender<Message>,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    /// Bytes handed in and not written yet.
    bytes: AtomicUsize,
    /// Lines that found no room.
    dropped: AtomicU64,
}

enum Message {
    Lines(Vec<u8>),
    Reopen,
    End,
}

impl Sink {
    /// Opens a file for appending, with the folders above it; `/dev/stdout` and `/dev/stderr` are
    /// what this process has for them.
    ///
    /// # Errors
    /// The file cannot be opened, or the system gives no thread.
    pub fn open(path: &Path) -> Result<Sink, LogFileError> {
        let fail = |source| LogFileError {
            path: path.to_owned(),
            source,
        };
        let file = open(path).map_err(fail)?;
        let (messages, received) = channel();
        let queue = Arc::new(Queue::default());
        let writer = Writer {
            path: path.to_owned(),
            file,
            queue: queue.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&received))
            .map_err(fail)?;
        Ok(Sink(Arc::new(Shared {
            messages,
            queue,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Hands in whole lines; drops them if too many bytes wait already.
    pub fn write(&self, lines: Vec<u8>) {
        let Shared {
            queue, messages, ..
        } = &*self.0;
        let bytes = lines.len();
        if queue.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUED_BYTES_MAX {
            queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let count = memchr::memchr_iter(b'\n', &lines).count();
            queue.dropped.fetch_add(count as u64, Ordering::Relaxed);
            return;
        }
        // nobody reads after the end
        _ = messages.send(Message::Lines(lines));
    }

    /// Opens the file anew, once all lines handed in before are written.
    pub fn reopen(&self) {
        _ = self.0.messages.send(Message::Reopen);
    }

    /// Writes everything handed in so far and closes the file. Blocks.
    pub fn finish(&self) {
        _ = self.0.messages.send(Message::End);
        let thread = self.0.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            _ = thread.join(); // a panic was reported on standard error
        }
    }

    /// Lines that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.queue.dropped.load(Ordering::Relaxed)
    }
}

/// Opens a file for appending; see [`Sink::open`].
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // opening these by path fails where they are sockets
    let own = match path.to_str() {
        Some("/dev/stdout") => Some(io::stdout().as_fd().try_clone_to_owned()?),
        Some("/dev/stderr") => Some(io::stderr().as_fd().try_clone_to_owned()?),
        _ => None,
    };
    if let Some(own) = own {
        return Ok(own.into());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

struct Writer {
    path: PathBuf,
    file: File,
    queue: Arc<Queue>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        // said once, not for each line: the file is what is broken
        let mut failing = false;
        while let Ok(message) = messages.recv() {
            match message {
                Message::End => break,
                Message::Reopen => match open(&self.path) {
                    Ok(file) => self.file = file,
                    Err(error) => self.complain(&error),
                },
                Message::Lines(lines) => {
                    let written = self.file.write_all(&lines);
                    self.queue.bytes.fetch_sub(lines.len(), Ordering::Relaxed);
                    if let Err(error) = &written {
                        let count = memchr::memchr_iter(b'\n', &lines).count();
                        self.queue
                            .dropped
                            .fetch_add(count as u64, Ordering::Relaxed);
                        if !failing {
                            self.complain(error);
                        }
                    }
                    failing = written.is_err();
                }
            }
        }
    }

    /// Not by the log: this may be the log.
    fn complain(&self, error: &io::Error) {
        let path = self.path.display();
        _ = writeln!(io::stderr(), "log file {path} cannot be written: {error}");
    }
}
