//! The PATH of a service, which has to find `claude` without the user's shell profile.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Where programs of every user are.
const OF_SYSTEM: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Where installers put programs in a home directory: `claude`'s own, npm, Volta, Bun, pnpm.
const IN_HOME: [&str; 6] = [
    ".local/bin",
    ".claude/local",
    ".npm-global/bin",
    ".volta/bin",
    ".bun/bin",
    ".local/share/pnpm",
];

/// nvm has a folder for each version of Node.js, each with its own programs: the newest installation comes first.
const NVM: &str = ".nvm/versions/node";

/// The usual folders, preceded by those of the programs that are elsewhere; and the programs that were not found. `ours` is the
/// PATH of the same user's shell, if this runs in it.
pub(super) fn of<'a>(
    home: &Path,
    ours: Option<&OsStr>,
    programs: BTreeSet<&'a str>,
) -> (String, Vec<&'a str>) {
    let mut folders = vec![home.join(".local/bin")];
    folders.extend(OF_SYSTEM.map(PathBuf::from));
    let mut elsewhere: Vec<_> = ours
        .map(|path| env::split_paths(path).collect())
        .unwrap_or_default();
    elsewhere.extend(IN_HOME.map(|folder| home.join(folder)));
    let versions = fs::read_dir(home.join(NVM)).into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.path()).collect();
    let installed = |version: &PathBuf| fs::metadata(version).and_then(|it| it.modified()).ok();
    versions.sort_by_key(|version| Reverse(installed(version)));
    elsewhere.extend(versions.iter().map(|version| version.join("bin")));
    // A PATH cannot name all folders, such as one with a colon.
    elsewhere.retain(|folder| {
        let can_name = |text: &str| !text.contains([':', '\n']);
        folder.is_absolute() && folder.to_str().is_some_and(can_name)
    });
    let mut missing = Vec::new();
    for program in programs {
        let has_it = |folder: &&PathBuf| is_program(&folder.join(program));
        if program.contains('/') || folders.iter().any(|folder| has_it(&folder)) {
            continue;
        }
        match elsewhere.iter().find(has_it) {
            Some(folder) => folders.insert(0, folder.clone()),
            None => missing.push(program),
        }
    }
    let folders = folders.iter().map(|folder| folder.to_string_lossy());
    let folders: Vec<_> = folders.collect();
    (folders.join(":"), missing)
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a program in a folder of this home directory.
    fn install(home: &Path, folder: &str) {
        let folder = home.join(folder);
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("claude-of-test");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn look(home: &Path, ours: Option<&str>) -> (String, Vec<&'static str>) {
        let programs = ["claude-of-test", "/bin/sh", "sh"].into();
        let (path, missing) = of(home, ours.map(OsStr::new), programs);
        (path.replace(home.to_str().unwrap(), "~"), missing)
    }

    #[test]
    fn the_folder_that_has_the_program_comes_first_wherever_it_is() {
        const USUAL: &str = "~/.local/bin:/usr/local/bin:/usr/bin:/bin";
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        assert_eq!(look(home, None), (USUAL.to_owned(), vec!["claude-of-test"]));

        install(home, ".nvm/versions/node/v24.1.0/bin");
        let with_node = format!("~/.nvm/versions/node/v24.1.0/bin:{USUAL}");
        assert_eq!(look(home, None), (with_node, Vec::new()));

        install(home, "tools");
        let tools = home.join("tools");
        let ours = format!("relative:/nowhere:{}", tools.display());
        assert_eq!(
            look(home, Some(&ours)),
            (format!("~/tools:{USUAL}"), Vec::new())
        );

        install(home, ".local/bin");
        assert_eq!(look(home, Some(&ours)), (USUAL.to_owned(), Vec::new()));
    }
}
