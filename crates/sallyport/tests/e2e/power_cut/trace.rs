//! What a program asked of the system, as strace wrote it down (`-f -yy -xx`, all strings in
//! hexadecimal).

use std::collections::HashMap;

/// One call that succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The line of the trace on which it began, and that on which it was over.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) call: Call,
}

/// What was asked for; files by their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A new directory.
    Directory(String),
    /// A file that may be new.
    Create(String),
    Write(String, Vec<u8>),
    Truncate(String, usize),
    /// `fsync`, or `fdatasync`.
    Sync(String),
    Rename(String, String),
    Link(String, String),
    Unlink(String),
    /// Bytes to the peer at a port.
    Send(u16),
    /// Bytes from it.
    Receive(u16),
}

/// The calls to ask strace for.
pub(crate) const CALLS: &str = "trace=open,openat,creat,recvfrom,write,pwrite64,pwritev,writev,\
     sendto,sendmsg,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,unlink,\
     unlinkat,truncate,ftruncate,mkdir,mkdirat";

/// Reads a trace, in the order in which the calls were over.
///
/// # Panics
/// At a line that cannot be read.
pub(crate) fn read(text: &str) -> Vec<Step> {
    let mut begun: HashMap<&str, (usize, String)> = HashMap::new();
    let mut steps = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, (at, start.trim_end().to_owned()));
            continue;
        }
        let (begin, whole) = match rest.split_once(" resumed>") {
            Some((_, end)) if rest.starts_with("<...") => match begun.remove(thread) {
                Some((begin, start)) => (begin, start + end),
                None => continue,
            },
            _ => (at, rest.to_owned()),
        };
        if let Some(call) = call(&whole) {
            let end = at;
            steps.push(Step { begin, end, call });
        }
    }
    steps
}

/// One whole call; `None` for one that failed, or that says nothing here.
fn call(text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let mut strings = quoted(arguments).into_iter();
    let mut path = || Some(String::from_utf8_lossy(&strings.next()?).into_owned());
    Some(match name {
        "mkdir" | "mkdirat" => Call::Directory(path()?),
        "creat" => Call::Create(path()?),
        "open" | "openat" if arguments.contains("O_CREAT") => Call::Create(path()?),
        "open" | "openat" => return None,
        "unlink" | "unlinkat" => Call::Unlink(path()?),
        "rename" | "renameat" | "renameat2" => Call::Rename(path()?, path()?),
        "link" | "linkat" => Call::Link(path()?, path()?),
        "fsync" | "fdatasync" => Call::Sync(descriptor(arguments)?),
        "ftruncate" => {
            let length = arguments.trim_end_matches(')').rsplit_once(", ")?.1;
            Call::Truncate(descriptor(arguments)?, length.parse().ok()?)
        }
        "write" | "writev" | "sendto" | "sendmsg" => match port(arguments) {
            Some(port) => Call::Send(port),
            None => Call::Write(descriptor(arguments)?, quoted(arguments).concat()),
        },
        "recvfrom" => Call::Receive(port(arguments)?),
        other => panic!("no test knows what {other} does to a disk: {text}"),
    })
}

/// All strings between quotation marks.
fn quoted(text: &str) -> Vec<Vec<u8>> {
    let bytes = |text: &str| {
        let digits = text.split("\\x").skip(1);
        digits
            .map(|it| u8::from_str_radix(it, 16).unwrap())
            .collect()
    };
    text.split('"').skip(1).step_by(2).map(bytes).collect()
}

/// The file of the descriptor that comes first.
fn descriptor(arguments: &str) -> Option<String> {
    let (number, rest) = arguments.split_once('<')?;
    number.parse::<u32>().ok()?;
    let (shown, _) = rest.split_once('>')?;
    let path = quoted(&format!("\"{shown}\"")).concat();
    let path = String::from_utf8_lossy(&path).into_owned();
    path.starts_with('/').then_some(path)
}

/// The peer's port, if the first descriptor is a TCP connection.
fn port(arguments: &str) -> Option<u16> {
    let (_, addresses) = arguments.split_once("<TCP:[")?;
    let (addresses, _) = addresses.split_once(']')?;
    addresses.rsplit_once(':')?.1.parse().ok()
}
