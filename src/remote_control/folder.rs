//! What is shown of a project besides its sessions: the account that `claude` is logged in with and how long that lasts,
//! whether it trusts the folder, the git branch, and when the project was last used.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    Project, ProjectName, SessionSettings,
    claude::{
        self, Invocation,
        prerequisites::{ClaudeFiles, TrustReader},
    },
    watch::STDOUT,
};
use crate::regular_file;

/// How much of a branch's name is shown, in characters: a session can name a branch as it likes.
const LONGEST_BRANCH: usize = 40;

/// How much is read of a file in `.git`, in bytes.
const LONGEST_FILE: u64 = 4 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FolderFacts {
    /// Whether `claude` trusts it. `None`: unknown, or the project runs another program.
    pub(crate) is_trusted: Option<bool>,
    /// The git branch, or the beginning of the commit: letters, digits and `-_./+#` only.
    pub(crate) branch: Option<String>,
}

impl FolderFacts {
    /// Use one `trust` for many projects, as `claude` has one large file for all of them. Reads files, so it may block.
    pub(crate) fn look(project: &Project, trust: &mut TrustReader) -> Self {
        let files = files_of_server(&project.settings, &project.directory);
        Self {
            is_trusted: files.and_then(|files| trust.trusts(&files)),
            branch: branch(&project.directory),
        }
    }
}

/// The address of the claude.ai account for which the links of this project open: the one that is logged in now, in the
/// environment of a session. `None` if it is unknown. Reads a file, so it may block.
pub(crate) fn account(project: &Project) -> Option<String> {
    files_of(&project.settings, &project.directory)?.account()
}

/// How long the login of a project's sessions lasts, if it ends soon. `None` also if they run another program.
/// Reads files, so it may block.
pub(crate) fn login_ends_in(
    settings: &SessionSettings,
    directory: &Path,
    now: SystemTime,
) -> Option<Duration> {
    let files = files_of_server(settings, directory)?;
    files.log_in(now).ok()?.ends_in(now)
}

fn files_of(settings: &SessionSettings, directory: &Path) -> Option<ClaudeFiles> {
    // The files are the same for every session id.
    let environment = claude::environment(env::vars_os(), &settings.environment, "");
    ClaudeFiles::of(&environment, directory)
}

/// `None`: the project runs another program.
fn files_of_server(settings: &SessionSettings, directory: &Path) -> Option<ClaudeFiles> {
    let serves = Invocation::of(&settings.command).serves();
    files_of(settings, directory).filter(|_| serves)
}

/// When a session of each project last printed something. Reads a folder, so it may block.
pub(crate) fn last_used(sessions: &Path) -> BTreeMap<ProjectName, SystemTime> {
    let entries = fs::read_dir(sessions).into_iter().flatten().flatten();
    let used = entries.filter_map(|entry| {
        let name = entry.file_name().to_str()?.parse().ok()?;
        let output = fs::metadata(entry.path().join(STDOUT)).ok()?;
        Some((name, output.modified().ok()?))
    });
    used.collect()
}

/// The branch or commit of HEAD. In a linked worktree or a submodule, `.git` is a file that names the real folder.
fn branch(directory: &Path) -> Option<String> {
    let git = directory.join(".git");
    let git = match beginning_of(&git) {
        Some(text) => directory.join(text.strip_prefix("gitdir:")?.trim()),
        None => git,
    };
    let text = beginning_of(&git.join("HEAD"))?;
    let text = text.trim();
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || "-_./+#".contains(sign);
    if let Some(branch) = text.strip_prefix("ref: refs/heads/") {
        let shown = match branch.split_at_checked(LONGEST_BRANCH) {
            Some((_, "")) | None => branch.to_owned(),
            Some((beginning, _)) => format!("{beginning}.."),
        };
        return branch.chars().all(is_plain).then_some(shown);
    }
    let is_commit = text.len() >= 40 && text.chars().all(|sign| sign.is_ascii_hexdigit());
    text.get(..7).filter(|_| is_commit).map(str::to_owned)
}

/// `None`: it is not a regular file, or not readable.
fn beginning_of(file: &Path) -> Option<String> {
    let bytes = regular_file::read(file, LONGEST_FILE).ok()??;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_branch_of_a_worktree_is_read_and_nothing_but_a_branch_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let head = |text: &str| {
            let git = folder.path().join("repository/.git");
            fs::create_dir_all(&git).unwrap();
            fs::write(git.join("HEAD"), text).unwrap();
            branch(&folder.path().join("repository"))
        };
        let main = Some("main".to_owned());
        assert_eq!(head("ref: refs/heads/main\n"), main);
        assert_eq!(
            head("ref: refs/heads/fix/a_b-1.2\n").as_deref(),
            Some("fix/a_b-1.2")
        );
        assert_eq!(head(&"0123456789".repeat(4)).as_deref(), Some("0123456"));
        // No more is read than a branch can have.
        let huge = format!("ref: refs/heads/main{}x", " ".repeat(8 * 1024));
        assert_eq!(head(&huge), main);
        let long = head(&format!("ref: refs/heads/{}\n", "a".repeat(200))).unwrap();
        assert_eq!(long.len(), LONGEST_BRANCH + 2);
        for other in [
            "",
            "secret",
            "c0ffee0",
            "ref: refs/heads/a b",
            "ref: refs/heads/<b>",
            "ref: refs/heads/`x`",
            "ref: refs/heads/https://x.y",
        ] {
            assert_eq!(head(other), None, "{other}");
        }
        head("ref: refs/heads/main\n");
        let worktree = folder.path().join("worktree");
        fs::create_dir(&worktree).unwrap();
        fs::write(worktree.join(".git"), "gitdir: ../repository/.git\n").unwrap();
        assert_eq!(branch(&worktree), main);
        assert_eq!(branch(folder.path()), None);
    }
}
