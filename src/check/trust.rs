//! Where `claude` looks for its trust in a project's directory: it goes by git repositories.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directories of which one has to be trusted: the project's own and those above it, up to the root of its git repository and
/// no further. For a linked worktree it is the main checkout. A home directory is never trusted. The paths must be without symbolic
/// links, as the program asks the system where it is.
pub(super) fn places(directory: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for place in directory.ancestors() {
        let git = place.join(".git");
        if let Some(checkout) = main_checkout(&git) {
            return vec![checkout];
        }
        if Some(place) != home {
            places.push(place.to_owned());
        }
        if git.exists() {
            break;
        }
    }
    places
}

/// Where the repository of a linked worktree is checked out. Its `.git` is a file that leads to a folder of its own within the
/// repository, and that names the repository (gitrepository-layout(5)). `None`: it is not a linked worktree.
fn main_checkout(git: &Path) -> Option<PathBuf> {
    let leads_to = |file: &Path, prefix: &str| -> Option<PathBuf> {
        let text = fs::read_to_string(file).ok()?;
        let path = text.strip_prefix(prefix)?.trim();
        file.parent()?.join(path).canonicalize().ok()
    };
    let own = leads_to(git, "gitdir:")?;
    let repository = leads_to(&own.join("commondir"), "")?;
    match repository.file_name()?.to_str() {
        Some(".git") => repository.parent().map(Path::to_owned),
        _ => Some(repository),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder with these repositories (folders with a `.git`) and files.
    fn host(repositories: &[&str], files: &[(&str, &str)]) -> TempDir {
        let folder = TempDir::with_prefix("rcbot-test-").unwrap();
        for repository in repositories {
            fs::create_dir_all(folder.path().join(repository).join(".git")).unwrap();
        }
        for (file, text) in files {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn trust_is_looked_for_up_to_the_root_of_the_repository_and_a_worktrees_in_the_main_checkout() {
        let host = host(
            &["srv/website", "srv/website/vendored", "srv/main"],
            &[
                ("srv/plain/below/file", ""),
                ("srv/website/backend/file", ""),
                ("srv/website/vendored/deep/file", ""),
                (
                    "srv/worktree/.git",
                    "gitdir: ../main/.git/worktrees/worktree\n",
                ),
                ("srv/worktree/backend/file", ""),
                ("srv/main/.git/worktrees/worktree/commondir", "../..\n"),
                ("srv/bare.git/worktrees/other/commondir", "../..\n"),
                ("srv/other/.git", "gitdir: ../bare.git/worktrees/other\n"),
                // A submodule is a repository of its own.
                (
                    "srv/website/module/.git",
                    "gitdir: ../.git/modules/module\n",
                ),
                ("srv/website/.git/modules/module/HEAD", ""),
                ("srv/broken/.git", "gitdir: /nowhere\n"),
            ],
        );
        let root = host.path().canonicalize().unwrap();
        let home = root.join("srv");
        for (directory, expected) in [
            ("srv/website", &["srv/website"][..]),
            (
                "srv/website/backend",
                &["srv/website/backend", "srv/website"],
            ),
            ("srv/website/vendored", &["srv/website/vendored"]),
            (
                "srv/website/vendored/deep",
                &["srv/website/vendored/deep", "srv/website/vendored"],
            ),
            ("srv/website/module", &["srv/website/module"]),
            ("srv/worktree", &["srv/main"]),
            ("srv/worktree/backend", &["srv/main"]),
            ("srv/other", &["srv/bare.git"]),
            ("srv/broken", &["srv/broken"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|path| root.join(path)).collect();
            assert_eq!(
                places(&root.join(directory), Some(&home)),
                expected,
                "{directory}"
            );
        }
        // Outside of all repositories there is no end but the root, and the home directory is left out.
        let plain = places(&root.join("srv/plain/below"), Some(&home));
        assert_eq!(
            plain[..3],
            ["srv/plain/below", "srv/plain", ""].map(|path| root.join(path))
        );
        assert_eq!(plain.last().map(PathBuf::as_path), Some(Path::new("/")));
    }
}
