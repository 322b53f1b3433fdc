//! `rcbot service`: writes the unit that runs the bot as a service, enables it, and undoes both.
//!
//! Invariant: it starts and ends the bot by systemd only, and no session.

mod search_path;
mod systemd;
mod unit;

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Uid, User, geteuid};
use tracing::warn;

use super::{ConfigFile, load_config, misconfigured, print};
use crate::config::Config;
use systemd::{Step, Systemd};
use unit::Unit;

/// Where units of the administrator lie: systemd.unit(5).
const SYSTEM_UNITS: &str = "/etc/systemd/system";

/// What `rcbot service` takes.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(super) struct Service {
    #[command(flatten)]
    config: ConfigFile,
    /// Make it a service of your own user instead of the system. Needs no root.
    #[arg(long)]
    user: bool,
    /// The user whom the bot and its sessions run as. [default: the owner of the configuration]
    #[arg(long, value_name = "USER", conflicts_with = "user")]
    run_as: Option<String>,
    /// The service's name, where several bots run on this host.
    #[arg(long, default_value = "rcbot", value_parser = service_name)]
    name: String,
    /// The PATH of the bot and its sessions. [default: the usual folders, and the one that has `claude`]
    #[arg(long, value_name = "FOLDERS")]
    path: Option<String>,
    /// Print the unit. Writes nothing and starts nothing.
    #[arg(long, conflicts_with = "remove")]
    print: bool,
    /// Replace a unit of that name that differs.
    #[arg(long, conflicts_with = "remove")]
    replace: bool,
    /// Stop the service and remove its unit. Sessions keep running.
    #[arg(long)]
    remove: bool,
}

pub(super) fn service(arguments: &Service) -> Result<()> {
    if !arguments.print {
        refuse_wrong_user(arguments.user).map_err(misconfigured)?;
    }
    if arguments.remove {
        return remove(arguments);
    }
    let config = load_config(&arguments.config.path)?;
    let unit = unit_for(arguments, &config).map_err(misconfigured)?;
    let text = unit.text().map_err(misconfigured)?;
    if arguments.print {
        return print(text.trim_end());
    }
    install(arguments, &text)
}

fn service_name(text: &str) -> Result<String, String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if !text.is_empty() && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "found {text:?}, wanted letters, digits, - and _, without .service"
    ))
}

/// Before anything is read: each of the two has its own place, which only its own user writes.
fn refuse_wrong_user(of_user: bool) -> Result<()> {
    match (of_user, geteuid().is_root()) {
        (false, false) => bail!(
            "only root can write or remove a service of the system: put `sudo` before the command. `--user` makes a \
             service of your own user instead, and `--print` only shows the unit"
        ),
        (true, true) if env::var_os("SUDO_USER").is_some() => {
            bail!("with `sudo`, `--user` would make a service of root: run it without `sudo`")
        }
        (true, _) | (false, true) => Ok(()),
    }
}

fn unit_for(arguments: &Service, config: &Config) -> Result<Unit> {
    let owner = owner(arguments, &config.file)?;
    let programs: Vec<_> = config
        .projects
        .values()
        .map(|configured| &configured.project.settings)
        .chain(config.project_roots.iter().map(|root| &root.settings))
        .flat_map(|settings| [&settings.command, &settings.resume_command])
        .filter_map(|words| words.first())
        .map(String::as_str)
        .collect();
    let path = arguments.path.clone().unwrap_or_else(|| {
        // Root's own PATH, or that of `sudo`, says nothing of another user's.
        let ours = env::var_os("PATH").filter(|_| owner.uid == geteuid());
        let found = search_path::of(&owner.dir, ours.as_deref(), &programs);
        for program in &found.missing {
            warn!(
                program,
                "not found in any usual folder: name the service's folders with --path, or install it and run this again"
            );
        }
        found.path
    });
    Ok(Unit {
        program: env::current_exe().context("cannot tell where rcbot is")?,
        config: config.file.clone(),
        path,
        user: (!arguments.user).then_some(owner.name),
    })
}

