//! Log lines: on standard error, and in the error log that a gateway's settings name.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sallyport_gateway::conf::{Conf, LogLevel, LogTarget, Source};
use sallyport_gateway::logs::{CLIENT_FAULTS, LogFileError, LogLine, LogLines, Severity, Sink};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// The variable that overrules the level, in `tracing`'s filter syntax.
const VARIABLE: &str = "SALLYPORT_LOG";

/// Target of what is told about queues of log plugins.
const LOG_QUEUES: &str = "sallyport_gateway::log_queue";

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// What a command line says of the log.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct LogArgs {
    /// How lines of the log look: text for people, json for programs (one object a line)
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        env = "SALLYPORT_LOG_FORMAT"
    )]
    pub(crate) log_format: Format,
}

/// Starts logging at a level; `SALLYPORT_LOG` overrules it.
pub(crate) fn start(level: LevelFilter) {
    start_to(level, Format::Text, io::stderr);
}

/// As [`start`], and keeps the last lines.
pub(crate) fn start_with_tail(level: LevelFilter, args: LogArgs) -> LogTail {
    let tail = LogTail::default();
    start_to(level, args.log_format, io::stderr.and(tail.clone()));
    tail
}

fn start_to<W>(level: LevelFilter, format: Format, to: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(to)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        Format::Text => log.try_init(),
        Format::Json => log
            .json()
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
    // a second start, as quickstart's roles would make, changes nothing
    drop(started);
}

/// The last lines of the log.
#[derive(Clone, Default)]
pub(crate) struct LogTail(Arc<Mutex<VecDeque<String>>>);

/// Lines that are kept.
const TAIL_LINES: usize = 2_000;
/// Bytes of a line that are kept.
const TAIL_LINE_BYTES: usize = 2_048;

impl LogTail {
    /// So many of them, oldest first.
    pub(crate) fn last(&self, lines: usize) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = kept.len().saturating_sub(lines);
        kept.iter().skip(from).cloned().collect()
    }
}

/// The log hands over one event at a time, whole.
impl io::Write for LogTail {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in String::from_utf8_lossy(event).lines() {
            if kept.len() == TAIL_LINES {
                kept.pop_front();
            }
            let end = line.floor_char_boundary(TAIL_LINE_BYTES);
            kept.push_back(line[..end].to_owned());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogTail {
    type Writer = LogTail;

    fn make_writer(&'a self) -> LogTail {
        self.clone()
    }
}

fn filter(level: LevelFilter) -> EnvFilter {
    EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var(VARIABLE)
        .from_env_lossy()
}

/// The error log of a gateway.
pub(crate) struct ErrorLog(Option<Sink>);

impl ErrorLog {
    /// Starts logging as `log_level` and `proxy_error_log` say, in nginx's format. Where the
    /// setting is Kong's default, standard error gets the lines too.
    ///
    /// # Errors
    /// The file was asked for and cannot be written.
    pub(crate) fn start(conf: &Conf) -> Result<ErrorLog, LogFileError> {
        let is_default = conf.source_of("proxy_error_log") == Source::Default;
        let (sink, failed) = match &conf.proxy_error_log {
            LogTarget::Off => (None, None),
            LogTarget::File { path, .. } => match Sink::open(path) {
                Ok(sink) => (Some(sink), None),
                Err(error) if is_default => (None, Some(error)),
                Err(error) => return Err(error),
            },
        };
        let file = sink.clone().map(ToSink);
        let standard = (is_default || sink.is_none()).then_some(ToStandardError);
        // `off` is off; what keeps the gateway from starting is said all the same
        let standard = standard.filter(|_| is_default || conf.proxy_error_log != LogTarget::Off);
        let level = level_of_kong(conf.log_level);
        let mut filter = filter(level);
        // nginx tells clients' faults at `info`, and starts and stops at `notice`
        if conf.log_level == LogLevel::Notice && std::env::var_os(VARIABLE).is_none() {
            let directive = format!("{CLIENT_FAULTS}=warn").parse();
            filter = filter.add_directive(directive.expect("it is a directive"));
        }
        let started = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .event_format(NginxFormat)
            .with_writer(Maybe(standard).and(Maybe(file)))
            .finish()
            .with(Told(LogLines::of_process().clone()))
            .try_init();
        drop(started);
        if let Some(error) = failed {
            tracing::warn!(%error, "errors go to standard error only");
        }
        Ok(ErrorLog(sink))
    }

