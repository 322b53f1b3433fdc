//! Project roots: each folder directly below one is a project by its name, without an entry in the configuration.
//!
//! Nothing is cached: each question reads the file system, so that a new folder counts at once. That may block on a dead
//! network file system, so a caller that serves others asks in a separate thread.
//!
//! A name never leads out of its root: the directory of a project that was found is without symbolic links, strictly below the
//! root, and a session is spawned there only if that is still so (`Project::is_found`).

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{Config, ConfiguredProject, Notification};
use crate::remote_control::{Project, ProjectName, SessionSettings};

/// How many entries of a root are listed: the rest is found by its whole name only. Two hundred take a fraction of a
/// millisecond, this many some ten.
const MOST_ENTRIES: usize = 10_000;

/// A directory whose folders are projects.
#[derive(Debug, Clone)]
pub(crate) struct ProjectRoot {
    /// Where it is. Absolute; may be a symbolic link, and may not exist.
    pub(crate) directory: PathBuf,
    /// The power level for its projects, in place of [`Authorization::power_level`](super::Authorization::power_level).
    pub(crate) power_level: Option<i64>,
    /// The events that ring for those who have the link of a session in its projects.
    pub(crate) notify: Vec<Notification>,
    pub(crate) settings: SessionSettings,
}

/// What is below the roots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) projects: BTreeSet<ProjectName>,
    /// What was seen of each root, in the order of the configuration; or why it cannot be read.
    pub(crate) roots: Vec<Result<Seen, String>>,
}

/// What is below one root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The projects that are its own: of two roots with the same name, the first wins.
    pub(crate) projects: Vec<ProjectName>,
    /// Folders whose names cannot be a project's.
    pub(crate) unfit: usize,
    /// Symbolic links to a directory outside the root, or to a hidden one.
    pub(crate) outside: usize,
    /// Whether there is more than was listed.
    pub(crate) is_cut: bool,
}

/// A root as it is now, without symbolic links, and the directories below it that belong to others.
struct ResolvedRoot {
    directory: PathBuf,
    taken: Vec<PathBuf>,
}

impl Config {
    /// The project of this name: that of the configuration, else a folder below a root. Asks the file system.
    pub(crate) fn project(&self, name: &ProjectName) -> Option<ConfiguredProject> {
        let configured = self.projects.get(name).cloned();
        configured.or_else(|| self.found_project(name))
    }

    /// All folders below the roots that are projects. Asks the file system.
    pub(crate) fn look_below_roots(&self) -> Found {
        let mut found = Found::default();
        let taken = self.taken();
        for root in &self.project_roots {
            let seen = ResolvedRoot::of(root, &taken).and_then(|root| root.list());
            let seen = seen.map(|mut seen| {
                seen.projects
                    .retain(|name| !self.is_named(name) && found.projects.insert(name.clone()));
                seen
            });
            found.roots.push(seen.map_err(|error| error.to_string()));
        }
        found
    }

    /// Finds a project by its whole name, even if the root has too many entries to list.
    fn found_project(&self, name: &ProjectName) -> Option<ConfiguredProject> {
        if self.project_roots.is_empty() || self.is_named(name) {
            return None;
        }
        let taken = self.taken();
        self.project_roots.iter().find_map(|root| {
            let resolved = ResolvedRoot::of(root, &taken).ok()?;
            Some(ConfiguredProject {
                project: Project {
                    name: name.clone(),
                    directory: resolved.directory_of(name)?,
                    deliver_to: Vec::new(),
                    settings: root.settings.clone(),
                    is_found: true,
                },
                power_level: root.power_level,
                notify: root.notify.clone(),
            })
        })
    }

    /// Whether the configuration has this name, or one that a file system may not distinguish from it.
    fn is_named(&self, name: &ProjectName) -> bool {
        let mut names = self.projects.keys();
        names.any(|known| known.as_str().eq_ignore_ascii_case(name.as_str()))
    }

    /// Directories that are not found projects: those with a configured project, which a second name must not bypass, the other
    /// roots, and the bot's own.
    fn taken(&self) -> Vec<PathBuf> {
        let projects = self.projects.values();
        let projects = projects.map(|configured| &configured.project.directory);
        let roots = self.project_roots.iter().map(|root| &root.directory);
        let all = projects.chain(roots).chain([&self.data_dir]);
        all.filter_map(|path| path.canonicalize().ok()).collect()
    }
}

