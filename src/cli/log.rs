//! How the log is written: to standard error, for people, for machines, or for systemd's journal.

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
};

use clap::ValueEnum;
use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext,
        format::{self, FormatEvent, FormatFields},
    },
    registry::LookupSpan,
};

/// What is logged unless `RUST_LOG` says otherwise: our own good days, and the SDK's bad ones.
///
/// The SDK complains of what is normal here: of account data that does not exist, of a new device whose keys are not
/// uploaded yet, of rooms without names. What fails on its way, or cannot be decrypted, is told by ourselves.
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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text if goes_to_journal() => {
            let format = format::format().without_time().with_ansi(false);
            log.event_format(ForJournal(format)).init();
        }
        LogFormat::Text => log.init(),
    }
}

/// Whether standard error is the journal's: the variable alone does not tell, as children get it too that write elsewhere
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn goes_to_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").ok();
    let Ok(stderr) = fstat(io::stderr()) else {
        return false;
    };
    stream == Some(format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Lines with their priority before them, which the journal takes off again: sd-daemon(3).
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
    use tracing::{Level, enabled};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_audit_log_is_written_unless_the_operator_says_otherwise() {
        let log = tracing_subscriber::registry().with(EnvFilter::new(DEFAULT_LOG));
        tracing::subscriber::with_default(log, || {
            assert!(enabled!(target: "audit", Level::INFO));
            assert!(!enabled!(target: "matrix_sdk", Level::INFO));
        });
    }
}
