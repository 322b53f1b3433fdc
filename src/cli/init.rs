//! `rcbot init`: asks for the little that a first run needs, and writes config.yaml and registration.yaml.
//!
//! Invariant: it overwrites nothing, and without an answer to every question it writes nothing.

mod discover;
mod input;
mod templates;

use std::{
    fs::{self, DirBuilder},
    io::{self, IsTerminal as _},
    os::unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{Access, access};
use url::Url;

use super::{ConfigFile, block_on, misconfigured, print};
use crate::{
    atomic_file,
    config::Config,
    matrix::{HomeserverKind, generate, write_new},
};
use input::{Input, Prompt};

/// Nobody but the owner, for the folder of the two files.
const PRIVATE: u32 = 0o700;

/// What `rcbot init` takes. Whatever is not given is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    input: Input,
    /// For a homeserver with Matrix Authentication Service that does not ask for MSC4190 on its own.
    #[arg(long)]
    msc4190: bool,
}

pub(super) fn init(arguments: Init) -> Result<()> {
    let path = &arguments.config.path;
    let file = std::path::absolute(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    let registration = file.with_file_name("registration.yaml");
    if registration == file {
        bail!("registration.yaml is for the registration: name another file with --config");
    }
    refuse_folder(&file)?;
    refuse_existing([&file, &registration])?;
    refuse_unwritable(&file)?;
    let missing = arguments.input.missing();
    if !missing.is_empty() && !io::stdin().is_terminal() {
        return Err(misconfigured(anyhow!(
            "there is no terminal to ask at: give {} as well",
            missing.join(", ")
        )));
    }
    let (mut keyboard, mut screen) = (io::stdin().lock(), io::stdout());
    let mut prompt = Prompt::new(&mut keyboard, &mut screen);
    let discover = |url: &Url| {
        let discovery = block_on(async { Ok(discover::about(url).await) });
        discovery.unwrap_or_default()
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let input = arguments.input;
    let answers = input.ask_for_the_rest(&mut prompt, discover, home.as_deref())?;

    let text = templates::config(&answers);
    let config = Config::from_text(&file, &text).context("these answers make no configuration")?;
    write(&config, &text, &registration, arguments.msc4190)?;
    let kind = block_on(async { Ok(HomeserverKind::ask(&config.homeserver_url).await) })?;
    let directory = &answers.directory;
    print(&templates::next_steps(
        &config,
        &registration,
        directory,
        kind,
    ))
}

fn refuse_folder(file: &Path) -> Result<()> {
    if file.is_dir() || file.as_os_str().as_bytes().ends_with(b"/") {
        bail!(
            "{} is a folder: name a file in it with --config, such as {}",
            file.display(),
            file.join("config.yaml").display()
        );
    }
    Ok(())
}

/// What cannot be written after all questions would have to be answered again.
fn refuse_unwritable(file: &Path) -> Result<()> {
    let mut folders = file.ancestors().skip(1);
    let Some(folder) = folders.find(|folder| folder.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let writable = if folder.is_dir() {
        access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    };
    writable.with_context(|| {
        format!(
            "cannot write in {}: name another place with --config",
            folder.display()
        )
    })
}

/// Also refuses dangling symbolic links.
fn refuse_existing(files: [&Path; 2]) -> Result<()> {
    let mut there = files.iter().filter(|file| file.symlink_metadata().is_ok());
    there.next().map_or(Ok(()), |file| {
        Err(anyhow!(
            "{} exists already, so nothing was written: remove it, or name another place with --config",
            file.display()
        ))
    })
}

/// Both files or neither.
fn write(config: &Config, text: &str, registration: &Path, msc4190: bool) -> Result<()> {
    if let Some(folder) = config.file.parent() {
        let mut made = DirBuilder::new();
        let made = made.recursive(true).mode(PRIVATE).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let tokens = generate(&config.bot_user, msc4190);
    write_new(registration, &tokens)?;
    let written = atomic_file::write_new(&config.file, text.as_bytes()).inspect_err(|_| {
        // It is new, and nobody knows its tokens. If it is left over, the next try reports it.
        drop(fs::remove_file(registration));
    });
    written.with_context(|| format!("cannot write {}", config.file.display()))
}
