//! What a session printed, for people to read: secret, as it may contain anything.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    claude::{LinkPattern, visible_text},
    watch::{STDERR, STDOUT},
};
use crate::{regular_file, secret::SecretText};

/// How much of a file's end is read: a program that repaints fills many screens with the same lines.
const END: u64 = 64 * 1024;

/// The last lines of a session's output, without links. Confidential: only for users who may have the session's link.
pub type Output = SecretText;

/// Reads the last output of a project's latest session. Reads files, so it may block.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) folder: PathBuf,
    pub(super) pattern: Option<LinkPattern>,
    pub(super) lines: usize,
}

impl LogReader {
    /// The last lines at this moment, stderr after stdout, as it says more. Links are replaced.
    pub fn read(&self) -> Result<Output, OutputError> {
        let stdout = end_of(&self.folder.join(STDOUT))?;
        let stderr = end_of(&self.folder.join(STDERR))?;
        if stdout.is_none() && stderr.is_none() {
            return Err(OutputError::None);
        }
        let files = [stdout, stderr].into_iter().flatten();
        let mut lines: Vec<_> = files.flat_map(|bytes| screen(&bytes)).collect();
        let surplus = lines.len().saturating_sub(self.lines);
        let text = lines.split_off(surplus).join("\n");
        // Without a pattern links cannot be found, so nothing is shown.
        let pattern = self.pattern.as_ref().ok_or(OutputError::None)?;
        Ok(pattern.blot_out(&text).as_str().into())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The project never had a session here.
    #[error("there is no output yet")]
    None,
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
}

fn end_of(path: &Path) -> Result<Option<Vec<u8>>, OutputError> {
    let read = || -> io::Result<Vec<u8>> {
        // A session may have put a pipe in its place.
        let mut file = regular_file::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        // The file may be truncated meanwhile; then the rest is returned.
        let mut end = Vec::new();
        file.take(END).read_to_end(&mut end)?;
        Ok(end)
    };
    match read() {
        Ok(end) => Ok(Some(end)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OutputError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The lines that a person would see: a program that repaints its screen begins each time with ESC [ J.
fn screen(bytes: &[u8]) -> Vec<String> {
    let repaint = b"\x1b[J";
    let mut windows = bytes.windows(repaint.len());
    let last = windows.rposition(|window| window == repaint);
    let shown = bytes.get(last.unwrap_or(0)..).unwrap_or_default();
    let text = visible_text(shown);
    let lines = text.lines().map(str::trim_end);
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_lines(folder: &Path, lines: usize) -> Result<Output, OutputError> {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let reader = LogReader {
            folder: folder.to_owned(),
            pattern: Some(pattern.unwrap()),
            lines,
        };
        reader.read()
    }

    #[test]
    fn the_last_screen_is_shown_without_escapes_and_without_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let screen = "\x1b[2A\x1b[JConnected\nopen \x1b[36mhttps://claude.ai/code?environment=env_1\x1b[0m\n";
        std::fs::write(folder.path().join(STDOUT), format!("{screen}{screen}")).unwrap();
        std::fs::write(folder.path().join(STDERR), "trouble\n").unwrap();
        let output = last_lines(folder.path(), 40).unwrap();
        assert_eq!(output.expose(), "Connected\nopen [link]\ntrouble");
        let shortest = last_lines(folder.path(), 1).unwrap();
        assert_eq!(shortest.expose(), "trouble");
        // Of a long one, the end.
        let long = ["x\n".repeat(64 * 1024), "the end\n".to_owned()].concat();
        std::fs::write(folder.path().join(STDERR), long).unwrap();
        let shortest = last_lines(folder.path(), 1).unwrap();
        assert_eq!(shortest.expose(), "the end");
        // Where it is not known what a link looks like, nothing is.
        let of_unknown_project = LogReader {
            folder: folder.path().to_owned(),
            pattern: None,
            lines: 1,
        };
        assert!(matches!(of_unknown_project.read(), Err(OutputError::None)));
    }

    #[test]
    fn a_project_without_a_session_has_no_output() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            last_lines(folder.path(), 40),
            Err(OutputError::None)
        ));
    }

    #[test]
    fn a_pipe_in_the_place_of_the_output_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let stdout = folder.path().join(STDOUT);
        nix::unistd::mkfifo(&stdout, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let shown = last_lines(folder.path(), 40);
        assert!(matches!(shown, Err(OutputError::Read { .. })), "{shown:?}");
    }
}
