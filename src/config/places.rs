//! Where sessions are, read also from a configuration with mistakes elsewhere: nobody should have to fix it first to stop one
//! in a hurry.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_yaml::Value;

use super::{
    Config, FileError, MISSING, Problems, document,
    file::DATA_DIR,
    outline::Outline,
    values::{self, FilePath, Kind as _},
};
use crate::remote_control::{ProjectName, STOP_GRACE};

/// Where sessions are, and what can have one.
#[derive(Debug)]
pub(crate) struct Places {
    /// Where the bot keeps its files. Absolute.
    pub(crate) data_dir: PathBuf,
    /// The projects, and the grace period of their sessions.
    pub(crate) projects: BTreeMap<ProjectName, Duration>,
    /// The grace period for other projects, such as one found below a root.
    pub(crate) stop_grace: Duration,
    /// Whether there are project roots.
    pub(crate) has_roots: bool,
    pub(crate) problems: Option<Problems>,
}

impl Places {
    /// Reads a file like [`Config::load`], except for mistakes elsewhere in it.
    pub(crate) fn load(path: &Path) -> Result<Self, FileError> {
        let text = document::text_of(path, MISSING)?;
        match Config::from_text(path, &text) {
            Ok(config) => Ok(config.into()),
            Err(FileError::Invalid(problems)) => {
                let places = Self::from_wrong(path, &text, &problems);
                places.ok_or_else(|| problems.into())
            }
            Err(error) => Err(error),
        }
    }

    /// `None`: the text does not say where the data directory is.
    fn from_wrong(path: &Path, text: &str, problems: &Problems) -> Option<Self> {
        if problems.are_about("data_dir") {
            return None;
        }
        let file = std::path::absolute(path).ok()?;
        let root = Outline::of(path, text).value?;
        let data_dir = root.get("data_dir");
        let data_dir = data_dir.map_or(Ok(DATA_DIR.into()), FilePath::read);
        let grace_in = |section: &Value| values::duration(section.get("stop_grace")?).ok();
        let common = root.get("sessions").and_then(grace_in);
        let common = common.unwrap_or(STOP_GRACE);
        let projects = root.get("projects").and_then(Value::as_mapping);
        let projects = projects.into_iter().flatten().filter_map(|(key, project)| {
            let name = key.as_str()?.parse().ok()?;
            Some((name, grace_in(project).unwrap_or(common)))
        });
        Some(Self {
            data_dir: file.parent()?.join(data_dir.ok()?),
            projects: projects.collect(),
            stop_grace: common,
            has_roots: root.get("project_roots").is_some(),
            problems: Some(problems.clone()),
        })
    }
}

impl From<Config> for Places {
    fn from(config: Config) -> Self {
        let projects = config.projects.into_iter();
        let roots = config.project_roots.iter();
        let of_roots = roots.map(|root| root.settings.stop_grace).max();
        Self {
            stop_grace: of_roots.unwrap_or(STOP_GRACE),
            has_roots: !config.project_roots.is_empty(),
            data_dir: config.data_dir,
            projects: projects
                .map(|(name, configured)| (name, configured.project.settings.stop_grace))
                .collect(),
            problems: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn mistakes_elsewhere_do_not_hide_the_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        let load = |text: &str| {
            fs::write(&file, text).unwrap();
            Places::load(&file)
        };
        let places = load(
            "admin_rom: x\ndata_dir: here\nsessions: { stop_grace: 2s }\nprojects:\n  web: 3\n  api: { stop_grace: 5s }\n",
        )
        .unwrap();
        assert_eq!(places.data_dir, folder.path().join("here"));
        let graces = [("api", 5), ("web", 2)];
        let graces = graces.map(|(name, secs)| (name.parse().unwrap(), Duration::from_secs(secs)));
        assert_eq!(places.projects, graces.into());
        assert!(places.problems.unwrap().to_string().contains("admin_rom"));

        let places = load(
            "homeserver: { url: http://127.0.0.1:1, server_name: x.y }\nadmin_room: \"#admins:x.y\"\n\
             project_roots: [{ directory: a, stop_grace: 70s }, { directory: b, stop_grace: 2s }]\n",
        )
        .unwrap();
        assert_eq!(places.stop_grace, Duration::from_secs(70), "the longest");
        assert!(places.problems.is_none());

        let places = load("projects: []\n").unwrap();
        assert_eq!(places.data_dir, folder.path().join("data"));
        for text in [
            "admin_room: &x y\nbot: !z { x: *x }\ndata_dir: here\n",
            "5: x\nhost: a\nhost: b\ndata_dir: here\nprojects: { web: {}, web: {} }\n",
            "data_dir: here\nbot: { password: 99999999999999999999 }\n",
        ] {
            let places = load(text).unwrap();
            assert_eq!(places.data_dir, folder.path().join("here"), "{text}");
        }
        // The data directory cannot be guessed.
        let large = format!("x: {}\ndata_dir: here\n", "y".repeat(1024 * 1024));
        for text in [
            large.as_str(),
            "data_dir: [x]\n",
            "data_dir: [\n",
            "data_dir: a\ndata_dir: b\n",
            "data_dir:\n",
        ] {
            assert!(matches!(load(text), Err(FileError::Invalid(_))), "{text}");
        }
    }
}
