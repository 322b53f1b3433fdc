//! `rcbot service`: writes the unit that runs the bot as a service, enables it, and undoes both.
//!
//! Invariant: it starts and ends the bot by systemd only, and no session.

mod search_path;
mod unit;

use std::{
    env,
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{Uid, User, geteuid};
use tracing::warn;

use super::{ConfigFile, load_config, misconfigured, print};
use crate::{atomic_file, config::Config, shell};

/// The folder of the administrator's units: systemd.unit(5).
const SYSTEM_UNITS: &str = "/etc/systemd/system";

/// Everybody may read a unit.
const READABLE: u32 = 0o644;

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
        return arguments.remove();
    }
    let config = load_config(&arguments.config.path)?;
    let text = arguments.unit(&config).map_err(misconfigured)?;
    if arguments.print {
        return print(text.trim_end());
    }
    arguments.install(&text)
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

/// Before anything is read: each kind has its own folder, which only its user may write to.
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

impl Service {
    fn unit(&self, config: &Config) -> Result<String> {
        let owner = self.owner(&config.file)?;
        let path = self.path.clone().unwrap_or_else(|| {
            let settings = config.all_settings();
            let commands = settings.flat_map(|it| [&it.command, &it.resume_command]);
            let programs = commands.filter_map(|words| Some(words.first()?.as_str()));
            // The PATH of root, or of `sudo`, is not that of another user.
            let ours = env::var_os("PATH").filter(|_| owner.uid == geteuid());
            let (path, missing) = search_path::of(&owner.dir, ours.as_deref(), programs.collect());
            for program in missing {
                warn!(
                    program,
                    "not found in any usual folder: name the service's folders with --path, or install it and run this again"
                );
            }
            path
        });
        let program = env::current_exe().context("cannot tell where rcbot is")?;
        let user = (!self.user).then_some(owner.name.as_str());
        unit::text(&program, &config.file, &path, user)
    }

    fn owner(&self, config: &Path) -> Result<User> {
        if let Some(name) = &self.run_as {
            return User::from_name(name)?.with_context(|| format!("there is no user {name}"));
        }
        let id = if self.user {
            geteuid()
        } else {
            let file = fs::metadata(config);
            let file = file.with_context(|| format!("cannot look at {}", config.display()))?;
            Uid::from_raw(file.uid())
        };
        if id.is_root() && !self.user {
            bail!(
                "{} belongs to root, and every session would run as root: name the user whom the bot runs as with `--run-as`, \
                 and give that user the file, or say `--run-as root` if that is what you want",
                config.display()
            );
        }
        User::from_uid(id)?.with_context(|| format!("the user {id} has no name"))
    }

    fn unit_file(&self) -> Result<PathBuf> {
        let folder = if self.user {
            let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".config"));
            let configured = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let configured = configured.filter(|folder| folder.is_absolute());
            let folder = configured.or_else(home).context("HOME is not set")?;
            folder.join("systemd/user")
        } else {
            PathBuf::from(SYSTEM_UNITS)
        };
        Ok(folder.join(format!("{}.service", self.name)))
    }

    /// The command for the manager of the system's services, or of the user's.
    fn systemctl(&self, command: &str) -> String {
        let manager = if self.user { "--user " } else { "" };
        format!("systemctl {manager}{command}")
    }

    /// The same for the service.
    fn of_unit(&self, command: &str) -> String {
        self.systemctl(&format!("{command} {}.service", self.name))
    }

    /// In a container, or with another init, there is no service manager.
    fn has_systemd(&self) -> bool {
        let output = command(&self.systemctl("is-system-running")).output();
        output.is_ok_and(|output| {
            let state = String::from_utf8_lossy(&output.stdout);
            !["", "offline", "unknown"].contains(&state.trim())
        })
    }

    /// Writes the unit, enables and starts it; a service that runs is restarted, as its unit may be another than before.
    fn install(&self, text: &str) -> Result<()> {
        print(&write(&self.unit_file()?, text, self.replace)?)?;
        let start = [
            self.systemctl("daemon-reload"),
            self.of_unit("enable"),
            self.of_unit("restart"),
        ];
        // Without it the user's services, and all sessions, end with the user's last login.
        let linger = self.user.then_some("loginctl enable-linger");
        if !self.has_systemd() {
            print("systemd does not run here, so the service is not started. Where it runs:")?;
            let mut steps = start.iter().map(String::as_str).chain(linger);
            return steps.try_for_each(|step| print(&format!("  {step}")));
        }
        for step in &start {
            run(step).with_context(|| {
                format!(
                    "the unit is written, but the service does not run. If you still run the bot in a terminal, end it there; \
                     `{}` tells more. Then run the command again",
                    self.of_unit("status")
                )
            })?;
        }
        if let Some(step) = linger {
            run(step).context(
                "the service runs, but it ends when you log out, and all sessions with it: \
                 `sudo loginctl enable-linger \"$USER\"` lets it run on",
            )?;
        }
        let (begin, log) = if self.user {
            ("user's first login, or at boot", "journalctl --user")
        } else {
            ("system", "sudo journalctl")
        };
        print(&format!(
            "The service runs, and starts with the {begin}. Watch it with `{log} -u {}.service -f`, and try it with \
             `rcbot check --config {}`.",
            self.name,
            shell::word(&self.config.path)
        ))
    }

    fn remove(&self) -> Result<()> {
        let file = self.unit_file()?;
        let shown = file.display();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return print(&format!("There is no {shown}: nothing to remove."));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let has_systemd = self.has_systemd();
        if has_systemd {
            run(&self.of_unit("disable --now")).context("nothing was removed")?;
        }
        fs::remove_file(&file).with_context(|| format!("cannot remove {shown}"))?;
        let ended = if has_systemd {
            run(&self.systemctl("daemon-reload"))?;
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
}

/// A command as a person could type it. Our words have no white space.
fn command(step: &str) -> Command {
    let mut words = step.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn run(step: &str) -> Result<()> {
    print(&format!("Running `{step}`"))?;
    let status = command(step).status();
    let status = status.with_context(|| format!("cannot run `{step}`"))?;
    ensure!(status.success(), "`{step}` failed ({status})");
    Ok(())
}

/// Writes atomically; replaces an existing file only if `replace`.
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
    let write = if replace {
        atomic_file::write
    } else {
        atomic_file::write_new
    };
    fs::create_dir_all(file.parent().unwrap_or(file))
        .and_then(|()| write(file, text.as_bytes()))
        .and_then(|()| fs::set_permissions(file, Permissions::from_mode(READABLE)))
        .with_context(|| format!("cannot write {shown}"))?;
    let done = if is_there { "Replaced" } else { "Wrote" };
    Ok(format!("{done} {shown}."))
}