    /// Opens the file anew.
    pub(crate) fn reopen(&self) {
        if let Some(sink) = &self.0 {
            sink.reopen();
        }
    }

    /// Writes what is left. Blocks.
    pub(crate) fn finish(&self) {
        if let Some(sink) = &self.0 {
            sink.finish();
        }
    }
}

/// The level that stands for one of nginx's.
pub(crate) fn level_of_kong(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info | LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Crit | LogLevel::Alert | LogLevel::Emerg => LevelFilter::ERROR,
    }
}

/// A place for lines that may not be there.
struct Maybe<M>(Option<M>);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Maybe<M> {
    type Writer = MaybeWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        MaybeWriter(self.0.as_ref().map(MakeWriter::make_writer))
    }
}

struct MaybeWriter<W>(Option<W>);

impl<W: io::Write> io::Write for MaybeWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Some(writer) => writer.write(line),
            None => Ok(line.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), io::Write::flush)
    }
}

struct ToStandardError;

impl MakeWriter<'_> for ToStandardError {
    type Writer = io::Stderr;

    fn make_writer(&self) -> io::Stderr {
        io::stderr()
    }
}

#[derive(Clone)]
struct ToSink(Sink);

impl MakeWriter<'_> for ToSink {
    type Writer = ToSink;

    fn make_writer(&self) -> ToSink {
        self.clone()
    }
}

impl io::Write for ToSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps lines for a plugin that sends them on.
struct Told(Arc<LogLines>);

impl<S: Subscriber> Layer<S> for Told {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // a queue that cannot send must not fill itself with that
        if !self.0.are_wanted() || metadata.target().starts_with(LOG_QUEUES) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut parts = Parts::default();
        event.record(&mut parts);
        self.0.add(LogLine {
            time_ns: now.map_or(0, |since| since.as_nanos() as u64),
            severity: match nginx_level(metadata) {
                "error" => Severity::Error,
                "warn" => Severity::Warn,
                "notice" => Severity::Notice,
                "info" => Severity::Info,
                _ => Severity::Debug,
            },
            message: parts.message,
            fields: parts.fields,
            request_id: parts.request_id,
        });
    }
}

/// A message and its fields, each for itself.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
    request_id: Option<String>,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            "request_id" => self.request_id = Some(value.to_owned()),
            name => self.fields.push((name, value.to_owned())),
        }
    }
}

/// nginx's name for the level of an event.
fn nginx_level(metadata: &Metadata<'_>) -> &'static str {
    match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO if metadata.target() == CLIENT_FAULTS => "info",
        Level::INFO => "notice",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// `2026/11/22 13:48:04 [error] 4711#0: message, name: value, …`; times are UTC.
struct NginxFormat;

impl<S, N> FormatEvent<S, N> for NginxFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = nginx_level(event.metadata());
        let now = jiff::Timestamp::now().strftime("%Y/%m/%d %H:%M:%S");
        let mut line = Line::default();
        event.record(&mut line);
        let process = std::process::id();
        let Line { message, fields } = line;
        writeln!(out, "{now} [{level}] {process}#0: {message}{fields}")
    }
}

/// A message and its fields, on one line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.add(field.name(), &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }
}

impl Line {
    fn add(&mut self, name: &str, value: &str) {
        let out = match name {
            "message" => &mut self.message,
            _ => {
                _ = write!(self.fields, ", {name}: ");
                &mut self.fields
            }
        };
        for c in value.chars() {
            match c.is_control() {
                true => out.extend(c.escape_default()),
                false => out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl MakeWriter<'_> for Kept {
        type Writer = Kept;

        fn make_writer(&self) -> Kept {
            self.clone()
        }
    }

    impl io::Write for Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_those_of_nginx() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .event_format(NginxFormat)
            .with_max_level(Level::DEBUG)
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(client = %"a\nb", fault = "upstream", port = 7, "request failed");
            tracing::info!(target: CLIENT_FAULTS, "gone");
            tracing::info!("started");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let process = std::process::id();
        let rest = |level, message| format!(" [{level}] {process}#0: {message}");
        let expected = [
            rest(
                "error",
                "request failed, client: a\\nb, fault: upstream, port: 7",
            ),
            rest("info", "gone"),
            rest("notice", "started"),
        ];
        assert_eq!(lines.len(), 3);
        for (line, rest) in lines.iter().zip(expected) {
            let (time, said) = line.split_at("2026/11/22 13:48:04".len());
            assert_eq!(said, rest);
            assert_eq!(time.matches(['/', ':', ' ']).count(), 5, "{time}");
        }
    }
}
