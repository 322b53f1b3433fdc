//! How the log is written: to standard error, for people, for machines, or for systemd's journal.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
    panic::{self, PanicHookInfo},
};

use clap::ValueEnum;
use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext,
        format::{self, FormatEvent, FormatFields},
    },
    registry::LookupSpan,
};

/// What is logged unless `RUST_LOG` says otherwise: our info, and the warnings of the SDK.
///
/// The SDK warns of what is normal here: of account data that does not exist, of a new device whose keys are not uploaded yet,
/// of rooms without names. Failed requests and undecryptable events are logged by ourselves.
const DEFAULT_LOG: &str = "warn,rcbot=info,audit=info,matrix_sdk::http_client=off,matrix_sdk_base::room::display_name=error,\
                           matrix_sdk_crypto::backups=error,matrix_sdk_crypto::identities::manager=error,\
                           matrix_sdk_crypto::machine=error";

/// How to write the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    /// For people; in systemd's journal without the time, which it knows, and with the priority, which it asks for.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Logs from here on.
pub(super) fn set_up(format: LogFormat) {
    let wanted = EnvFilter::try_from_default_env();
    let refused = wanted.as_ref().err().map(ToString::to_string);
    let refused = refused.filter(|_| env::var_os(EnvFilter::DEFAULT_ENV).is_some());
    let filter = wanted.unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| OneLine(io::stderr()));
    // In a terminal, `NO_COLOR` decides.
    let log = if io::stderr().is_terminal() {
        log
    } else {
        log.with_ansi(false)
    };
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text if goes_to_journal() => {
            let format = format::format().without_time().with_ansi(false);
            log.event_format(ForJournal(format)).init();
        }
        LogFormat::Text => log.init(),
    }
    panic::set_hook(Box::new(log_panic));
    if let Some(error) = refused {
        warn!(error, "{} is invalid and ignored", EnvFilter::DEFAULT_ENV);
    }
}

/// Logs a panic like any other fault: its usual lines would have the journal's priority for information.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str();
    error!(place, message, "a part of rcbot panicked");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        for line in backtrace.to_string().lines() {
            error!("{line}");
        }
    }
}

/// Says what ended the program. A closed standard error leaves only the exit code.
pub(super) fn fatal(error: &str) {
    let priority = if goes_to_journal() {
        format!("<{}>", priority(Level::ERROR))
    } else {
        String::new()
    };
    let mut name = "rcbot: ";
    for line in error.lines() {
        drop(writeln!(io::stderr(), "{priority}{name}{line}"));
        name = "";
    }
}

/// Whether standard error goes to the journal. The variable is not enough, as children that write elsewhere inherit it
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn goes_to_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").ok();
    let Ok(stderr) = fstat(io::stderr()) else {
        return false;
    };
    stream == Some(format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Writes each entry, which comes in one piece, as one line: a user id may hold line breaks, and what follows would look like
/// another entry, of the audit log for example.
struct OneLine<W>(W);

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let text = text.trim_end_matches('\n').replace('\n', "\\n");
        writeln!(self.0, "{}", text.replace('\r', "\\r"))?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lines prefixed with their priority, which the journal removes: sd-daemon(3).
struct ForJournal<F>(F);

impl<S, N, F> FormatEvent<S, N> for ForJournal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The levels of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{enabled, info};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn each_level_has_its_priority_in_the_journal() {
        let levels = [
            Level::ERROR,
            Level::WARN,
            Level::INFO,
            Level::DEBUG,
            Level::TRACE,
        ];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }

    #[test]
    fn an_entry_is_one_line_whatever_a_user_is_called() {
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Arc::clone(&written);
        let log = tracing_subscriber::fmt()
            .with_writer(move || OneLine(Written(Arc::clone(&writer))))
            .finish();
        tracing::subscriber::with_default(log, || {
            let inviter = "@a\r\nINFO audit: command judged:x.y";
            info!(%inviter, "invitation declined");
            info!("next");
        });
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().count(), 2, "{written}");
        assert!(written.contains("@a\\r\\nINFO"), "{written}");
    }

    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_audit_log_is_written_unless_the_operator_says_otherwise() {
        let log = tracing_subscriber::registry().with(EnvFilter::new(DEFAULT_LOG));
        tracing::subscriber::with_default(log, || {
            assert!(enabled!(target: "audit", Level::INFO));
            assert!(!enabled!(target: "matrix_sdk", Level::INFO));
        });
    }
}
