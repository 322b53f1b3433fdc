//! Paths in commands that people copy to a shell.

use std::path::Path;

/// Quotes a path, if a shell would take it for more than one word or for something else.
pub(crate) fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+:@%,".contains(character);
    if text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_as_a_shell_takes_it() {
        assert_eq!(word(Path::new("/srv/rcbot")), "/srv/rcbot");
        assert_eq!(word(Path::new("/srv/it's mine")), r"'/srv/it'\''s mine'");
    }
}
