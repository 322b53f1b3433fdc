//! The commands of the binary.
//!
//! Invariant: only here does rcbot print, and only here is an exit code chosen.

mod check;
mod exit;
mod generate;
mod init;
mod log;
mod reset_identity;
mod service;
mod sessions;
mod trust;

use std::{
    future::Future,
    io::{self, IsTerminal as _, Write as _},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::{Parser, Subcommand};
use clap_complete::Shell;
use futures_util::{FutureExt as _, future::select_all};
use procfs::process::Process;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use exit::misconfigured;
use log::LogFormat;

use crate::{
    bot,
    config::{Config, LoginMethod},
    data_dir::DataDir,
    matrix::{HomeserverKind, Login, generate, write_new},
    remote_control::process::raise_descriptor_limit,
    shell,
};

/// How long reads and writes of files may run on at shutdown, after all else is done.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long idle threads for blocking work are kept: where a session uses up the process limit of its user, no new thread can
/// be made, and an existing one has to stop it.
const KEPT_THREADS: Duration = Duration::from_hours(24);

/// How many threads tasks run on. They mostly wait, and one for each processor would only cost memory on a large host.
const WORKERS: usize = 2;

/// Starts `claude remote-control` for those whom a Matrix room trusts, and sends them the link end-to-end encrypted.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How to write the log, which goes to standard error; `RUST_LOG` chooses what is in it.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask for the little that a first run needs, and write config.yaml and registration.yaml. Overwrites nothing.
    Init(init::Init),
    /// Run the bot. SIGTERM, SIGHUP and Ctrl-C end it; sessions go on.
    Run(ConfigFile),
    /// Try everything that a start needs, and say what to do about what fails. Changes nothing.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// List what passed and what was not tried too.
        #[arg(long)]
        verbose: bool,
        /// Write the report for machines.
        #[arg(long)]
        json: bool,
    },
    /// Show the sessions on this host, from disk. Needs no homeserver and no running bot.
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// Write them for machines.
        #[arg(long)]
        json: bool,
    },
    /// End sessions on this host. Needs no homeserver; a bot that runs does it itself.
    Stop {
        #[command(flatten)]
        config: ConfigFile,
        /// Whose session to end. Without it, all are ended.
        project: Option<String>,
    },
    /// Show the cross-signing identity of a user, and accept it if it is another one than the bot knows.
    Trust(trust::Trust),
    /// Give the bot a new cross-signing identity, where the old one's keys and its recovery key are lost.
    ResetIdentity(reset_identity::ResetIdentity),
    /// Write a registration with fresh random tokens, for the bot and for the homeserver.
    Registration {
        #[command(flatten)]
        config: ConfigFile,
        /// Where to write it. Nothing is overwritten. [default: what the configuration names]
        #[arg(long)]
        output: Option<PathBuf>,
        /// For a homeserver with Matrix Authentication Service that does not ask for MSC4190 on its own.
        #[arg(long)]
        msc4190: bool,
    },
    /// Run the bot as a systemd service: write the unit, enable and start it, or remove it.
    Service(service::Service),
    /// Print a configuration that has every key with its default.
    Config,
    /// Print a script that completes rcbot's commands and options in a shell.
    Completions {
        /// The shell, such as bash.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration.
    #[arg(
        id = "config",
        long = "config",
        value_name = "CONFIG",
        default_value = "config.yaml"
    )]
    path: PathBuf,
}

/// Does what the arguments say. Exit codes: 0 well, 1 failed while running, 2 wrong arguments or configuration, 3 needs the
/// operator first.
pub fn run(arguments: Arguments) -> ExitCode {
    log::set_up(arguments.log_format);
    let is_bot = matches!(arguments.command, Command::Run(_));
    let result = catch_unwind(AssertUnwindSafe(|| execute(arguments.command)));
    let Err(error) = result.unwrap_or_else(|_| Err(exit::bug())) else {
        return ExitCode::SUCCESS;
    };
    // The chain is printed here and nowhere else.
    let message = format!("{error:#}");
    log::fatal(&message);
    if is_bot {
        bot::report_failure(&message);
    }
    ExitCode::from(exit::code(&error))
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Init(arguments) => init::init(arguments),
        Command::Run(file) => run_bot(&file.path),
        Command::Check {
            config,
            verbose,
            json,
        } => check::check(&config.path, verbose, json),
        Command::Status { config, json } => sessions::status(&config.path, json),
        Command::Stop { config, project } => sessions::stop(&config.path, project.as_deref()),
        Command::Trust(arguments) => trust::trust(&arguments),
        Command::ResetIdentity(arguments) => reset_identity::reset_identity(&arguments),
        Command::Registration {
            config,
            output,
            msc4190,
        } => write_registration(&config.path, output, msc4190),
        Command::Service(arguments) => service::service(&arguments),
        Command::Config => generate::config(),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man => generate::man(),
    }
}

