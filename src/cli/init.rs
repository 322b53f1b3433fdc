//! `rcbot init`: asks for the little that a first run needs, and writes config.yaml and registration.yaml.
//!
//! Invariant: it overwrites nothing, and without an answer to every question it writes nothing.

mod discover;
mod input;
mod prompt;
mod templates;

use std::{
    fs::{self, DirBuilder},
    io::{self, BufReader, IsTerminal as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{ConfigFile, block_on, misconfigured, print};
use crate::{
    config::Config,
    matrix::{HomeserverKind, generate, write_new},
};
use discover::Discovery;
use input::{Answers, Input};
use prompt::Prompt;

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

/// The two files to be.
struct Files {
    config: PathBuf,
    registration: PathBuf,
}

pub(super) fn init(arguments: Init) -> Result<()> {
    let files = Files::beside(&arguments.config.path)?;
    files.refuse_existing()?;
    let missing = arguments.input.missing();
    if !missing.is_empty() && !io::stdin().is_terminal() {
        return Err(misconfigured(anyhow!(
            "there is no terminal to ask at: give {} as well",
            missing.join(", ")
        )));
    }
    let answers = ask(arguments.input)?;
    write(&files, &answers, arguments.msc4190)?;
    let kind = block_on(async { Ok(HomeserverKind::ask(&answers.homeserver).await) })?;
    print(&templates::next_steps(
        &files.config,
        &files.registration,
        &answers,
        kind,
    ))
}

/// Asks for what is not given.
fn ask(input: Input) -> Result<Answers> {
    let mut prompt = Prompt::new(BufReader::new(io::stdin()), io::stdout());
    let discover = |url: &url::Url| {
        let url = url.clone();
        block_on(async move { Ok(discover::about(&url).await) })
            .unwrap_or_else(|_| Discovery::default())
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    input.ask_for_the_rest(&mut prompt, discover, home.as_deref())
}

impl Files {
    fn beside(config: &Path) -> Result<Self> {
        let config = std::path::absolute(config)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let registration = config.with_file_name("registration.yaml");
        if registration == config {
            bail!("registration.yaml is for the registration: name another file with --config");
        }
        Ok(Self {
            config,
            registration,
        })
    }

    /// Also where what is there leads nowhere.
    fn refuse_existing(&self) -> Result<()> {
        let is_there = |path: &&PathBuf| path.symlink_metadata().is_ok();
        match [&self.config, &self.registration]
            .into_iter()
            .find(is_there)
        {
            None => Ok(()),
            Some(path) => Err(anyhow!(
                "{} exists already, so nothing was written: remove it, or name another place with --config",
                path.display()
            )),
        }
    }
}

/// Both files or neither.
fn write(files: &Files, answers: &Answers, has_device_management: bool) -> Result<()> {
    let config = templates::config(answers);
    let user = Config::from_text(&files.config, &config)
        .context("these answers make no configuration")?
        .bot_user;
    let registration = generate(&user, has_device_management);
    if let Some(folder) = files.config.parent() {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    files.refuse_existing()?;
    write_new(&files.registration, &registration)?;
    write_new(&files.config, &config).inspect_err(|_| {
        // It was made a moment ago, and nobody knows its tokens. What is left of it is told apart at the next try.
        drop(fs::remove_file(&files.registration));
    })?;
    Ok(())
}