/// Who the bot is to run as.
fn owner(arguments: &Service, config: &Path) -> Result<User> {
    if let Some(name) = &arguments.run_as {
        return User::from_name(name)?.with_context(|| format!("there is no user {name}"));
    }
    let id = if arguments.user {
        geteuid()
    } else {
        let file = fs::metadata(config);
        let file = file.with_context(|| format!("cannot look at {}", config.display()))?;
        Uid::from_raw(file.uid())
    };
    if id.is_root() && !arguments.user {
        bail!(
            "{} belongs to root, and every session would run as root: name the user whom the bot runs as with `--run-as`, \
             and give that user the file, or say `--run-as root` if that is what you want",
            config.display()
        );
    }
    User::from_uid(id)?.with_context(|| format!("the user {id} has no name"))
}

fn unit_file(arguments: &Service) -> Result<PathBuf> {
    let folder = if arguments.user {
        let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".config"));
        let configuration = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let configuration = configuration
            .filter(|folder| folder.is_absolute())
            .or_else(home);
        configuration
            .context("HOME is not set")?
            .join("systemd/user")
    } else {
        PathBuf::from(SYSTEM_UNITS)
    };
    Ok(folder.join(format!("{}.service", arguments.name)))
}

fn install(arguments: &Service, text: &str) -> Result<()> {
    let file = unit_file(arguments)?;
    print(&write(&file, text, arguments.replace)?)?;
    let systemd = Systemd::of(arguments.user, &arguments.name);
    let steps = systemd.enable();
    if systemd.is_running() {
        let run = |step: &Step| {
            print(&format!("Running `{step}`"))?;
            step.run()
        };
        for step in &steps {
            run(step).with_context(|| {
                format!(
                    "the unit is written, but the service does not run. If you still run the bot in a terminal, end it there; \
                     `{}` tells more. Then run the command again",
                    systemd.status()
                )
            })?;
        }
        if let Some(step) = &systemd.linger() {
            run(step).context(
                "the service runs, but it ends when you log out, and all sessions with it: \
                 `sudo loginctl enable-linger \"$USER\"` lets it run on",
            )?;
        }
        return print(&format!(
            "The service runs, and starts with the {}. Watch it with `{}`, and try it with `rcbot check --config {}`.",
            if arguments.user {
                "user's first login, or at boot"
            } else {
                "system"
            },
            systemd.log(),
            arguments.config.path.display()
        ));
    }
    print("systemd does not run here, so the service is not started. Where it runs:")?;
    let steps = steps.into_iter().chain(systemd.linger());
    steps
        .map(|step| format!("  {step}"))
        .try_for_each(|line| print(&line))
}

/// Whole or not at all; what is there already stays unless it is to be replaced.
fn write(file: &Path, text: &str, replace: bool) -> Result<String> {
    let shown = file.display();
    let there = fs::read(file);
    let is_there = file.symlink_metadata().is_ok();
    if there.is_ok_and(|there| there == text.as_bytes()) {
        return Ok(format!("{shown} is there already, and the same."));
    }
    if is_there && !replace {
        bail!(
            "{shown} exists already and differs, so nothing was changed: `--replace` replaces it, and `--print` shows what \
             would be written"
        );
    }
    let writing = || -> io::Result<()> {
        let folder = file.parent().unwrap_or(file);
        fs::create_dir_all(folder)?;
        let mut new = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        if replace {
            new.persist(file)?;
        } else {
            new.persist_noclobber(file)?;
        }
        Ok(())
    };
    writing().with_context(|| format!("cannot write {shown}"))?;
    Ok(format!(
        "{} {shown}.",
        if is_there { "Replaced" } else { "Wrote" }
    ))
}

fn remove(arguments: &Service) -> Result<()> {
    let file = unit_file(arguments)?;
    let shown = file.display();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return print(&format!("There is no {shown}: nothing to remove."));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let systemd = Systemd::of(arguments.user, &arguments.name);
    let is_running = systemd.is_running();
    if is_running {
        let step = systemd.disable();
        print(&format!("Running `{step}`"))?;
        step.run().context("nothing was removed")?;
    }
    fs::remove_file(&file).with_context(|| format!("cannot remove {shown}"))?;
    if is_running {
        systemd.reload().run()?;
    }
    let ended = if is_running {
        "The bot has ended."
    } else {
        "systemd does not run here, so the bot was not stopped."
    };
    let stop = unit::stop_command(&text);
    let stop = stop.unwrap_or_else(|| "rcbot stop --config FILE".to_owned());
    print(&format!(
        "Removed {shown}. {ended}\n\
         Sessions keep running, without a time limit and with links that work. `{stop}` ends them.\n\
         The configuration and the bot's data are still there."
    ))
}
