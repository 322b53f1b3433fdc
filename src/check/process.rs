//! The bot that runs with the data directory, if one does: what holds for it is what counts.

use std::{collections::HashMap, env, ffi::OsString, path::Path};

use procfs::process::Process;

use crate::data_dir;

/// The process of the bot, or, where none runs, ourselves in its place.
pub(super) struct BotProcess {
    /// `None`: no bot runs.
    pub(super) running: Option<i32>,
    /// The environment from which sessions take theirs.
    pub(super) environment: HashMap<OsString, OsString>,
    /// The path of its control group in systemd's hierarchy; empty where there is none.
    pub(super) control_group: String,
}

impl BotProcess {
    pub(super) fn running_with(data_dir: &Path) -> Self {
        let running = data_dir::process_running_with(data_dir);
        let process = running.and_then(|pid| Process::new(pid).ok());
        // Another user's process keeps its environment to itself.
        let environment = process.as_ref().and_then(|process| process.environ().ok());
        let process = process.or_else(|| Process::myself().ok());
        Self {
            running,
            environment: environment.unwrap_or_else(|| env::vars_os().collect()),
            control_group: process
                .and_then(|process| control_group(&process))
                .unwrap_or_default(),
        }
    }
}

/// The first version of control groups names systemd's hierarchy, the second has one for all.
fn control_group(process: &Process) -> Option<String> {
    let mut all = process.cgroups().ok()?.0;
    all.sort_by_key(|group| group.hierarchy);
    let is_systemds = |group: &procfs::ProcessCGroup| {
        group.controllers.iter().any(|name| name == "name=systemd") || group.hierarchy == 0
    };
    all.into_iter()
        .rfind(is_systemds)
        .map(|group| group.pathname)
}