fn load_config(path: &Path) -> Result<Config> {
    let config = Config::load(path)?;
    for warning in config.warnings() {
        warn!("{warning}");
    }
    Ok(config)
}

fn load_login(config: &Config) -> Result<Login> {
    let login = Login::load(config)?;
    for warning in login.warnings() {
        warn!("{warning}");
    }
    Ok(login)
}

fn run_bot(path: &Path) -> Result<()> {
    let config = load_config(path)?;
    for (project, why) in config.unusable_directories() {
        warn!(%project, "{why}: no session can start in it until that is fixed");
    }
    let login = load_login(&config)?;
    // Locked for as long as the runtime goes on: a process that is spawned while it ends must not meet the next bot.
    let data_dir = DataDir::open(&config.data_dir)?;
    raise_descriptor_limit();
    let run = async {
        let shutdown = shutdown_signal().context("cannot wait for signals")?;
        info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "rcbot starts");
        Ok(Box::pin(bot::run(config, login, &data_dir, shutdown)).await?)
    };
    block_on(run)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(WORKERS)
        .thread_keep_alive(KEPT_THREADS)
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(AssertUnwindSafe(work).catch_unwind());
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Programs that have read enough, such as head(1), close the pipe: that is not a failure.
fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Asks a person at the terminal; anything but a yes is a no. `otherwise` is the error where there is no terminal.
fn confirm(question: &str, otherwise: &str) -> Result<bool> {
    ensure!(io::stdin().is_terminal(), otherwise.to_owned());
    write!(io::stdout(), "{question} [y/N] ")?;
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Ends with the first SIGTERM, SIGHUP or Ctrl-C. The signals are handled from here on, so that none kills the bot.
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
    if !ignores_hangup() {
        kinds.push(SignalKind::hangup());
    }
    let signals = kinds.into_iter().map(signal);
    let mut signals = signals.collect::<io::Result<Vec<_>>>()?;
    Ok(async move {
        let received = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        select_all(received).await;
    })
}

/// Whether SIGHUP was ignored when this process began, as nohup(1) does: then a closed terminal must not end it.
fn ignores_hangup() -> bool {
    const HANGUP: u64 = 1 << (SignalKind::hangup().as_raw_value() - 1);
    let status = Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.sigign & HANGUP != 0)
}

fn write_registration(path: &Path, output: Option<PathBuf>, msc4190: bool) -> Result<()> {
    let config = load_config(path)?;
    let LoginMethod::Appservice(registration) = &config.login else {
        return Err(misconfigured(anyhow!(
            "a registration is for an appservice, and {} gives bot.access_token or bot.password: remove that key first",
            path.display()
        )));
    };
    let output = output.unwrap_or_else(|| registration.clone());
    let output = std::path::absolute(output)?;
    let text = generate(&config.bot_user, msc4190);
    write_new(&output, &text)?;
    let kind = block_on(async { Ok(HomeserverKind::ask(&config.homeserver_url).await) })?;
    // The bot would go on with the tokens of the other one, which the homeserver does not know.
    let use_it = if output == *registration {
        ""
    } else {
        " Name it under `appservice.registration` in the configuration."
    };
    let next = format!(
        "Wrote {file}, which only you can read.\nNext: {register}.{use_it} Then run `rcbot run --config {config}`, \
         and invite {bot} to the admin room.",
        file = output.display(),
        register = kind.how_to_register(&output, &config.bot_user),
        config = shell::word(path),
        bot = config.bot_user
    );
    print(&next)
}