impl ResolvedRoot {
    fn of(root: &ProjectRoot, taken: &[PathBuf]) -> io::Result<Self> {
        let directory = root.directory.canonicalize()?;
        let taken = taken.iter();
        let taken = taken.filter(|path| **path != directory && path.starts_with(&directory));
        Ok(Self {
            taken: taken.cloned().collect(),
            directory,
        })
    }

    /// The directory of a project by this name, without symbolic links.
    fn directory_of(&self, name: &ProjectName) -> Option<PathBuf> {
        let path = self.directory.join(name.as_str()).canonicalize().ok()?;
        (self.is_below(&path) && self.is_free(&path) && path.is_dir()).then_some(path)
    }

    /// Strictly, and by no hidden folder.
    fn is_below(&self, path: &Path) -> bool {
        let is_hidden = |part: &std::ffi::OsStr| part.as_bytes().starts_with(b".");
        path != self.directory
            && path
                .strip_prefix(&self.directory)
                .is_ok_and(|below| !below.iter().any(is_hidden))
    }

    fn is_free(&self, path: &Path) -> bool {
        !self.taken.iter().any(|taken| path.starts_with(taken))
    }

    fn list(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        for (number, entry) in fs::read_dir(&self.directory)?.enumerate() {
            if number == MOST_ENTRIES {
                seen.is_cut = true;
                break;
            }
            let entry = entry?;
            // An entry may vanish meanwhile.
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let name = entry.file_name();
            if name.as_bytes().starts_with(b".") || !(kind.is_dir() || kind.is_symlink()) {
                continue;
            }
            let mut path = entry.path();
            if kind.is_symlink() {
                match path.canonicalize() {
                    Ok(target) if target.is_dir() => path = target,
                    Ok(_) | Err(_) => continue,
                }
                if !self.is_below(&path) {
                    seen.outside += 1;
                    continue;
                }
            }
            let name = name.to_str().and_then(|name| name.parse().ok());
            match name {
                Some(name) if self.is_free(&path) => seen.projects.push(name),
                Some(_) => {}
                None => seen.unfit += 1,
            }
        }
        seen.projects.sort_unstable();
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A configuration with these lines, in a folder with a root `src`.
    fn config(folder: &TempDir, lines: &str) -> Config {
        let text = format!(
            "homeserver: {{ url: http://127.0.0.1:1, server_name: x.y }}\nadmin_room: \"#admins:x.y\"\n{lines}\n"
        );
        Config::from_text(&folder.path().join("config.yaml"), &text).unwrap()
    }

    fn folder_with(names: &[&str]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for name in names {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        folder
    }

    fn name(name: &str) -> ProjectName {
        name.parse().unwrap()
    }

    fn names(config: &Config) -> Vec<String> {
        let found = config.look_below_roots().projects;
        assert!(found.iter().all(|name| config.project(name).is_some()));
        found.iter().map(ToString::to_string).collect()
    }

    fn directory(config: &Config, project: &str) -> Option<PathBuf> {
        Some(config.project(&name(project))?.project.directory)
    }

    #[test]
    fn each_folder_below_a_root_is_a_project() {
        let folder = folder_with(&[
            "src/website/docs",
            "src/api-2.x",
            "src/.git",
            "src/web site",
        ]);
        fs::write(folder.path().join("src/README"), "").unwrap();
        let config = config(
            &folder,
            "sessions: { stop_grace: 7s }\nproject_roots: [src]",
        );
        assert_eq!(names(&config), ["api-2.x", "website"]);
        let project = config.project(&name("website")).unwrap().project;
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(project.directory, real.join("src/website"));
        assert!(project.is_found);
        assert_eq!(project.settings.stop_grace.as_secs(), 7);
        let seen = config.look_below_roots().roots.remove(0).unwrap();
        assert_eq!((seen.unfit, seen.outside), (1, 0));
        for other in ["docs", "README", "website2", "WEBSITE"] {
            assert_eq!(directory(&config, other), None, "{other}");
        }
        fs::create_dir(folder.path().join("src/website2")).unwrap();
        assert!(directory(&config, "website2").is_some());
        fs::remove_dir(folder.path().join("src/website2")).unwrap();
        assert_eq!(directory(&config, "website2"), None);
    }

    #[test]
    fn no_name_leads_out_of_its_root() {
        let folder = folder_with(&["src/website/docs", "src/.hidden/x", "src2/secret", "data"]);
        let root = folder.path().join("src");
        for (link, target) in [
            ("out", folder.path().join("src2/secret")),
            ("relative", "../src2/secret".into()),
            ("by-way", root.join("out")),
            ("root", root.clone()),
            ("dot", ".".into()),
            ("above", folder.path().into()),
            ("top", "/".into()),
            ("hidden", root.join(".hidden/x")),
            ("gone", root.join("nothing")),
            ("loop", root.join("loop")),
            ("within", root.join("website/docs")),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let config = config(&folder, "project_roots: [src]");
        assert_eq!(names(&config), ["website", "within"]);
        let seen = config.look_below_roots().roots.remove(0).unwrap();
        assert_eq!(seen.outside, 8);
        for link in [
            "out", "relative", "by-way", "root", "dot", "above", "top", "hidden", "gone", "loop",
        ] {
            assert_eq!(directory(&config, link), None, "{link}");
        }
    }

    #[test]
    fn a_root_may_be_a_link_itself_and_is_looked_at_once_resolved() {
        let folder = folder_with(&["real/website"]);
        symlink(folder.path().join("real"), folder.path().join("src")).unwrap();
        let config = config(&folder, "project_roots: [src]");
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(
            directory(&config, "website"),
            Some(real.join("real/website"))
        );
        assert_eq!(names(&config), ["website"]);
    }

    #[test]
    fn configured_projects_win_by_name_and_by_directory() {
        let folder = folder_with(&[
            "src/website",
            "src/Api",
            "src/notes",
            "src/data",
            "src/team/x",
            "else",
        ]);
        symlink("website", folder.path().join("src/alias")).unwrap();
        let config = config(
            &folder,
            "data_dir: src/data\n\
             projects:\n  api: { directory: else }\n  site: { directory: src/website, power_level: 100 }\n\
             project_roots:\n  - src\n  - { directory: src/team, power_level: 60, stop_grace: 3s }",
        );
        // A second name must not bypass the settings of a directory.
        assert_eq!(names(&config), ["notes", "x"]);
        for taken in ["website", "alias", "Api", "team", "data"] {
            assert_eq!(directory(&config, taken), None, "{taken}");
        }
        assert_eq!(directory(&config, "api"), Some(folder.path().join("else")));
        let of_team = config.project(&name("x")).unwrap();
        assert_eq!(of_team.power_level, Some(60));
        assert_eq!(of_team.project.settings.stop_grace.as_secs(), 3);
    }

    #[test]
    fn of_two_roots_the_first_wins_and_one_that_cannot_be_read_is_reported() {
        let folder = folder_with(&["a/website", "b/website", "b/api"]);
        let config = config(&folder, "project_roots: [gone, a, b]");
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(names(&config), ["api", "website"]);
        assert_eq!(directory(&config, "website"), Some(real.join("a/website")));
        let roots = config.look_below_roots().roots;
        let of_each: Vec<_> = roots
            .iter()
            .map(|seen| seen.as_ref().map(|seen| seen.projects.len()))
            .collect();
        assert!(
            matches!(of_each.as_slice(), [Err(_), Ok(1), Ok(1)]),
            "{of_each:?}"
        );
    }

    #[test]
    fn a_huge_root_is_listed_in_part_and_every_folder_found_by_name() {
        let folder = folder_with(&["src"]);
        let count = MOST_ENTRIES + 5;
        for number in 0..count {
            fs::create_dir(folder.path().join(format!("src/p{number}"))).unwrap();
        }
        let config = config(&folder, "project_roots: [src]");
        let found = config.look_below_roots();
        assert_eq!(found.projects.len(), MOST_ENTRIES);
        assert!(found.roots[0].as_ref().unwrap().is_cut);
        for number in 0..count {
            assert!(directory(&config, &format!("p{number}")).is_some());
        }
    }
}
