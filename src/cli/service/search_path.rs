//! The PATH of a service: it does not read the user's shell profile, and has to find `claude` all the same.

use std::{
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

/// nvm has a folder for each version of Node.js, each with its own programs.
const NVM: &str = ".nvm/versions/node";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    /// The programs that are in no folder of it, nor in any other that was looked at.
    pub(super) missing: Vec<String>,
}

/// The usual folders, and before them those that have the programs, where these are elsewhere. `ours` is the PATH of the same
/// user's shell, if this runs in it.
pub(super) fn of(home: &Path, ours: Option<&OsStr>, programs: &[&str]) -> Found {
    let mut folders = vec![home.join(".local/bin")];
    folders.extend(OF_SYSTEM.map(PathBuf::from));
    let mut elsewhere: Vec<_> = ours
        .map(|path| env::split_paths(path).collect())
        .unwrap_or_default();
    elsewhere.extend(IN_HOME.map(|folder| home.join(folder)));
    elsewhere.extend(versions_of_node(&home.join(NVM)));
    // What a PATH cannot name cannot be part of it.
    elsewhere.retain(|folder| {
        folder.is_absolute()
            && folder
                .to_str()
                .is_some_and(|text| !text.contains([':', '\n']))
    });
    let mut missing = Vec::new();
    for &program in programs.iter().filter(|program| !program.contains('/')) {
        let has_it = |folder: &&PathBuf| is_program(&folder.join(program));
        if folders.iter().any(|folder| has_it(&folder)) {
            continue;
        }
        match elsewhere.iter().find(has_it) {
            Some(folder) => folders.insert(0, folder.clone()),
            None if missing.iter().any(|other| other == program) => {}
            None => missing.push(program.to_owned()),
        }
    }
    let folders: Vec<_> = folders
        .iter()
        .map(|folder| folder.to_string_lossy())
        .collect();
    Found {
        path: folders.join(":"),
        missing,
    }
}

/// The newest installation first.
fn versions_of_node(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<_> = entries
        .map(|entry| {
            let installed = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok();
            (installed, entry.path().join("bin"))
        })
        .collect();
    versions.sort_unstable();
    versions
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .collect()
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

    fn look(home: &Path, ours: Option<&str>) -> (String, Vec<String>) {
        let found = of(
            home,
            ours.map(OsStr::new),
            &["claude-of-test", "/bin/sh", "sh"],
        );
        let shown = home.to_str().unwrap();
        (found.path.replace(shown, "~"), found.missing)
    }

    #[test]
    fn the_folder_that_has_the_program_comes_first_wherever_it_is() {
        const USUAL: &str = "~/.local/bin:/usr/local/bin:/usr/bin:/bin";
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        assert_eq!(
            look(home, None),
            (USUAL.to_owned(), vec!["claude-of-test".to_owned()])
        );

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
